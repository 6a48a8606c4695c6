"""Worker job that writes a .tflite file with a detector's post-processing alone.

Published timings of EfficientDet-Lite include it. It runs outside XNNPACK, on one thread; converters make it only from
a function that is marked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.events import Listener
from edgekit.core.records.samples import Samples
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.devices.cost_models.reference_networks import CLASSES, DETECTIONS
from edgekit.workers.job import worker_job

_OPERATOR = "TFLite_Detection_PostProcess"
_SEED = 0


@dataclass(frozen=True)
class PostProcessRequest:
    """A request to write the post-processing of a detector.

    Attributes:
        anchors: The number of anchors.
        folder: The folder for `model.tflite` and `samples.npz`, absolute.
    """

    anchors: int
    folder: str


@worker_job
def write_post_process(request: PostProcessRequest, _emit: Listener) -> Signature:
    """Write the model file, and a sample of random boxes and scores.

    Args:
        request: The number of anchors and the folder.

    Returns:
        The signature of the model file.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    shapes = {"boxes": [1, request.anchors, 4], "scores": [1, request.anchors, CLASSES]}
    outputs = {name: [1, DETECTIONS] for name in ("out_boxes", "out_classes", "out_scores")}
    outputs = {**outputs, "out_boxes": [1, DETECTIONS, 4], "count": [1]}
    rng = np.random.default_rng(_SEED)
    model = _model(schema, shapes, outputs, rng.random((request.anchors, 4), np.float32))
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    Path(request.folder, "model.tflite").write_bytes(bytes(builder.Output()))
    Samples({name: rng.random(shape, np.float32) for name, shape in shapes.items()}, {}).save(
        Path(request.folder, "samples.npz")
    )
    return Signature(
        tuple(TensorSpec(name, tuple(shape), "float32") for name, shape in shapes.items()),
        tuple(TensorSpec(name, tuple(shape), "float32") for name, shape in outputs.items()),
    )


def _model(schema: Any, inputs: dict[str, list[int]], outputs: dict[str, list[int]], anchors: Any) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = _OPERATOR, 1
    empty, constant = schema.BufferT(), schema.BufferT()
    constant.data = anchors.view(np.uint8).reshape(-1)
    graph = schema.SubGraphT()
    tensors = {**inputs, "anchors": list(anchors.shape), **outputs}
    graph.tensors = [_tensor(schema, name, shape, int(name == "anchors")) for name, shape in tensors.items()]
    graph.inputs, graph.outputs = [0, 1], [3, 4, 5, 6]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], graph.outputs
    operator.customOptions = np.frombuffer(_options(), np.uint8)
    graph.operators = [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [empty, constant]
    return model


def _tensor(schema: Any, name: str, shape: list[int], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, schema.TensorType.FLOAT32, buffer
    return tensor


def _options() -> bytes:
    """The operator's options; TensorFlow, tensorflow/lite/kernels/detection_postprocess.cc."""
    from flatbuffers import flexbuffers

    builder = flexbuffers.Builder()
    with builder.Map():
        for name, value in (
            ("max_detections", DETECTIONS),
            ("max_classes_per_detection", 1),
            ("num_classes", CLASSES),
            ("use_regular_nms", False),
            ("nms_score_threshold", 0.0),
            ("nms_iou_threshold", 0.5),
            *((f"{side}_scale", 1.0) for side in "yxhw"),
        ):
            builder.Key(name)
            builder.Add(value)
    return bytes(builder.Finish())

"""ONNX's own test architectures, with random weights that make their outputs depend on their inputs.

To be small, they come without weights: ConstantOfShape fills them, and every image gives the same output. Here weights
are random, of a scale that preserves the variance of activations (He et al., https://arxiv.org/abs/1502.01852), and a
final softmax, which would saturate, is removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
NAMES = sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("*.onnx"))


def light_model(name: str) -> Any:
    """Return the architecture with seeded random weights, the input `image` and the output `scores`."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    model.ir_version = 8  # since IR version 4, initializers need not be inputs as well
    graph = model.graph
    weights = {item.name for item in graph.initializer}
    _randomize(graph, np.random.default_rng(0))
    (image,) = (value for value in graph.input if value.name not in weights)
    scores = graph.node[-1].input[0] if graph.node[-1].op_type == "Softmax" else graph.output[0].name
    if graph.node[-1].op_type == "Softmax":
        del graph.node[-1]
    _rename(graph, {image.name: "image", scores: "scores"})
    dims = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, dims))
    shape = [dim.dim_value for dim in _shape(model, "scores")]
    graph.output.append(helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, shape))
    return model


def _shape(model: Any, name: str) -> Any:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(helper.make_empty_tensor_value_info(name))
    inferred = onnx.shape_inference.infer_shapes(probe).graph
    candidates = (value for value in (*inferred.output, *inferred.value_info) if value.name == name)
    return next(value.type.tensor_type.shape.dim for value in candidates if value.type.tensor_type.HasField("shape"))


def _randomize(graph: Any, rng: np.random.Generator) -> None:
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    fillers = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes = {node.output[0]: tuple(constants[node.input[0]].tolist()) for node in fillers}
    shapes |= {name: array.shape for name, array in constants.items() if array.dtype == np.float32}
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    # Scales and variances (inputs 1 and 4 of batch norm), and unsqueezed scales, must be positive.
    factors = {node.input[index] for node in nodes if node.op_type == "BatchNormalization" for index in (1, 4)}
    factors |= {name for node in nodes if node.op_type == "Unsqueeze" for name in node.input}
    weights = [numpy_helper.from_array(_values(shape, name in factors, rng), name) for name, shape in shapes.items()]
    used = {name for node in nodes for name in node.input}
    kept = [item for item in graph.initializer if item.name not in shapes and item.name in used]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *weights])
    graph.node.extend(nodes)


def _values(shape: tuple[int, ...], factor: bool, rng: np.random.Generator) -> np.ndarray:
    if len(shape) > 1:
        values = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
    else:
        values = rng.uniform(0.5, 1.5, shape) if factor else rng.normal(0, 0.1, shape)
    return values.astype(np.float32, copy=False)


def images(count: int) -> np.ndarray:
    """Return random patterns of 32 x 32 blocks, (count, 3, 224, 224); noise of single pixels would average out."""
    coarse = np.random.default_rng(1).standard_normal((count, 3, 7, 7), np.float32)
    return np.kron(coarse, np.ones((1, 1, 32, 32), np.float32))


def _rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]

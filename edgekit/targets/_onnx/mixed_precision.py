"""Quantization of ONNX graphs by ONNX Runtime's tools, with nodes that a recipe keeps in float."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import ConversionRequest, QuantizableLayer, named_layers
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.core.values.specs import Signature
from edgekit.targets._onnx import exact_values
from edgekit.targets._onnx.graph import parse

PRECISIONS = frozenset({"dynamic", "int8"})
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "moving-average", "percentile", "entropy")

# Names in ONNX Runtime's CalibrationMethod; a moving average is an option of its MinMax.
_METHODS = {"minmax": "MinMax", "moving-average": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


class _CalibrationReader:
    """An iterator over calibration samples with the interface of ONNX Runtime's CalibrationDataReader."""

    def __init__(self, signature: Signature, inputs: Mapping[str, Array]) -> None:
        names = [spec.name for spec in signature.inputs]
        self._samples: Iterator[dict[str, Array]] = (
            dict(zip(names, arrays, strict=True)) for arrays in batching.iter_batches(signature, inputs)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)


def prepare(model: Any, folder: Path) -> Path:
    """Preprocess a float graph for the quantizer.

    Args:
        model: The `ModelProto` in float32.
        folder: The folder for the new file.

    Returns:
        The path of the preprocessed file.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    raw, prepared = folder / "raw.onnx", folder / "prepared.onnx"
    onnx.save(model, str(raw))
    # Shapes are inferred already, and a symbolic inference that is incomplete writes a file into the current folder.
    quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=True)
    raw.unlink()
    return prepared


def name_nodes(path: Path) -> None:
    """Give each node of a file a unique name.

    Args:
        path: The model file, which is overwritten.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
    """
    # Recipes and `nodes_to_exclude` (ONNX Runtime 1.32) identify nodes by name, and exporters leave names empty or
    # use them twice.
    model = parse(path)
    names: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{index}"
        names.add(node.name)
    path.write_bytes(model.SerializeToString(deterministic=True))


def layers(base: Path) -> tuple[QuantizableLayer, ...]:
    """Return the nodes that ONNX Runtime can quantize, in execution order.

    Args:
        base: A float file whose nodes have unique names.

    Returns:
        One entry per node.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    model = parse(base)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return tuple(
        QuantizableLayer(
            node.name,
            node.op_type,
            node.name,
            tuple(name for name in node.input if name and name not in constants),
            tuple(node.output),
            sum(
                int(np.prod(constants[name].dims))
                for name in node.input
                if name in constants and _is_float(constants[name])
            ),
        )
        for node in model.graph.node
        if node.op_type in QDQRegistry or node.op_type in QLinearOpsRegistry
    )


def _is_float(tensor: Any) -> bool:
    from onnx import TensorProto

    return bool(tensor.data_type == TensorProto.FLOAT)


def quantize(prepared: Path, signature: Signature, job: ConversionRequest, path: Path) -> bool:
    """Quantize a preprocessed graph at the precision of the request, by its recipe if it has one.

    Nodes that compare exact values or mask stay in float.

    Args:
        prepared: A file that `prepare` wrote.
        signature: Inputs and outputs of the source.
        job: The request.
        path: The file to write.

    Returns:
        Whether nodes stay in float for that reason.

    Raises:
        InputError: The recipe names a node that does not exist, or asks for int16 activations.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    recipe = job.recipe or Recipe("onnx", job.precision)
    if recipe.int16_layers:
        raise InputError("onnx does not support int16_layers in a recipe; keep these layers in float_layers")
    excluded = [layer.name for layer in _excluded(prepared, recipe)]
    if job.precision == "dynamic":
        exclusions = {"nodes_to_exclude": excluded} if excluded else {}
        per_channel = not job.form.per_tensor
        quantize_dynamic(prepared, path, per_channel=per_channel, weight_type=QuantType.QInt8, **exclusions)
        return False
    assert job.calibration is not None  # checked by Target.convert
    model = parse(prepared)
    exact = exact_values.find(model)
    if exact:
        name_nodes(prepared)  # exclusions are by name
        model = parse(prepared)
    kept = {model.graph.node[index].name: model.graph.node[index] for index in exact.operations}
    # QDQ and not QOperator: execution providers fuse the pairs, and operators without an integer kernel still run.
    quantize_static(
        prepared,
        path,
        _CalibrationReader(signature, job.calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=not job.form.per_tensor,
        activation_type=QuantType[_activation_type(job)],
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*excluded, *sorted(kept)],
        **_static_options(prepared, recipe, job),
    )
    if kept:
        exact_values.restore_inputs(path, model, kept, exact)
    return bool(kept)


def _activation_type(job: ConversionRequest) -> str:
    """Return the type of inner activations as a name of ONNX Runtime's QuantType."""
    if job.precision == "int16x8":
        return "QUInt16"  # what NPUs take beside int8 weights
    return "QUInt8" if _unsigned(job.form) else "QInt8"


def _unsigned(form: QuantizationForm) -> bool:
    """Return whether all integer ends of the file are unsigned; then its inner activations are unsigned as well."""
    # A node is fused to an integer one where its activations have one type: no end should differ without need.
    return {form.inference_input_type, form.inference_output_type} & {"int8", "uint8"} == {"uint8"}


def _static_options(prepared: Path, recipe: Recipe, job: ConversionRequest) -> dict[str, Any]:
    """Return the arguments of quantize_static that depend on the recipe and on the form."""
    options = _calibration_options(prepared, recipe, job)
    extra = options.get("extra_options", {})
    if job.form.symmetric_activations:
        extra = {**extra, "ActivationSymmetric": True}
    if job.form.ranges:
        extra = {**extra, "TensorQuantOverrides": _overrides(prepared, job.form)}
    return {**options, "extra_options": extra}


def _overrides(prepared: Path, form: QuantizationForm) -> dict[str, list[dict[str, Any]]]:
    """Return the set ranges as ONNX Runtime takes them, by tensor name."""
    graph = parse(prepared).graph
    constants = {tensor.name for tensor in graph.initializer}
    ends = [value.name for value in (*graph.input, *graph.output) if value.name not in constants]
    known = {*ends, *(name for node in graph.node for name in node.output)}
    for name in form.ranges:
        if name not in known:
            raise unknown_name("tensor", name, [*ends, *sorted(known - {*ends})])
    return {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in form.ranges.items()}


def range_of_end(name: str, prepared: Path, signature: Signature, job: ConversionRequest) -> tuple[float, float]:
    """Return the range of an input or output that no node quantizes.

    Args:
        name: The tensor's name.
        prepared: A file that `prepare` wrote.
        signature: Inputs and outputs of the source.
        job: The request with calibration samples.

    Returns:
        What the user has set, else the lowest and highest value over the calibration samples.
    """
    import onnxruntime

    if name in job.form.ranges:
        return job.form.ranges[name]
    assert job.calibration is not None  # checked by Target.convert
    if name in job.calibration:
        values = [job.calibration[name]]
    else:
        session = onnxruntime.InferenceSession(str(prepared), providers=["CPUExecutionProvider"])
        reader = _CalibrationReader(signature, job.calibration)
        values = [session.run([name], sample)[0] for sample in iter(reader.get_next, None)]
    return min(float(array.min()) for array in values), max(float(array.max()) for array in values)


def _excluded(prepared: Path, recipe: Recipe) -> Sequence[QuantizableLayer]:
    return named_layers(layers(prepared), recipe.float_layers) if recipe.float_layers else ()


def _calibration_options(prepared: Path, recipe: Recipe, job: ConversionRequest) -> dict[str, Any]:
    """Return the arguments of quantize_static that say how ranges are taken and where they are cached."""
    from onnxruntime.quantization import CalibrationMethod

    if recipe.calibration is None:
        return {}
    method = recipe.calibration
    extra = {"CalibMovingAverage": True} if method == "moving-average" else {}
    options = {"calibrate_method": CalibrationMethod[_METHODS[method]], "extra_options": extra}
    if job.cache_folder is None or job.calibration is None:
        return options
    # Ranges depend on the float file, the samples and the method, not on the nodes that are excluded.
    hasher = hashlib.sha256(prepared.read_bytes() + method.encode())
    for name in sorted(job.calibration):
        hasher.update(name.encode() + job.calibration[name].tobytes())
    return {**options, "calibration_cache_path": job.cache_folder / f"{hasher.hexdigest()}.json"}

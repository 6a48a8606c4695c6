"""Quantizing an ONNX graph by ONNX Runtime's tools: whole, or but for the nodes that a recipe keeps in float."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import ConversionRequest, QuantizableLayer, named_layers
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.core.values.specs import Signature
from edgekit.targets._onnx.graph import parse

PRECISIONS = frozenset({"dynamic", "int8"})
CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "moving-average", "percentile", "entropy")
_METHODS = {"minmax": "MinMax", "moving-average": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


class _Reader:
    """Calibration samples one by one, as ONNX Runtime asks for them."""

    def __init__(self, signature: Signature, inputs: Mapping[str, Array]) -> None:
        names = [spec.name for spec in signature.inputs]
        self._samples: Iterator[dict[str, Array]] = (
            dict(zip(names, arrays, strict=True)) for arrays in batching.iter_batches(signature, inputs)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)


def prepare(model: Any, folder: Path) -> Path:
    """The float graph as the quantizer wants it, every node under a name of its own, in a file in the folder."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    raw, prepared = folder / "raw.onnx", folder / "prepared.onnx"
    onnx.save(model, str(raw))
    # Shapes are inferred already; where its own inference finds less, it leaves a file in the current folder.
    quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=True)
    raw.unlink()
    return prepared


def name_nodes(path: Path) -> None:
    """Gives each node of a file a name that no other has: a recipe names them, and the quantizer looks for them so."""
    model = parse(path)
    known: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in known:
            node.name = f"{node.op_type}_{index}"
        known.add(node.name)
    path.write_bytes(model.SerializeToString(deterministic=True))


def layers(base: Path) -> tuple[QuantizableLayer, ...]:
    """The nodes that the quantizer quantizes."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    model = parse(base)
    constants = {item.name: item for item in model.graph.initializer}
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
                if name in constants and _real(constants[name])
            ),
        )
        for node in model.graph.node
        if node.op_type in QDQRegistry or node.op_type in QLinearOpsRegistry
    )


def _real(tensor: Any) -> bool:
    from onnx import TensorProto

    return bool(tensor.data_type == TensorProto.FLOAT)


def quantize(prepared: Path, signature: Signature, job: ConversionRequest, path: Path) -> None:
    """Writes the graph at the job's precision to `path`.

    Raises InputError when the job's recipe names a node that is not there.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    recipe = job.recipe or Recipe("onnx", job.precision)
    if recipe.int16_layers:
        raise InputError("onnx has no layers of int16 activations")
    excluded = [layer.name for layer in _excluded(prepared, recipe)]
    if job.precision == "dynamic":
        kept = {"nodes_to_exclude": excluded} if excluded else {}
        quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QInt8, **kept)
        return
    assert job.calibration is not None  # the base has made sure
    quantize_static(
        prepared,
        path,
        _Reader(signature, job.calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
        **_calibration(prepared, recipe, job),
    )


def _excluded(prepared: Path, recipe: Recipe) -> Sequence[QuantizableLayer]:
    return named_layers(layers(prepared), recipe.float_layers) if recipe.float_layers else ()


def _calibration(prepared: Path, recipe: Recipe, job: ConversionRequest) -> dict[str, Any]:
    """How ranges are taken; those of a file, samples and method stay in the job's folder of known ranges."""
    from onnxruntime.quantization import CalibrationMethod

    if recipe.calibration is None:
        return {}
    method = recipe.calibration
    options = {"CalibMovingAverage": True} if method == "moving-average" else {}
    chosen = {"calibrate_method": CalibrationMethod[_METHODS[method]], "extra_options": options}
    if job.known is None or job.calibration is None:
        return chosen
    hasher = hashlib.sha256(prepared.read_bytes() + method.encode())
    for name in sorted(job.calibration):
        hasher.update(name.encode() + job.calibration[name].tobytes())
    return {**chosen, "calibration_cache_path": job.known / f"{hasher.hexdigest()}.json"}

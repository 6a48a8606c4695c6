"""Making an ONNX graph what an expert would hand over: simplified, shape-inferred, at the operator set asked for."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

from edgekit.core.errors import InputError, StepFailed
from edgekit.core.values.specs import Signature
from edgekit.targets._onnx.graph import prune_opsets, tidy


def opset(model: Any) -> int:
    """The version of ONNX's own operators."""
    return next((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)


def at_opset(model: Any, wanted: int | None) -> Any:
    """The model in another version of ONNX's operators; None leaves it as it is.

    Raises InputError for a version that the onnx package does not know, StepFailed when an operator cannot be carried.
    """
    import onnx

    if wanted is None or wanted == opset(model):
        return model
    newest = onnx.defs.onnx_opset_version()
    if not 7 <= wanted <= newest:
        raise InputError(f"--opset {wanted}: the onnx package here knows 7 to {newest}")
    try:
        return onnx.version_converter.convert_version(model, wanted)
    except Exception as error:  # the converter raises RuntimeErrors of C++ and others
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise StepFailed(f"ONNX cannot carry this graph from opset {opset(model)} to {wanted} ({reason})") from error


def set_ir_version(model: Any, wanted: int) -> None:
    """Sets the version of the file format. Raises InputError when the operator sets need a newer one."""
    import onnx

    needed = onnx.helper.find_min_ir_version_for(model.opset_import)
    if not needed <= wanted <= onnx.IR_VERSION:
        raise InputError(
            f"--ir-version {wanted}: opset {opset(model)} needs {needed}; onnx here knows {onnx.IR_VERSION}"
        )
    model.ir_version = wanted


def slim(model: Any, signature: Signature) -> Any:
    """The graph with constants folded, batch norm fused and shape arithmetic resolved, and with its shapes inferred.

    The dimensions of inputs and outputs are the signature's.
    """
    import onnx
    import onnxslim

    tidy(model, signature)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simplified = onnxslim.slim(model)
    tidy(simplified, signature)
    prune_opsets(simplified)
    return onnx.shape_inference.infer_shapes(simplified, data_prop=True)

"""Simplification, shape inference and version conversion of ONNX graphs."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

from edgekit.core.errors import InputError, StepFailed
from edgekit.core.values.specs import Signature
from edgekit.targets._onnx.graph import prune_opsets, tidy


def opset(model: Any) -> int:
    """Return the version of the standard operator set that the model imports, or 0 if it imports none."""
    return next((int(imported.version) for imported in model.opset_import if imported.domain in ("", "ai.onnx")), 0)


# The oldest operator set that onnx's version converter supports.
_OLDEST_OPSET = 7


def at_opset(model: Any, version: int | None) -> Any:
    """Convert the model to another version of the standard operator set.

    Args:
        model: The `ModelProto`.
        version: The version of the operator set; None returns the model as it is.

    Returns:
        The converted model.

    Raises:
        InputError: The installed onnx package does not support the version.
        StepFailed: An operator of the graph does not exist in that version.
    """
    import onnx

    if version is None or version == opset(model):
        return model
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= version <= newest:
        raise InputError(
            f"opset {version} is not supported: the installed onnx package supports {_OLDEST_OPSET} to {newest}"
        )
    try:
        return onnx.version_converter.convert_version(model, version)
    except Exception as error:  # RuntimeError of the C++ converter, and whatever its adapters raise
        reason = next(iter(str(error).splitlines()), "")[:200]  # the C++ assertion; the stack follows in other lines
        raise StepFailed(f"onnx cannot convert this graph from opset {opset(model)} to {version} ({reason})") from error


def set_ir_version(model: Any, version: int) -> None:
    """Set the version of the file format.

    Args:
        model: The `ModelProto` to edit.
        version: The IR version.

    Raises:
        InputError: The operator sets need a newer version, or the installed onnx package does not support it.
    """
    import onnx

    oldest = onnx.helper.find_min_ir_version_for(model.opset_import)
    if not oldest <= version <= onnx.IR_VERSION:
        raise InputError(
            f"IR version {version} is not supported: opset {opset(model)} needs at least {oldest},"
            f" and the installed onnx package supports at most {onnx.IR_VERSION}"
        )
    model.ir_version = version


def slim(model: Any, signature: Signature) -> Any:
    """Fold constants, fuse batch norms, resolve shape arithmetic and infer shapes.

    Args:
        model: The `ModelProto`, which is edited.
        signature: The inputs and outputs in their order, with the dimensions that the result gets.

    Returns:
        The simplified model.
    """
    import onnx
    import onnxslim

    # Tidied twice: onnxslim folds shape arithmetic only where it knows the dimensions, and loses some of them itself.
    tidy(model, signature)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simplified = onnxslim.slim(model)
    tidy(simplified, signature)
    prune_opsets(simplified)
    # Data propagation resolves shapes that the graph computes from other shapes.
    return onnx.shape_inference.infer_shapes(simplified, data_prop=True)

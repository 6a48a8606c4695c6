"""Checks of ONNX models before they are written."""

from __future__ import annotations

from typing import Any

from edgekit.core.errors import StepFailed
from edgekit.targets._onnx.nested_graphs import graphs

# The largest message of protobuf, 2 GiB: the checker takes larger models from a file only.
_MAX_BYTES = 2**31 - 1
_STANDARD = ("", "ai.onnx")


def reject_unknown_operators(model: Any) -> None:
    """Check that the standard operator set has every operator of the model.

    tf2onnx leaves operators of TensorFlow that it has no translation for in the graph, and only logs them.

    Args:
        model: The `ModelProto`.

    Raises:
        StepFailed: It has not; the message names the operators.
    """
    import onnx

    version = next((imported.version for imported in model.opset_import if imported.domain in _STANDARD), 1)
    functions = {(function.domain, function.name) for function in model.functions}
    unknown = sorted(
        {
            node.op_type
            for graph in graphs(model.graph)
            for node in graph.node
            if node.domain in _STANDARD
            and (node.domain, node.op_type) not in functions
            and not onnx.defs.has(node.op_type, max_inclusive_version=version, domain="")
        }
    )
    if unknown:
        raise StepFailed(f"ONNX (opset {version}) has no operator for {', '.join(unknown)} of the source")


def check(content: bytes) -> None:
    """Check a serialized model with ONNX's own checker, types and shapes included.

    Args:
        content: The `ModelProto` as bytes.

    Raises:
        StepFailed: The model is invalid.
    """
    import onnx

    if len(content) > _MAX_BYTES:
        return
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # ValidationError, and InferenceError of its shape inference
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
        raise StepFailed(f"the converter wrote a graph that ONNX's checker refuses ({reason})") from error

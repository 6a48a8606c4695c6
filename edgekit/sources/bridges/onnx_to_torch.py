"""The bridge from ONNX to PyTorch.

The graph becomes a `torch.nn.Module` that runs it node by node; `_functional` rewrites that with PyTorch's functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.contracts.bridge import Bridge
from edgekit.contracts.source import Build
from edgekit.core.environment.requirements import ONNX, TORCH
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature
from edgekit.sources._module import LoadedTorch
from edgekit.sources._onnx_file import load_model
from edgekit.sources.bridges._functional import functional_or_single
from edgekit.sources.bridges._onnx.graph import UnsupportedOperators, build


class OnnxToTorch(Bridge):
    """The bridge for all operators of `bridges/_onnx`; the module keeps the graph's layout."""

    source = "onnx"
    target = "torch"
    requires = (ONNX, TORCH)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        module = node_by_node(path, signature)
        try:
            return LoadedTorch(*functional_or_single(module, signature))
        except Exception as error:  # torch.export raises errors of many types
            raise _untraceable(path, error) from error


def _untraceable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    # `graph._run` adds a note with the node to every error.
    where = "; ".join(note for note in getattr(error, "__notes__", []) if note.startswith("in "))
    return InputError(f"{path}: PyTorch cannot trace this graph ({where + ': ' if where else ''}{reason})")


def node_by_node(path: Path, signature: Signature) -> Any:
    """Load an ONNX file as a module that runs its graph node by node.

    Args:
        path: The `.onnx` file.
        signature: The inputs and outputs of the module, in order.

    Returns:
        A `torch.nn.Module` in eval mode.

    Raises:
        InputError: The file is damaged, does not fit the signature, or contains unsupported operators; the message
            names all of them.
    """
    import onnx

    model = load_model(path)
    _check_opset(model, path, onnx.defs.onnx_opset_version())
    inputs, outputs = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]
    _check_names(model.graph, path, inputs, outputs)
    try:
        return build(model, inputs, outputs)
    except UnsupportedOperators as error:
        raise InputError(
            f"{path}: the bridge to PyTorch does not support {', '.join(error.nodes)}; export to onnx, which needs no"
            " bridge, or end the graph before"
        ) from error


def _check_opset(model: Any, path: Path, newest: int) -> None:
    versions = {opset.domain: opset.version for opset in model.opset_import}
    # The default domain has two spellings (ONNX IR, "Operator Sets").
    version = max(versions.get("", 0), versions.get("ai.onnx", 0))
    if version > newest:
        raise InputError(f"{path}: the model uses ai.onnx opset {version}; the newest supported one is {newest}")


def _check_names(graph: Any, path: Path, inputs: list[str], outputs: list[str]) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    graph_inputs = {value.name for value in graph.input} - constants
    if graph_inputs != set(inputs) or not {value.name for value in graph.output} >= set(outputs):
        raise InputError(
            f"{path}: the graph has the inputs {', '.join(sorted(graph_inputs)) or 'none'}, but its signature names"
            f" {', '.join([*inputs, *outputs])}"
        )


BRIDGE = OnnxToTorch()

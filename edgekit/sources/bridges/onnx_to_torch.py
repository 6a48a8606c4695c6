"""ONNX to PyTorch: the graph runs node by node as an nn.Module, which is then written again in PyTorch's functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.contracts.bridge import Bridge
from edgekit.contracts.source import Build
from edgekit.core.environment.requirements import ONNX, TORCH
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._module import LoadedTorch
from edgekit.sources._onnx_file import load_model
from edgekit.sources.bridges._functional import functional
from edgekit.sources.bridges._onnx.graph import UnsupportedOperators, build


class OnnxToTorch(Bridge):
    """Every operator of `bridges/_onnx`; the module keeps the graph's layout."""

    source = "onnx"
    target = "torch"
    requires = (ONNX, TORCH)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedTorch:
        module = node_by_node(path, signature)
        try:
            return LoadedTorch(functional(module, signature), signature)
        except Exception as error:  # whatever torch.export raises: the graph may still take one sample at a time
            alone = _one_sample(signature)
            if alone == signature:
                raise _untraceable(path, error) from error
        try:
            return LoadedTorch(functional(module, alone), alone)
        except Exception as error:  # now it is the graph
            raise _untraceable(path, error) from error


def _one_sample(signature: Signature) -> Signature:
    """The same with a batch of one: exporters write that number into reshapes, and call the dimension symbolic."""
    batches = {spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)}

    def fixed(spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=tuple(1 if dim in batches else dim for dim in spec.shape))

    return Signature(tuple(map(fixed, signature.inputs)), tuple(map(fixed, signature.outputs)))


def _untraceable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    where = "; ".join(note for note in getattr(error, "__notes__", []) if note.startswith("in "))
    return InputError(f"{path}: PyTorch cannot trace this graph ({where + ': ' if where else ''}{reason})")


def node_by_node(path: Path, signature: Signature) -> Any:
    """The file's graph as an nn.Module. Raises InputError as `Bridge.load` does, naming every unsupported operator."""
    import onnx

    model = load_model(path)
    _check_opset(model, path, onnx.defs.onnx_opset_version())
    inputs, outputs = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]
    _check_names(model.graph, path, inputs, outputs)
    try:
        return build(model, inputs, outputs)
    except UnsupportedOperators as error:
        raise InputError(f"{path}: the bridge to PyTorch has no operator {', '.join(error.nodes)}") from error


def _check_opset(model: Any, path: Path, newest: int) -> None:
    versions = {item.domain: item.version for item in model.opset_import}
    found = max(versions.get("", 0), versions.get("ai.onnx", 0))
    if found > newest:
        raise InputError(f"{path}: the model uses ai.onnx opset {found}; the newest that is known here is {newest}")


def _check_names(graph: Any, path: Path, inputs: list[str], outputs: list[str]) -> None:
    constants = {item.name for item in graph.initializer}
    own = {value.name for value in graph.input} - constants
    if own != set(inputs) or not {value.name for value in graph.output} >= set(outputs):
        raise InputError(
            f"{path}: the graph has the inputs {', '.join(sorted(own)) or 'none'}, and its inputs and outputs were said"
            f" to be {', '.join([*inputs, *outputs])}"
        )


BRIDGE = OnnxToTorch()

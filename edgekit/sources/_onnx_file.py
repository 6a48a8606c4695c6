"""Reading .onnx files from anywhere: whole, checked, with their external weights, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError


def load_model(path: Path) -> Any:
    """The ModelProto with all weights in memory; it passes `onnx.checker`, and its graph is in topological order.

    Raises InputError when the file is missing, empty, truncated or something else, when its graph has a cycle, and when
    external weights are missing, too short, or would be read from outside the model's folder.
    """
    model = _parse(path)
    _load_external_data(model, path)
    _check_order(model.graph, path)
    _check(path)
    _check_sizes(model, path)
    return model


def label(node: Any) -> str:
    """What to call a node in a message: its name, or its first output where it has none."""
    return node.name or next(iter(node.output), "")


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs in a node's attributes: branches, loop bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _parse(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(path, "model file")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise InputError(f"{path}: this is not an ONNX model, or it is damaged") from error
    if not model.graph.output:
        raise InputError(f"{path}: this is not an ONNX model, or it is damaged (there is no graph in it)")
    return model


def _load_external_data(model: Any, path: Path) -> None:
    """Weights beside the file, by onnx's own loader: it refuses to leave the folder, and to follow links."""
    import onnx
    from onnx import external_data_helper as external

    for tensor in external._get_all_tensors(model):
        if not external.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            external.load_external_data_for_tensor(tensor, str(path.parent))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            reason = _why_not(path, location, str(error))
            raise InputError(f"{path}: the weights of '{tensor.name}' are kept in '{location}', {reason}") from error


def _why_not(path: Path, location: str, message: str) -> str:
    if "absolute path" in message or "outside the directory" in message:
        return "which is outside the model's folder"
    if "symbolic link" in message or "hard link" in message:
        return "which is a link, and might lead outside the model's folder"
    if not location or not (path.parent / location).is_file():
        return "and there is no such file beside the model"
    return "and that file does not hold them: it is too short, or its description is wrong"


def _reads(node: Any) -> Iterator[str]:
    """Every name that a node reads, those that its subgraphs take from outside included."""
    yield from filter(None, node.input)
    for graph in subgraphs(node):
        inside = {value.name for value in (*graph.input, *graph.initializer)}
        inside |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            yield from (name for name in _reads(inner) if name not in inside)
        yield from (value.name for value in graph.output if value.name not in inside)


def _check_order(graph: Any, path: Path) -> None:
    """Refuses a node that reads what is not there yet, and says whether that is a cycle."""
    known = {value.name for value in (*graph.input, *graph.initializer)}
    known |= {item.values.name for item in graph.sparse_initializer}
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    for index, node in enumerate(graph.node):
        for name in _reads(node):
            if name in known:
                continue
            if name not in makers:
                raise InputError(f"{path}: node '{label(node)}' reads '{name}', which nothing in the graph makes")
            if _depends(graph, makers, makers[name], index):
                raise InputError(f"{path}: the graph has a cycle through node '{label(node)}'")
            raise InputError(f"{path}: node '{label(node)}' reads '{name}', which only a later node makes")
        known.update(filter(None, node.output))


def _depends(graph: Any, makers: dict[str, int], start: int, wanted: int) -> bool:
    """Whether node `start` needs, over any number of others, an output of node `wanted`."""
    seen, pending = set[int](), [start]
    while pending:
        index = pending.pop()
        if index == wanted:
            return True
        if index not in seen:
            seen.add(index)
            pending += [makers[name] for name in _reads(graph.node[index]) if name in makers]
    return False


def _check(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path))  # by path: a model in memory may not be larger than 2 GB
    except (onnx.checker.ValidationError, ValueError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
        reason = "; ".join(lines).removesuffix(".")[:300]
        raise InputError(f"{path}: this is not a valid ONNX model ({reason})") from error


def _check_sizes(model: Any, path: Path) -> None:
    """Refuses weights with fewer or more bytes than their shape asks for, which the checker lets pass."""
    from onnx import external_data_helper as external
    from onnx import numpy_helper

    for tensor in external._get_all_tensors(model):
        try:
            numpy_helper.to_array(tensor)
        except (ValueError, TypeError, RuntimeError) as error:
            shape = "x".join(map(str, tensor.dims)) or "scalar"
            raise InputError(f"{path}: the weights of '{tensor.name}' do not fill their shape {shape}") from error

"""Loading and checking of .onnx files with their external weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError


def load_model(path: Path) -> Any:
    """Load an ONNX model with all its weights in memory.

    Args:
        path: The `.onnx` file; external weights are read from its folder.

    Returns:
        A `onnx.ModelProto` that passes `onnx.checker`, with its nodes in topological order.

    Raises:
        InputError: The file is missing, empty, truncated or of another format; its graph has a cycle; or external
            weights are missing, too short, or outside the model's folder.
    """
    # Order and cycles are checked before onnx.checker, which reports both with the same sentence.
    model = _parse(path)
    complete = _complete_types(model)
    _load_external_data(model, path)
    _check_order(model.graph, path)
    _check(path if complete else model, path)
    _check_sizes(model, path)
    return model


def label(node: Any) -> str:
    """Return how a message names the node: its name, or its first output if it has none."""
    return node.name or next(iter(node.output), "")


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the graphs in a node's attributes: the branches of If, the bodies of Loop and Scan."""
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
        # Protobuf skips fields that it does not know: almost any short byte sequence parses as an empty model.
        raise InputError(f"{path}: this is not an ONNX model, or it is damaged (it contains no graph)")
    return model


def _complete_types(model: Any) -> bool:
    """Leave out sizes and types that say nothing, and infer the missing types of outputs.

    Paddle writes unknown sizes as -1. Some tools call every unknown dimension `?`, which would make them one dimension.
    Outputs that were added to expose an inner tensor have no type, which ONNX Runtime infers as well.

    Returns:
        Whether the types in the file are complete as they are.
    """
    import onnx

    graph, before = model.graph, model.graph.ByteSize()
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0 or dim.dim_param in _UNNAMED:
                dim.Clear()
    typed = [value for value in graph.value_info if value.type.WhichOneof("value")]
    if len(typed) != len(graph.value_info):
        copies = [type(value).FromString(value.SerializeToString()) for value in typed]
        del graph.value_info[:]
        graph.value_info.extend(copies)
    missing = {value.name for value in graph.output if not value.type.WhichOneof("value")}
    if missing:
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except (ValueError, RuntimeError):  # larger than protobuf's 2 GB, or invalid: the checker reports the output
            return True
        types = {value.name: value.type for value in (*inferred.output, *inferred.value_info, *graph.input)}
        for value in graph.output:
            if value.name in missing and value.name in types:
                value.type.CopyFrom(types[value.name])
    return bool(graph.ByteSize() == before)


# What tools write in place of the name of an unknown dimension.
_UNNAMED = ("?", "-1", "None", "none", "unknown", "unk")


def _load_external_data(model: Any, path: Path) -> None:
    """Load external weights with onnx's own loader, which refuses to leave the folder and to follow links."""
    import onnx
    from onnx import external_data_helper as external

    for tensor in external._get_all_tensors(model):
        if not external.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            external.load_external_data_for_tensor(tensor, str(path.parent))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            problem = _external_data_problem(path, location, str(error))
            raise InputError(f"{path}: the weights of '{tensor.name}' are stored in '{location}', {problem}") from error


def _external_data_problem(path: Path, location: str, message: str) -> str:
    """Return the clause that explains an error of onnx's loader, whose ValidationErrors differ by their text only."""
    if "absolute path" in message or "outside the directory" in message:
        return "which is outside the model's folder"
    if "symbolic link" in message or "hard link" in message:
        return "which is a link, and might lead outside the model's folder"
    if not location or not (path.parent / location).is_file():
        return "and there is no such file beside the model"
    return "and that file does not contain them: it is too short, or its offset or length is wrong"


def names_read(node: Any) -> Iterator[str]:
    """Yield every name that a node reads, including outer names that its subgraphs read."""
    # An empty name is an omitted optional input (ONNX IR, "Optional Inputs and Outputs").
    yield from filter(None, node.input)
    for graph in subgraphs(node):
        inside = {value.name for value in (*graph.input, *graph.initializer)}
        inside |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            yield from (name for name in names_read(inner) if name not in inside)
        yield from (value.name for value in graph.output if value.name not in inside)


def _check_order(graph: Any, path: Path) -> None:
    """Raise InputError if a node reads a name that no earlier node produces; the message tells a cycle from disorder.

    The ONNX IR requires nodes in topological order ("Graphs": the nodes form an acyclic graph, sorted).
    """
    available = {value.name for value in (*graph.input, *graph.initializer)}
    available |= {tensor.values.name for tensor in graph.sparse_initializer}
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    for index, node in enumerate(graph.node):
        for name in names_read(node):
            if name in available:
                continue
            if name not in producers:
                raise InputError(f"{path}: node '{label(node)}' reads '{name}', which no node produces")
            if _depends(graph, producers, producers[name], index):
                raise InputError(f"{path}: the graph has a cycle through node '{label(node)}'")
            raise InputError(f"{path}: node '{label(node)}' reads '{name}', which only a later node produces")
        available.update(filter(None, node.output))


def _depends(graph: Any, producers: dict[str, int], start: int, target: int) -> bool:
    """Return whether node `start` depends, directly or not, on an output of node `target`."""
    visited, pending = set[int](), [start]
    while pending:
        index = pending.pop()
        if index == target:
            return True
        if index not in visited:
            visited.add(index)
            pending += [producers[name] for name in names_read(graph.node[index]) if name in producers]
    return False


def _check(subject: Any, path: Path) -> None:
    """Check a file by its path, or a model in memory, which the checker cannot serialize beyond 2 GB."""
    import onnx

    try:
        onnx.checker.check_model(str(subject) if isinstance(subject, Path) else subject)
    except (onnx.checker.ValidationError, ValueError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
        reason = "; ".join(lines).removesuffix(".")[:300]
        raise InputError(f"{path}: this is not a valid ONNX model ({reason})") from error


def _check_sizes(model: Any, path: Path) -> None:
    """Raise InputError if weights have another size than their shape implies; onnx.checker 1.23 accepts them."""
    from onnx import external_data_helper as external
    from onnx import numpy_helper

    for tensor in external._get_all_tensors(model):
        try:
            numpy_helper.to_array(tensor)
        except (ValueError, TypeError, RuntimeError) as error:
            shape = "x".join(map(str, tensor.dims)) or "scalar"
            raise InputError(f"{path}: the weights of '{tensor.name}' do not fill their shape {shape}") from error

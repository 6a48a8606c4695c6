"""Truncation of ONNX graphs, used to measure the cost of single operators."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.core.records.operator_costs import Operator
from edgekit.targets._onnx.graph import parse, reads


def operators(path: Path) -> tuple[Operator, ...]:
    """Return the nodes of the main graph in execution order; a node with subgraphs counts as one.

    Args:
        path: The model file.

    Returns:
        One entry per node.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
    """
    return tuple(Operator(node.op_type, node.name or node.output[0]) for node in parse(path).graph.node)


def truncate_after(path: Path, after: Iterable[int], folder: Path) -> tuple[Path, ...]:
    """Write one file per index that ends after that node, with the inputs of the whole model.

    The outputs of a file are the tensors that the removed nodes would have read.

    Args:
        path: The model file.
        after: Indices into `operators(path)`.
        folder: The folder for the files, which are named `<index>.onnx`.

    Returns:
        The paths of the files, in the order of `after`.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
    """
    import onnx

    whole = parse(path)
    # Protobuf messages cannot share parts, so each file starts from a copy of the whole model.
    files = []
    for index in after:
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        _truncate(model.graph, index)
        files.append(folder / f"{index}{path.suffix}")
        files[-1].write_bytes(model.SerializeToString())
    return tuple(files)


def _truncate(graph: Any, last: int) -> None:
    """Remove the nodes after index `last`, and the weights that only those nodes read."""
    import onnx

    typed = {value.name: value for value in (*graph.output, *graph.value_info)}
    read_later = {name for node in graph.node[last + 1 :] for name in reads(node)}
    read_later |= {value.name for value in graph.output}
    computed = [name for node in graph.node[: last + 1] for name in node.output if name]
    outputs = [name for name in computed if name in read_later]
    # A model needs an output, also if nothing reads the last node's.
    outputs = outputs or [name for name in graph.node[last].output if name][:1]
    del graph.node[last + 1 :]
    read = {name for node in graph.node for name in reads(node)}
    # Unused weights would count in the memory that the runtime needs to load the file.
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:], graph.output[:], graph.value_info[:]
    graph.initializer.extend(weights)
    # ONNX Runtime infers the types that the file does not record.
    graph.output.extend(typed.get(name) or onnx.ValueInfoProto(name=name) for name in outputs)

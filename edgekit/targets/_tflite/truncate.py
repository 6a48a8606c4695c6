"""Truncation of flatbuffers, used to measure the cost of single operators."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.core.records.operator_costs import Operator
from edgekit.tflite_files.graph import main_graph, op_name, pack, parse, text


def operators(path: Path) -> tuple[Operator, ...]:
    """Return the operators of the main graph that depend on the inputs, in execution order; a loop counts as one.

    An operator that depends on weights only, such as the dequantization of float16 weights, belongs to its readers.

    Args:
        path: The model file.

    Returns:
        One entry per operator.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
    """
    model = parse(path)
    graph = main_graph(model)
    return tuple(
        Operator(op_name(model, op), text(graph.tensors[op.outputs[0]].name) if len(op.outputs) else "")
        for op in _split_operators(graph)[0]
    )


def _split_operators(graph: Any) -> tuple[list[Any], list[Any]]:
    """Return the operators that depend on the inputs, and those that depend on weights only."""
    dependent = set(map(int, graph.inputs))
    computing, constant = [], []
    for op in graph.operators or []:
        # An operator without inputs (index -1 is an absent one) has its own state or randomness.
        if dependent & set(map(int, op.inputs)) or all(index < 0 for index in op.inputs):
            computing.append(op)
            dependent |= set(map(int, op.outputs))
        else:
            constant.append(op)
    return computing, constant


def truncate_after(path: Path, after: Iterable[int], folder: Path) -> tuple[Path, ...]:
    """Write one file per index that ends after that operator, with the inputs of the whole model.

    The outputs of a file are the tensors that the removed operators would have read.

    Args:
        path: The model file.
        after: Indices into `operators(path)`.
        folder: The folder for the files, which are named `<index>.tflite`.

    Returns:
        The paths of the files, in the order of `after`.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
    """
    model = parse(path)
    files = []
    for index in after:
        files.append(folder / f"{index}{path.suffix}")
        files[-1].write_bytes(pack(_truncate(model, index)))
    return tuple(files)


def _truncate(model: Any, last: int) -> Any:
    """Return a copy of the model up to operator `last`, without the weights that only later operators read."""
    whole = main_graph(model)
    computing, constant = _split_operators(whole)
    # Shallow copies: tables that do not change are shared with the whole model, which is packed once per file.
    graph = copy.copy(whole)
    graph.outputs = _cut_tensors(whole, computing, last)
    graph.operators = _with_weight_operators(computing[: last + 1], constant, whole.operators)
    truncated = copy.copy(model)
    truncated.subgraphs = [graph if subgraph is whole else subgraph for subgraph in model.subgraphs]
    truncated.signatureDefs = [_signature(model.signatureDefs[0], graph.outputs)] if model.signatureDefs else None
    used = {graph.tensors[index].buffer for op in graph.operators for index in op.inputs if index >= 0}
    used |= {tensor.buffer for subgraph in truncated.subgraphs if subgraph is not graph for tensor in subgraph.tensors}
    # Buffers are emptied and not removed, since tensors refer to them by index.
    truncated.buffers = [buffer if index in used else _empty_copy(buffer) for index, buffer in enumerate(model.buffers)]
    truncated.metadata = truncated.metadataBuffer = None  # it describes the whole model, and refers to buffers
    return truncated


def _with_weight_operators(computing: list[Any], constant: list[Any], order: list[Any]) -> list[Any]:
    """Return the operators and those that compute the weights that they read, in the order of the file."""
    read = {int(index) for op in computing for index in op.inputs}
    needed = list(computing)
    # Backwards, since the operators of weights may depend on one another.
    for op in reversed(constant):
        if read & set(map(int, op.outputs)):
            needed.append(op)
            read |= set(map(int, op.inputs))
    return [op for op in order if any(op is needed_op for needed_op in needed)]


def _cut_tensors(graph: Any, computing: list[Any], last: int) -> list[int]:
    """Return the tensors that are computed up to operator `last`, and are read later or outputs of the whole."""
    computed = [int(index) for op in computing[: last + 1] for index in op.outputs if index >= 0]
    read_later = {int(index) for op in computing[last + 1 :] for index in op.inputs} | set(map(int, graph.outputs))
    outputs = [index for index in dict.fromkeys(computed) if index in read_later]
    # A model needs an output, also if nothing reads the last operator's.
    return outputs or [int(index) for index in computing[last].outputs]


def _signature(whole: Any, outputs: list[int]) -> Any:
    """Return the signature with these outputs, named by their number."""
    signature = copy.copy(whole)
    signature.outputs = []
    for number, index in enumerate(outputs):
        output = copy.copy(whole.outputs[0])
        output.name, output.tensorIndex = f"output_{number}", index
        signature.outputs.append(output)
    return signature


def _empty_copy(buffer: Any) -> Any:
    empty = copy.copy(buffer)
    empty.data = None
    empty.offset = empty.size = 0
    return empty

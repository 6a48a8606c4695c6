"""Cutting a .tflite off after an operator: what a part of a model costs is found by running it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.core.records.operator_costs import Operator
from edgekit.targets._tflite.graph import main_graph, op_name, pack, parse, text


def operators(path: Path) -> tuple[Operator, ...]:
    """Those of the main graph that compute with the inputs, in the order of computation; a loop is one.

    What computes with weights alone, as where float16 ones are widened, is part of whatever reads it.
    """
    model = parse(path)
    graph = main_graph(model)
    return tuple(
        Operator(op_name(model, op), text(graph.tensors[op.outputs[0]].name) if len(op.outputs) else "")
        for op in _split(graph)[0]
    )


def _split(graph: Any) -> tuple[list[Any], list[Any]]:
    """The operators that compute with the inputs, and those that compute with weights alone."""
    variable = set(map(int, graph.inputs))
    computing, constant = [], []
    for op in graph.operators or []:
        if variable & set(map(int, op.inputs)) or all(index < 0 for index in op.inputs):
            computing.append(op)
            variable |= set(map(int, op.outputs))
        else:
            constant.append(op)
    return computing, constant


def truncate_after(path: Path, after: Iterable[int], folder: Path) -> tuple[Path, ...]:
    """A file for each of these operators (from 0) that ends behind it, `<index>.tflite`, with the same inputs.

    Its outputs are what the rest of the model would have read.
    """
    model = parse(path)
    files = []
    for index in after:
        files.append(folder / f"{index}{path.suffix}")
        files[-1].write_bytes(pack(_beginning(model, index)))
    return tuple(files)


def _beginning(model: Any, last: int) -> Any:
    """A copy of the model's tables, up to the operator; weights that only the rest uses are left out."""
    whole = main_graph(model)
    computing, constant = _split(whole)
    graph = copy.copy(whole)
    graph.outputs = _handed_over(whole, computing, last)
    graph.operators = _with_weights(computing[: last + 1], constant, whole.operators)
    cut = copy.copy(model)
    cut.subgraphs = [graph if item is whole else item for item in model.subgraphs]
    cut.signatureDefs = [_signature(model.signatureDefs[0], graph.outputs)] if model.signatureDefs else None
    used = {graph.tensors[index].buffer for op in graph.operators for index in op.inputs if index >= 0}
    used |= {tensor.buffer for item in cut.subgraphs if item is not graph for tensor in item.tensors}
    cut.buffers = [item if index in used else _emptied(item) for index, item in enumerate(model.buffers)]
    cut.metadata = cut.metadataBuffer = None  # they are about the whole, and point at buffers
    return cut


def _with_weights(kept: list[Any], constant: list[Any], order: list[Any]) -> list[Any]:
    """The operators with those that compute the weights that they read, in the order of the file."""
    read = {int(index) for op in kept for index in op.inputs}
    needed = list(kept)
    for op in reversed(constant):
        if read & set(map(int, op.outputs)):
            needed.append(op)
            read |= set(map(int, op.inputs))
    return [op for op in order if any(op is other for other in needed)]


def _handed_over(graph: Any, computing: list[Any], last: int) -> list[int]:
    """The tensors that are computed up to the operator, and read after it or outputs of the whole."""
    computed = [int(index) for op in computing[: last + 1] for index in op.outputs if index >= 0]
    later = {int(index) for op in computing[last + 1 :] for index in op.inputs} | set(map(int, graph.outputs))
    wanted = [index for index in dict.fromkeys(computed) if index in later]
    return wanted or [int(index) for index in computing[last].outputs]


def _signature(whole: Any, outputs: list[int]) -> Any:
    """The signature with these outputs, whose names are numbers: the whole's own may not be among them."""
    signature = copy.copy(whole)
    signature.outputs = []
    for number, index in enumerate(outputs):
        item = copy.copy(whole.outputs[0])
        item.name, item.tensorIndex = f"output_{number}", index
        signature.outputs.append(item)
    return signature


def _emptied(buffer: Any) -> Any:
    empty = copy.copy(buffer)
    empty.data = None
    empty.offset = empty.size = 0
    return empty

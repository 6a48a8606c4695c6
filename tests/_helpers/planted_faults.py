"""Faults as a broken converter would make them, planted into ONNX files: which node was broken is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Plant = Callable[[Any, Any], bool]


def _constants(graph: Any) -> dict[str, Any]:
    return {item.name: item for item in graph.initializer}


def _changed(graph: Any, node: Any, index: int, change: Callable[[Any], Any]) -> bool:
    """Gives one node a changed copy of a constant input; others that read the same keep theirs."""
    constants = _constants(graph)
    if len(node.input) <= index or node.input[index] not in constants:
        return False
    array = numpy_helper.to_array(constants[node.input[index]])
    made = np.asarray(change(array), array.dtype)
    if made.shape == array.shape and np.array_equal(made, array):
        return False
    name = f"{node.input[index]}_planted_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(made, name))
    node.input[index] = name
    return True


def _weight(graph: Any, node: Any) -> bool:
    """Every second output channel of the weights is three times as large."""

    def change(array: Any) -> Any:
        made = array.copy()
        axis = 0 if node.op_type == "Conv" else array.ndim - 1
        made[(slice(None),) * axis + (slice(None, None, 2),)] *= 3
        return made

    return node.op_type in ("Conv", "Gemm", "MatMul") and _changed(graph, node, 1, change)


def _bias(graph: Any, node: Any) -> bool:
    """The bias is clipped to a tenth of its largest value."""

    def change(array: Any) -> Any:
        limit = np.abs(array).max() / 10
        return np.clip(array, -limit, limit)

    return node.op_type in ("Conv", "Gemm") and _changed(graph, node, 2, change)


def _padding(graph: Any, node: Any) -> bool:
    """One row and column that was padded in front is padded behind, or the other way round."""
    for attribute in node.attribute:
        if attribute.name == "pads" and any(attribute.ints):
            half = len(attribute.ints) // 2
            front, behind = attribute.ints[:half], attribute.ints[half:]
            moved = [1 if pad else -1 if other else 0 for pad, other in zip(front, behind, strict=True)]
            attribute.ints[:] = [
                *(pad - move for pad, move in zip(front, moved, strict=True)),
                *(pad + move for pad, move in zip(behind, moved, strict=True)),
            ]
            return True
        if attribute.name == "auto_pad" and attribute.s in (b"SAME_UPPER", b"SAME_LOWER"):
            attribute.s = b"SAME_LOWER" if attribute.s == b"SAME_UPPER" else b"SAME_UPPER"
            return True
    return False


def _transpose(graph: Any, node: Any) -> bool:
    """Height and width of a convolution's result are swapped."""
    if node.op_type != "Conv":
        return False
    name, index = node.output[0], list(graph.node).index(node)
    node.output[0] = f"{name}_planted"
    graph.node.insert(index + 1, helper.make_node("Transpose", [node.output[0]], [name], perm=[0, 1, 3, 2]))
    return True


def _scale(graph: Any, node: Any) -> bool:
    """The scale of a quantized activation is a quarter of what it was: the larger values saturate."""
    if node.op_type != "QuantizeLinear":
        return False
    behind = [other for other in graph.node if other.op_type == "DequantizeLinear" and other.input[0] == node.output[0]]
    changed = _changed(graph, node, 1, lambda scale: scale / 4)
    return changed and all(_changed(graph, other, 1, lambda scale: scale / 4) for other in behind)


FLOAT: dict[str, Plant] = {"weight": _weight, "bias": _bias, "padding": _padding, "transpose": _transpose}
QUANTIZED: dict[str, Plant] = {"scale": _scale}


def planted(path: Path, plants: dict[str, Plant], folder: Path) -> Iterator[tuple[str, set[str], Path]]:
    """Kind of fault, what the node computes, and the broken file; each in the middle of the graph."""
    for kind, plant in plants.items():
        able = []
        for index in range(len(onnx.load(path).graph.node)):
            model = onnx.load(path)
            if plant(model.graph, model.graph.node[index]):
                able.append(index)
        if able:
            model = onnx.load(path)
            node = model.graph.node[able[len(able) // 2]]
            tensors = {node.output[0]}
            plant(model.graph, node)
            tensors |= {node.output[0]}  # what computes right still, where a transpose was put behind it
            made = folder / f"{kind}.onnx"
            onnx.save(model, made)
            yield kind, tensors, made


def nearest(path: Path, tensors: set[str], seen: set[str]) -> set[str]:
    """The tensors that were looked at which the fault reaches first: its own, or those behind it with none between."""
    readers: dict[str, list[Any]] = {}
    for node in onnx.load(path).graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: set[str] = set()
    left, known = list(tensors), set()
    while left:
        name = left.pop()
        if name in known:
            continue
        known.add(name)
        if name in seen:
            found.add(name)
        else:
            left += [output for node in readers.get(name, []) for output in node.output]
    return found

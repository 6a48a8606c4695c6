"""Cutting an .onnx off after a node: what a part of a model costs is found by running it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.core.records.operator_costs import Operator
from edgekit.targets._onnx.graph import parse, reads


def operators(path: Path) -> tuple[Operator, ...]:
    """The nodes of the main graph, in the order of computation; what a node holds in a graph of its own is the node."""
    return tuple(Operator(node.op_type, node.name or node.output[0]) for node in parse(path).graph.node)


def truncate_after(path: Path, after: Iterable[int], folder: Path) -> tuple[Path, ...]:
    """A file for each of these nodes (from 0) that ends behind it, `<index>.onnx`, with the same inputs.

    Its outputs are what the rest of the model would have read.
    """
    import onnx

    whole = parse(path)
    files = []
    for index in after:
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        _keep(model.graph, index)
        files.append(folder / f"{index}{path.suffix}")
        files[-1].write_bytes(model.SerializeToString())
    return tuple(files)


def _keep(graph: Any, last: int) -> None:
    """Takes out the nodes behind the one, and the weights that only they use."""
    import onnx

    known = {value.name: value for value in (*graph.output, *graph.value_info)}
    later = {name for node in graph.node[last + 1 :] for name in reads(node)} | {item.name for item in graph.output}
    computed = [name for node in graph.node[: last + 1] for name in node.output if name]
    wanted = [name for name in computed if name in later] or [name for name in graph.node[last].output if name][:1]
    del graph.node[last + 1 :]
    read = {name for node in graph.node for name in reads(node)}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:], graph.output[:], graph.value_info[:]
    graph.initializer.extend(kept)
    # Types that the file does not tell are left to the runtime, which infers them anyway.
    graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in wanted)

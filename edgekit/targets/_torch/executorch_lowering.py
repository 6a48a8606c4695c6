"""What torch.fx does for whoever debugs a pass, left out while a program is lowered.

A lowering to ExecuTorch is some hundreds of passes, each of which copies the graph. What is left out here tells about
the graphs in between, which nobody sees; the file that comes of it is the same to the byte, and is proven by running.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def faster_lowering() -> Iterator[None]:
    """Leaves it out for as long as the block runs."""
    with _origins_shared(), _code_when_called(), _unverified(), _retraced_once(), _undescribed():
        yield


@contextlib.contextmanager
def _origins_shared() -> Iterator[None]:
    """Lets copies of a graph share the records of which pass each node comes from: every copy copies the whole history
    of every node."""
    from torch.fx.traceback import NodeSource

    def itself(record: Any, _memo: Any) -> Any:
        return record

    NodeSource.__deepcopy__ = itself
    try:
        yield
    finally:
        del NodeSource.__deepcopy__


@contextlib.contextmanager
def _code_when_called() -> Iterator[None]:
    """Writes and compiles the Python code of a graph when it is first called; most are walked node by node instead.

    As torch's own _LazyGraphModule does it, which passes that name GraphModule do not take.
    """
    from torch.fx import GraphModule
    from torch.fx.graph import _PyTreeCodeGen

    compiled, written = GraphModule.recompile, GraphModule.__str__

    def forward(self: Any, *arguments: Any, **keywords: Any) -> Any:
        compiled(self)
        return type(self).forward(self, *arguments, **keywords)

    def later(self: Any) -> None:
        if isinstance(self._graph._codegen, _PyTreeCodeGen):
            self._in_spec = self._graph._codegen.pytree_info.in_spec
            self._out_spec = self._graph._codegen.pytree_info.out_spec
        type(self).forward = forward  # each graph module has a class of its own

    GraphModule.recompile = later
    GraphModule.__str__ = object.__repr__  # partitioners write every graph into a log that nobody keeps
    try:
        yield
    finally:
        GraphModule.recompile, GraphModule.__str__ = compiled, written


@contextlib.contextmanager
def _unverified() -> Iterator[None]:
    """Does not check every program in between for what a pass may have broken."""
    from torch.export import ExportedProgram

    checked = ExportedProgram._validate
    ExportedProgram._validate = lambda self: None
    try:
        yield
    finally:
        ExportedProgram._validate = checked


@contextlib.contextmanager
def _retraced_once() -> Iterator[None]:
    """Does not trace a graph anew that the pass before has traced and this one has not changed.

    Most of XNNPACK's passes look for one pattern, edit the graph where they find it, and then trace all of it for the
    shapes of what they put in. Of passes that rewrite operators while they trace, each trace is carried out.
    """
    from executorch.exir.pass_base import ExportPass, _ExportPassBase
    from torch.fx.passes.infra.pass_base import PassResult

    trace = _ExportPassBase.call
    inherited = {
        name: getattr(ExportPass, name)
        for name, value in [*vars(_ExportPassBase).items(), *vars(ExportPass).items()]
        if name not in ("call", "requires", "ensures") and not name.startswith("__") and callable(value)
    }

    def call(self: Any, graph_module: Any) -> Any:
        if not all(getattr(type(self), name) is found for name, found in inherited.items()):
            return trace(self, graph_module)
        if _same(graph_module.__dict__.get(_TRACED), _lines(graph_module.graph)):
            return PassResult(graph_module, True)
        result = trace(self, graph_module)
        result.graph_module.__dict__[_TRACED] = _lines(result.graph_module.graph)
        return result

    _ExportPassBase.call = call
    try:
        yield
    finally:
        _ExportPassBase.call = trace


_TRACED = "_as_edgekit_saw_it_traced"
_Line = tuple[str, Any, str, Any]


def _lines(graph: Any) -> list[_Line] | None:
    """What each node of a graph computes, of which nodes, and the value that stands for its result; None for graphs
    with others inside, which do not tell whether those changed."""
    from torch.fx.node import map_arg

    if any(node.op == "get_attr" for node in graph.nodes):
        return None
    number = {node: f"%{index}" for index, node in enumerate(graph.nodes)}
    return [
        (node.op, node.target, repr(map_arg((node.args, node.kwargs), number.__getitem__)), node.meta.get("val"))
        for node in graph.nodes
    ]


def _same(before: list[_Line] | None, now: list[_Line] | None) -> bool:
    if before is None or now is None or len(before) != len(now):
        return False
    return all(old[:3] == new[:3] and old[3] is new[3] for old, new in zip(before, now, strict=True))


@contextlib.contextmanager
def _undescribed() -> Iterator[None]:
    """Does not describe every node in a sentence for the case that its operator fails."""
    from executorch.exir.pass_base import _ExportPassBase
    from torch.fx import Interpreter

    described = _ExportPassBase.ExportInterpreter.run_node

    def run_node(self: Any, node: Any) -> Any:
        self.node, self.callback.node_debug_str = node, node.name
        return Interpreter.run_node(self, node)

    _ExportPassBase.ExportInterpreter.run_node = run_node
    try:
        yield
    finally:
        _ExportPassBase.ExportInterpreter.run_node = described


@contextlib.contextmanager
def patterns_exported_once() -> Iterator[None]:
    """Exports each pattern that PT2E quantization looks for once in a process, not once for every model."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils
    from torchao.quantization.pt2e import qat_utils, utils

    name = "_get_aten_graph_module_for_pattern"
    export = getattr(utils, name)

    def kept(pattern: Any, example_inputs: tuple[Any, ...], *rest: Any, **keywords: Any) -> Any:
        shapes = tuple(tuple(item.shape) if hasattr(item, "shape") else item for item in example_inputs)
        key = (_code_of(pattern.fn), shapes, rest, tuple(sorted(keywords.items())))
        if key not in _EXPORTED:
            _EXPORTED[key] = export(pattern, example_inputs, *rest, **keywords)
        return copy.deepcopy(_EXPORTED[key])

    places = (utils, qat_utils, xnnpack_quantizer_utils)
    for place in places:
        setattr(place, name, kept)
    try:
        yield
    finally:
        for place in places:
            setattr(place, name, export)


_EXPORTED: dict[Any, Any] = {}


def _code_of(function: Any) -> Any:
    """What a function made inside another computes: its code, and what it took from around it."""
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    code = getattr(function, "__code__", function)
    return code, tuple(_code_of(item) if callable(item) else item for item in cells)

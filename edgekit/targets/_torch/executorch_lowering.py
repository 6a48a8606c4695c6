"""Patches that skip debug bookkeeping of torch.fx while a program is lowered to ExecuTorch.

A lowering runs some hundreds of passes, and each pass copies the graph. The patches skip work that only describes the
intermediate graphs, which nobody reads here: lowering is faster, and the bytes of the file are the same.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import Any

from edgekit.core.environment.requirements import EXECUTORCH, TORCH, TORCHAO

_log = logging.getLogger(__name__)

# The releases whose internals the patches below were tested with. With any other release no patch is applied, since
# internals change without notice; before a release is added here, tests/targets/_torch must pass with it.
TESTED_RELEASES = {TORCH: "2.13", EXECUTORCH: "1.5", TORCHAO: "0.18"}


def patches_apply() -> bool:
    """Return whether the installed packages are releases that the patches were tested with.

    Writes a debug log line when they are not.
    """
    for package, tested in TESTED_RELEASES.items():
        installed = package.version()
        if installed is None or installed.split(".")[:2] != tested.split("."):
            _log.debug(
                "lowering without patches, which is slower: they are tested with %s %s, and %s is installed",
                package.distribution,
                tested,
                installed or "none",
            )
            return False
    return True


@contextlib.contextmanager
def faster_lowering() -> Iterator[None]:
    """Apply the patches to torch.fx and executorch.exir for as long as the block runs.

    Has no effect with releases that the patches are not tested with.
    """
    if not patches_apply():
        yield
        return
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
    """Export each pattern that PT2E quantization looks for once per process, not once per model.

    Has no effect with releases that the patches are not tested with.
    """
    if not patches_apply():
        yield
        return
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

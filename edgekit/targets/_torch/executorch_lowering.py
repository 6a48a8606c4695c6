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

    Logs a debug line when they are not.

    Returns:
        True if every patch may be applied, False if none may.
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

    Returns:
        A context manager.
    """
    if not patches_apply():
        yield
        return
    with _origins_shared(), _code_when_called(), _unverified(), _retraced_once(), _undescribed():
        yield


@contextlib.contextmanager
def _origins_shared() -> Iterator[None]:
    """Share the provenance records of nodes between copies of a graph."""
    from torch.fx.traceback import NodeSource

    def share(record: Any, _memo: Any) -> Any:
        return record

    # Each copy of a graph copies the whole pass history of every node, which grows with every pass.
    NodeSource.__deepcopy__ = share
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # the class has none of its own


@contextlib.contextmanager
def _code_when_called() -> Iterator[None]:
    """Generate and compile the Python code of a graph at its first call, not whenever the graph changes."""
    from torch.fx import GraphModule
    from torch.fx.graph import _PyTreeCodeGen

    recompile, to_text = GraphModule.recompile, GraphModule.__str__

    def forward(self: Any, *arguments: Any, **keywords: Any) -> Any:
        recompile(self)
        return type(self).forward(self, *arguments, **keywords)

    def recompile_later(self: Any) -> None:
        # Passes read the pytree specs, which recompile() sets as a side effect.
        if isinstance(self._graph._codegen, _PyTreeCodeGen):
            self._in_spec = self._graph._codegen.pytree_info.in_spec
            self._out_spec = self._graph._codegen.pytree_info.out_spec
        type(self).forward = forward  # each graph module has a class of its own

    # torch's own _LazyGraphModule does the same, but passes that construct a GraphModule by name do not use it.
    # Most graphs are interpreted node by node, so their code is never called.
    GraphModule.recompile = recompile_later
    # Partitioners format every graph for a debug log that is off.
    GraphModule.__str__ = object.__repr__
    try:
        yield
    finally:
        GraphModule.recompile, GraphModule.__str__ = recompile, to_text


@contextlib.contextmanager
def _unverified() -> Iterator[None]:
    """Skip the verification of intermediate programs."""
    from torch.export import ExportedProgram

    validate = ExportedProgram._validate
    # The checks find broken passes; edgekit runs the finished file and compares its outputs instead.
    ExportedProgram._validate = lambda self: None
    try:
        yield
    finally:
        ExportedProgram._validate = validate


@contextlib.contextmanager
def _retraced_once() -> Iterator[None]:
    """Skip retracing a graph that the previous pass has traced and the current pass has not changed."""
    from executorch.exir.pass_base import ExportPass, _ExportPassBase
    from torch.fx.passes.infra.pass_base import PassResult

    trace = _ExportPassBase.call
    # XNNPACK's passes search for one pattern, edit the graph at its matches, and then retrace all of it to get shapes
    # for the new nodes. A pass that overrides any of these methods rewrites operators during the trace itself, so
    # its trace always runs.
    inherited = {
        name: getattr(ExportPass, name)
        for name, value in [*vars(_ExportPassBase).items(), *vars(ExportPass).items()]
        if name not in ("call", "requires", "ensures") and not name.startswith("__") and callable(value)
    }

    def call(self: Any, graph_module: Any) -> Any:
        if not all(getattr(type(self), name) is method for name, method in inherited.items()):
            return trace(self, graph_module)
        if _is_same(graph_module.__dict__.get(_TRACED), _node_records(graph_module.graph)):
            return PassResult(graph_module, True)  # a trace reports a change as well
        result = trace(self, graph_module)
        result.graph_module.__dict__[_TRACED] = _node_records(result.graph_module.graph)
        return result

    _ExportPassBase.call = call
    try:
        yield
    finally:
        _ExportPassBase.call = trace


# An attribute of a graph module, so that the record is dropped together with the graph.
_TRACED = "_edgekit_traced_nodes"

# A node's opcode, target, arguments (as text, nodes by their number) and fake result.
_NodeRecord = tuple[str, Any, str, Any]


def _node_records(graph: Any) -> list[_NodeRecord] | None:
    """Return one record per node, or None for a graph whose changes the records would miss."""
    from torch.fx.node import map_arg

    # Attributes may be nested graphs, and a change inside of one does not show in the nodes of the outer graph.
    if any(node.op == "get_attr" for node in graph.nodes):
        return None
    number = {node: f"%{index}" for index, node in enumerate(graph.nodes)}
    return [
        (node.op, node.target, repr(map_arg((node.args, node.kwargs), number.__getitem__)), node.meta.get("val"))
        for node in graph.nodes
    ]


def _is_same(before: list[_NodeRecord] | None, after: list[_NodeRecord] | None) -> bool:
    if before is None or after is None or len(before) != len(after):
        return False
    # Fake results are compared by identity: a pass that sets another one wants it to be propagated.
    return all(old[:3] == new[:3] and old[3] is new[3] for old, new in zip(before, after, strict=True))


@contextlib.contextmanager
def _undescribed() -> Iterator[None]:
    """Skip the text that describes each node for the case that its operator fails."""
    from executorch.exir.pass_base import _ExportPassBase
    from torch.fx import Interpreter

    run_described_node = _ExportPassBase.ExportInterpreter.run_node

    def run_node(self: Any, node: Any) -> Any:
        self.node, self.callback.node_debug_str = node, node.name  # the original formats the node here
        return Interpreter.run_node(self, node)

    _ExportPassBase.ExportInterpreter.run_node = run_node
    try:
        yield
    finally:
        _ExportPassBase.ExportInterpreter.run_node = run_described_node


@contextlib.contextmanager
def patterns_exported_once() -> Iterator[None]:
    """Export each pattern that PT2E quantization looks for once per process, not once per model.

    Has no effect with releases that the patches are not tested with.

    Returns:
        A context manager.
    """
    if not patches_apply():
        yield
        return
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils
    from torchao.quantization.pt2e import qat_utils, utils

    name = "_get_aten_graph_module_for_pattern"
    export = getattr(utils, name)

    def export_once(pattern: Any, example_inputs: tuple[Any, ...], *rest: Any, **keywords: Any) -> Any:
        shapes = tuple(tuple(value.shape) if hasattr(value, "shape") else value for value in example_inputs)
        key = (_code_key(pattern.fn), shapes, rest, tuple(sorted(keywords.items())))
        if key not in _exported_patterns:
            _exported_patterns[key] = export(pattern, example_inputs, *rest, **keywords)
        return copy.deepcopy(_exported_patterns[key])  # the quantizer edits the graph that it gets

    # Both others import the function by name, so replacing it in its own module alone would not reach them.
    modules = (utils, qat_utils, xnnpack_quantizer_utils)
    for module in modules:
        setattr(module, name, export_once)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, name, export)


_exported_patterns: dict[Any, Any] = {}


def _code_key(function: Any) -> Any:
    """Return a key for what a nested function computes: its code, and the values that it closes over."""
    # The functions themselves are created anew for every model, so their identity is no key.
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    code = getattr(function, "__code__", function)
    return code, tuple(_code_key(value) if callable(value) else value for value in cells)

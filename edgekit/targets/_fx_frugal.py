"""What torch.fx does for whoever debugs a pass, left out while a program is lowered.

A lowering to ExecuTorch is some hundreds of passes, each of which copies the graph. What is left out here tells about
the graphs in between, which nobody sees; the file that comes of it is the same to the byte, and is proven by running.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def frugal() -> Iterator[None]:
    """Leaves it out for as long as the block runs."""
    with _origins_shared(), _code_when_called(), _unverified():
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

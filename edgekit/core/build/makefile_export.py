"""The step graph as make rules. make decides by time stamps what to look at, edgekit by content what to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgekit.core.build.graph import Graph, Step

_HEAD = """\
# Made by: edgekit run --emit-makefile. It is made anew when {config} changes.
# To be included in a Makefile of the same folder; run there: make edgekit

EDGEKIT ?= edgekit

# A target whose recipe failed is not done: a check that failed fails again.
.DELETE_ON_ERROR:

.PHONY: edgekit
edgekit: {targets}
"""


def escaped(path: str) -> str:
    """The path as a target or prerequisite of make."""
    for character in ("\\", "#", " ", ":"):
        path = path.replace(character, f"\\{character}")
    return path.replace("$", "$$")


def _quoted(text: str) -> str:
    """A word of the shell, in a recipe."""
    return "'" + text.replace("'", "'\\''").replace("$", "$$") + "'"


def makefile(graph: Graph, root: Path, config: str) -> str:
    """One rule a step; `config` is the name of edgekit.toml, on which all of them depend."""
    targets = " ".join(escaped(step.output) for step in graph.steps)
    rules = (_rule(step, graph, root, config) for step in graph.steps)
    return "\n".join([_HEAD.format(config=config, targets=targets), *rules])


def _rule(step: Step, graph: Graph, root: Path, config: str) -> str:
    before = [graph.by_name[name].output for name in step.after]
    own = [read.path for read in step.reads if graph.writer(read.path) is None]
    needed = " ".join(_prerequisites([*before, *own, config], root))
    return (
        f"{escaped(step.output)}: {needed}\n"
        f"\t$(EDGEKIT) run {_quoted(step.name)}\n"
        "\t@touch -c $@\n"
    )  # fmt: skip


def _prerequisites(paths: Iterable[str], root: Path) -> Iterable[str]:
    """Of a folder: itself, for what is added and removed there, and all that is in it."""
    for path in dict.fromkeys(paths):
        if (root / path).is_dir():
            yield f"$(shell find {_quoted(path)})"
        else:
            yield escaped(path)

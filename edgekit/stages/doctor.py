"""The doctor stage: which packages are installed, and what each missing one would add."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.contracts.bridge import BRIDGES
from edgekit.contracts.executor import EXECUTORS
from edgekit.contracts.report import REPORTS
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import SOURCES
from edgekit.contracts.target import TARGETS
from edgekit.contracts.trainer import TRAINERS
from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError

KINDS: tuple[PluginKind[Any], ...] = (SOURCES, TARGETS, RUNTIMES, EXECUTORS, BRIDGES, TRAINERS, REPORTS)

# Modules of optional features that are no plug-ins: their module-level requirements are reported too. Importing one
# imports no framework.
FEATURES = (
    "edgekit.runtimes._tflite_micro_code_size",
    "edgekit.sources._given_samples",
    "edgekit.sources.torch",
    "edgekit.training._tensorboard",
    "edgekit.training.datasets.images",
    "edgekit.training.datasets.vowels",
    "edgekit.training.datasets.watch",
    "edgekit.reports.html",
    "edgekit.stages.benchmark.npu_job",
    "edgekit.stages.cluster.content_store",
    "edgekit.stages.cluster.dask_backend",
    "edgekit.stages.tracking.settings",
)


@dataclass(frozen=True)
class Diagnosis:
    """The result of looking at an environment.

    Attributes:
        requirements: Every declared requirement, in the order of declaration.
        broken_plugins: One sentence for each plug-in of another package that cannot be loaded.
    """

    requirements: tuple[Requirement, ...]
    broken_plugins: tuple[str, ...]

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """Those that are not installed."""
        return tuple(item for item in self.requirements if not item.installed())


def diagnose() -> Diagnosis:
    """Gather the requirements that plug-ins and optional features declare."""
    declared: dict[tuple[str, str], Requirement] = {}
    broken: list[str] = []
    for kind in KINDS:
        for name in kind.names():
            try:
                plugin = kind.load(name)
            except InputError as error:
                broken.append(str(error))
                continue
            for requirement in _declared_by(plugin):
                declared.setdefault((requirement.module, requirement.distribution), requirement)
    for module in FEATURES:
        for requirement in _in(tuple(vars(importlib.import_module(module)).values())):
            declared.setdefault((requirement.module, requirement.distribution), requirement)
    return Diagnosis(tuple(item for item in declared.values() if item.module != "numpy"), tuple(broken))


def _declared_by(plugin: object) -> Iterator[Requirement]:
    """Every requirement among the class attributes of a plug-in, its bases' included."""
    for cls in type(plugin).__mro__:
        yield from _in(tuple(vars(cls).values()))


def _in(value: object) -> Iterator[Requirement]:
    if isinstance(value, Requirement):
        yield value
    elif isinstance(value, Mapping):
        yield from _in(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _in(item)

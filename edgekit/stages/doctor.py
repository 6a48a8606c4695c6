"""The doctor stage: which optional packages are installed, and what each missing package would add."""

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

# Optional features that are not plug-ins: the requirements at the top of these modules are reported too. Importing
# these modules imports no framework.
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
    """The state of an environment.

    Attributes:
        requirements: Every declared requirement, in the order of declaration.
        broken_plugins: One sentence for each plug-in of another package that cannot be loaded.
    """

    requirements: tuple[Requirement, ...]
    broken_plugins: tuple[str, ...]

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """The requirements that are not installed."""
        return tuple(requirement for requirement in self.requirements if not requirement.installed())


def diagnose() -> Diagnosis:
    """Collect the requirements that plug-ins and optional features declare.

    Returns:
        The requirements, and the plug-ins of other packages that cannot be loaded.
    """
    declared: dict[tuple[str, str], Requirement] = {}
    broken: list[str] = []
    for kind in KINDS:
        for name in kind.names():
            try:
                plugin = kind.load(name)
            except InputError as error:
                broken.append(str(error))
                continue
            for requirement in _class_requirements(plugin):
                declared.setdefault((requirement.module, requirement.distribution), requirement)
    for module in FEATURES:
        for requirement in _nested_requirements(tuple(vars(importlib.import_module(module)).values())):
            declared.setdefault((requirement.module, requirement.distribution), requirement)
    # numpy is a dependency of edgekit itself: it is always installed.
    optional = tuple(requirement for requirement in declared.values() if requirement.module != "numpy")
    return Diagnosis(optional, tuple(broken))


def _class_requirements(plugin: object) -> Iterator[Requirement]:
    """Yield every requirement among the class attributes of a plug-in and of its bases."""
    for cls in type(plugin).__mro__:
        yield from _nested_requirements(tuple(vars(cls).values()))


def _nested_requirements(value: object) -> Iterator[Requirement]:
    if isinstance(value, Requirement):
        yield value
    elif isinstance(value, Mapping):
        yield from _nested_requirements(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from _nested_requirements(element)

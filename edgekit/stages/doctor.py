"""The doctor stage: which optional packages are installed, and whether workers can be confined."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
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
from edgekit.core.errors import EdgekitError, InputError
from edgekit.workers import confinement
from edgekit.workers.confinement_job import ProbeRequest, try_denied_actions
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

KINDS: tuple[PluginKind[Any], ...] = (SOURCES, TARGETS, RUNTIMES, EXECUTORS, BRIDGES, TRAINERS, REPORTS)

# Optional features that are not plug-ins: the requirements at the top of these modules are reported too. Importing
# these modules imports no framework.
FEATURES = (
    "edgekit.runtimes._tflite_micro_code_size",
    "edgekit.sources._checkpoint",
    "edgekit.sources._given_samples",
    "edgekit.sources._pretrained_folder",
    "edgekit.training._tensorboard",
    "edgekit.training.datasets.images",
    "edgekit.training.datasets.vowels",
    "edgekit.training.datasets.watch",
    "edgekit.reports.html",
    "edgekit.stages.benchmark.npu_job",
    "edgekit.stages.cluster.content_store",
    "edgekit.stages.cluster.dask_backend",
    "edgekit.stages.models.mlflow_folder",
    "edgekit.stages.serving.settings",
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


def confinement_problem() -> str | None:
    """Start a confined worker and let it try what it may not do.

    Returns:
        Why workers are not confined here, or None if they are.

    Raises:
        InputError: The variable EDGEKIT_CONFINEMENT has an unknown value.
    """
    if confinement.mode() == "off":
        return f"{confinement.VARIABLE} is off"
    if confinement.unavailable_reason() is not None:
        return confinement.unavailable_reason()
    with tempfile.TemporaryDirectory(prefix="edgekit-doctor-") as folder, WorkerPool(timeout_s=60) as pool:
        request = ProbeRequest(str(Path(folder, "file")))
        try:
            allowed = pool.call(try_denied_actions, request, step="probe", environment=Environment())
        except EdgekitError as error:
            return f"a confined worker failed ({error})"
    return f"a confined worker could still {', '.join(allowed)}" if allowed else None


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

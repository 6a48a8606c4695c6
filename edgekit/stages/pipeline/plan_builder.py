"""Collects the steps of a plan, the position of each in `edgekit.toml`, and the notes about what was left out."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgekit._version import __version__
from edgekit.config.loader import SourceMapped
from edgekit.config.project import ModelEntry, ProjectConfig
from edgekit.config.toml_lines import Location
from edgekit.core.build.graph import Step, StepInput
from edgekit.core.environment import python_dependencies
from edgekit.core.environment.project import Project
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.devices import host_machine


@dataclass(frozen=True)
class PlannedSource:
    """A source model that exports start from.

    Attributes:
        model: The model's name.
        kind: The kind of source, such as `keras` or `onnx`.
        step: The name of the step that trains or imports it.
        entry: Its entry in `edgekit.toml`.
        at: The position of the entry.
        code: The Python files that build the model.
    """

    model: str
    kind: str
    step: str
    entry: ModelEntry
    at: Location
    code: tuple[StepInput, ...]

    @property
    def named_module(self) -> dict[str, str]:
        """The arguments of a step that runs code of an installed module: another host has no `edgekit.toml`."""
        path = self.entry.path
        return {"code": path} if path is not None and self.entry.is_code and ".py:" not in path else {}

    @property
    def label(self) -> str:
        """`model/kind`, as in step names."""
        return f"{self.model}/{self.kind}"


@dataclass
class PlanBuilder:
    """Accumulates the parts of a plan.

    Attributes:
        project: The project.
        file: Its `edgekit.toml`.
        steps: The steps, in the order in which they were added.
        origins: The position in the file of each step, by name.
        artifacts: What reports need to know of each artifact.
        notes: What was left out, and why.
    """

    project: Project
    file: SourceMapped[ProjectConfig]
    steps: list[Step] = field(default_factory=list)
    origins: dict[str, Location] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[NoteEvent] = field(default_factory=list)

    @property
    def config(self) -> ProjectConfig:
        """The file's content."""
        return self.file.value

    def relative(self, path: Path) -> str:
        """Return the path relative to the project's root, or absolute if it is outside it."""
        return str(path.relative_to(self.project.root)) if path.is_relative_to(self.project.root) else str(path)

    def resolve(self, text: str) -> Path:
        """Return a path of the file as an absolute path."""
        return Path(os.path.normpath(self.project.root / Path(text).expanduser()))

    def where(self, step: str) -> str:
        """Return `file: line` of the entry that a step comes from."""
        return self.file.where(self.origins.get(step, ()))

    def add(self, at: Location, step: Step) -> None:
        """Add a step.

        Args:
            at: The position in the file that the step comes from.
            step: The step.

        Raises:
            InputError: A step with this name was added before.
        """
        if step.name in self.origins:
            raise self.file.error(at, f"the step {step.name} is defined twice; give one of the models another name")
        self.origins[step.name] = at
        self.steps.append(step)


def to_json_values(values: Mapping[str, Any]) -> Any:
    """Convert values to what JSON returns, such as lists for tuples, so that they compare equal to a stored record.

    Args:
        values: The values of a step.

    Returns:
        The converted values.
    """
    return json.loads(json.dumps(values))


@cache
def _version(requirement: Requirement) -> str | None:
    return requirement.version()


def versions(needed: Iterable[Requirement]) -> dict[str, str]:
    """Return the versions that a step's result depends on.

    Args:
        needed: The packages that the step uses.

    Returns:
        Version by distribution: edgekit, Python, and those of the packages that are installed.
    """
    base = {"edgekit": __version__, "python": platform.python_version()}
    packages = {requirement.distribution: _version(requirement) for requirement in dict.fromkeys(needed)}
    return base | {name: version for name, version in sorted(packages.items()) if version is not None}


def with_location(builder: PlanBuilder, at: Location, check: Any, *arguments: Any) -> Any:
    """Call a function and prefix the message of its InputError with a position in the file.

    Args:
        builder: The plan's builder.
        at: The position.
        check: The function.
        *arguments: Its arguments.

    Returns:
        What the function returns.

    Raises:
        InputError: The function raised one.
    """
    try:
        return check(*arguments)
    except InputError as error:
        raise builder.file.error(at, str(error)) from None


def code_files(builder: PlanBuilder, path: Path, top: Path) -> tuple[StepInput, ...]:
    """List a Python file and the modules that it imports from its own project.

    Args:
        builder: The plan's builder.
        path: The Python file.
        top: The folder whose modules are followed.

    Returns:
        The files as inputs of a step.
    """
    return tuple(StepInput(builder.relative(file)) for file in python_dependencies.files_of(path, top)) or (
        StepInput(builder.relative(path)),
    )


@cache
def host_description() -> str:
    """Return the description of this machine; cached, since it reads /proc."""
    return host_machine.description()

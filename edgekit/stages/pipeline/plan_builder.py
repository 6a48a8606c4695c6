"""What a plan is made of while it is made: steps, where each stands in the file, and what it leaves out."""

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
from edgekit.core.events import Noted
from edgekit.devices import host_machine


@dataclass(frozen=True)
class PlannedSource:
    """A source that exports start from, and the step that makes it. `code` are the files that build it."""

    model: str
    kind: str
    step: str
    entry: ModelEntry
    at: Location
    code: tuple[StepInput, ...]

    @property
    def label(self) -> str:
        return f"{self.model}/{self.kind}"


@dataclass
class PlanBuilder:
    """The steps as they are found, and where in the file each comes from."""

    project: Project
    file: SourceMapped[ProjectConfig]
    steps: list[Step] = field(default_factory=list)
    origins: dict[str, Location] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Noted] = field(default_factory=list)

    @property
    def config(self) -> ProjectConfig:
        return self.file.value

    def relative(self, path: Path) -> str:
        """From the project's root, or absolute outside it."""
        return str(path.relative_to(self.project.root)) if path.is_relative_to(self.project.root) else str(path)

    def given(self, text: str) -> Path:
        """A path of the file."""
        return Path(os.path.normpath(self.project.root / Path(text).expanduser()))

    def where(self, step: str) -> str:
        return self.file.where(self.origins.get(step, ()))

    def add(self, at: Location, step: Step) -> None:
        if step.name in self.origins:
            raise self.file.error(at, f"{step.name} is in this file twice; give the model another name")
        self.origins[step.name] = at
        self.steps.append(step)


def to_json_values(values: Mapping[str, Any]) -> Any:
    """As it comes back from JSON: so that a value and its record are equal when they are the same."""
    return json.loads(json.dumps(values))


@cache
def _version(requirement: Requirement) -> str | None:
    return requirement.version()


def versions(needed: Iterable[Requirement]) -> dict[str, str]:
    """edgekit's own version, Python's, and those of the packages that are installed."""
    own = {"edgekit": __version__, "python": platform.python_version()}
    found = {item.distribution: _version(item) for item in dict.fromkeys(needed)}
    return own | {name: version for name, version in sorted(found.items()) if version is not None}


def with_location(builder: PlanBuilder, at: Location, check: Any, *arguments: Any) -> Any:
    """What `check` returns; its InputError gets the place in the file."""
    try:
        return check(*arguments)
    except InputError as error:
        raise builder.file.error(at, str(error)) from None


def code_files(builder: PlanBuilder, path: Path, top: Path) -> tuple[StepInput, ...]:
    """A Python file and what it imports from beside it."""
    return tuple(StepInput(builder.relative(item)) for item in python_dependencies.files_of(path, top)) or (
        StepInput(builder.relative(path)),
    )


@cache
def host_description() -> str:
    """This machine, told once."""
    return host_machine.description()

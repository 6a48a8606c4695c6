"""The step graph as plain data: what each step reads and writes, its key, and why it has to run.

Nothing here runs a step, and nothing looks at a file but through the digests it is given: the same graph is carried
out, explained, and written as make rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePath
from typing import Any

from edgekit.core.errors import InputError


class StepKind(StrEnum):
    """The kinds of steps, in the order in which a model passes through them."""

    TRAIN = "train"
    IMPORT = "import"
    EXPORT = "export"
    VALIDATE = "validate"
    DIFF = "diff"
    EMULATE = "emulate"
    BENCH = "bench"
    CHECK = "check"
    REPORT = "report"
    TRACK = "track"

    @property
    def measures(self) -> bool:
        """Whether it measures this host: such steps run beside no others, and take turns with one another."""
        return self is StepKind.BENCH

    @property
    def runs_last(self) -> bool:
        """Whether it uses what results there are when the steps before it have ended, whether or not they failed."""
        return self in (StepKind.REPORT, StepKind.TRACK)

    @property
    def loads_framework(self) -> bool:
        """Whether its worker loads a framework or a runtime, and so takes memory."""
        return self not in (StepKind.CHECK, StepKind.REPORT, StepKind.TRACK)

    @property
    def runs_elsewhere(self) -> bool:
        """Whether another host may execute it: its result is the same there."""
        return self in (StepKind.TRAIN, StepKind.IMPORT, StepKind.EXPORT, StepKind.VALIDATE, StepKind.DIFF)


@dataclass(frozen=True)
class StepInput:
    """A file or folder that a step reads, relative to the project's root or absolute.

    `only` and `without` narrow a TOML or JSON file down to some of its keys: a budget in a model.toml is nothing to a
    training.
    """

    path: str
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} ({', '.join(self.only)})" if self.only else self.path


@dataclass(frozen=True)
class Step:
    """One step. `values` is everything beside files that its outcome depends on: options, limits, versions.

    `arguments` is what carrying it out needs and what has no bearing on the outcome. `output` is the file that is there
    when the step is done; `folder` is set where all of a folder is the step's.
    """

    name: str
    kind: StepKind
    output: str
    folder: str = ""
    after: tuple[str, ...] = ()
    reads: tuple[StepInput, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", StepKind(self.kind))  # after a trip through JSON it is a string

    @property
    def subject(self) -> str:
        """The source that it is about (`simple_cnn/keras`); empty where that is none, or more than one."""
        known = "model" in self.arguments and "kind" in self.arguments
        return f"{self.arguments['model']}/{self.arguments['kind']}" if known else ""

    def writes(self, path: str) -> bool:
        """Whether the path is this step's."""
        return path == self.output or (bool(self.folder) and (PurePath(path).is_relative_to(self.folder)))


@dataclass(frozen=True)
class Graph:
    """Steps in an order in which each comes after those that it needs."""

    steps: tuple[Step, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """Every step by its name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def writers(self) -> Mapping[str, Step]:
        """Every path that a step was said to write: its output, and its folder."""
        return {path: step for step in self.steps for path in (step.output, step.folder) if path}

    def writer(self, path: str) -> Step | None:
        """The step that writes a path, or None."""
        around = (path, *map(str, PurePath(path).parents))
        return next((self.writers[item] for item in around if item in self.writers), None)

    def to_dict(self) -> list[dict[str, Any]]:
        """For --json, and to keep it."""
        return [asdict(step) for step in self.steps]

    @classmethod
    def from_dict(cls, data: Iterable[Mapping[str, Any]]) -> Graph:
        """The inverse of `to_dict` after a trip through JSON."""
        return cls(tuple(_step(item) for item in data))

    def find(self, kind: StepKind, /, **arguments: Any) -> Step | None:
        """Return the step of that kind that has these arguments, or None."""
        matches = (step for step in self.steps if step.kind is kind)
        return next(
            (step for step in matches if all(step.arguments.get(name) == value for name, value in arguments.items())),
            None,
        )

    def needed(self, patterns: Sequence[str]) -> Graph:
        """The steps that a pattern names (`export *`), with all that they need. No pattern: all of them.

        Raises InputError for a pattern that names none.
        """
        if not patterns:
            return self
        wanted: set[str] = set()
        for pattern in patterns:
            found = [step.name for step in self.steps if fnmatchcase(step.name, _present_name(pattern))]
            if not found:
                known = "; ".join(step.name for step in self.steps)
                raise InputError(f"no step is called '{pattern}'; steps: {known}")
            wanted.update(found)
        for step in reversed(self.steps):
            if step.name in wanted:
                wanted.update(step.after)
        return Graph(tuple(step for step in self.steps if step.name in wanted))


def _present_name(pattern: str) -> str:
    # Up to 0.9 the import of a user's model was called "take in": pipelines may still ask for it by that name.
    return pattern.replace("take in ", "import ", 1) if pattern.startswith("take in ") else pattern


def _step(data: Mapping[str, Any]) -> Step:
    reads = tuple(StepInput(item["path"], tuple(item["only"]), tuple(item["without"])) for item in data["reads"])
    return Step(**{**data, "after": tuple(data["after"]), "reads": reads})


def build_graph(steps: Sequence[Step], where: Callable[[str], str]) -> Graph:
    """The graph of steps in any order. Who reads what another step writes comes after it.

    `where` tells the place in a file that a step comes from. Raises InputError when two steps write the same file, or
    when a step would have to come after itself.
    """
    writers: dict[str, str] = {}
    for step in steps:
        for path in {step.output, step.folder} - {""}:
            other = writers.setdefault(path, step.name)
            if other != step.name:
                raise InputError(f"{where(step.name)}: {step.name} writes {path}, and so does {other}")
    linked = [replace(step, after=_before(step, writers)) for step in steps]
    return Graph(_ordered(linked, where))


def _before(step: Step, writers: Mapping[str, str]) -> tuple[str, ...]:
    """Those that the step was said to come after, and those that write what it reads."""
    paths = (path for read in step.reads for path in (read.path, *map(str, PurePath(read.path).parents)))
    return tuple(dict.fromkeys((*step.after, *(writers[path] for path in paths if path in writers))))


def _ordered(steps: Sequence[Step], where: Callable[[str], str]) -> tuple[Step, ...]:
    """Sort the steps topologically. Of the steps that are free at the same time, the one that was named first is first.

    A step does not wait for one that is not among them.
    """
    by_name = {step.name: step for step in steps}
    position = {name: index for index, name in enumerate(by_name)}
    sorter = TopologicalSorter({step.name: [name for name in step.after if name in by_name] for step in steps})
    try:
        sorter.prepare()
    except CycleError as error:
        cycle = _from_first(error.args[1][:0:-1], position)  # each step needs the one that is named next
        raise InputError(f"{where(cycle[0])}: the steps wait for one another: {' -> '.join(cycle)}") from None
    ordered: list[Step] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        ordered += (by_name[name] for name in ready)
        sorter.done(*ready)
    return tuple(ordered)


def _from_first(cycle: list[str], position: Mapping[str, int]) -> list[str]:
    """The cycle from the step that was named first, back to it."""
    start = min(range(len(cycle)), key=lambda index: position[cycle[index]])
    turned = cycle[start:] + cycle[:start]
    return [*turned, turned[0]]


@dataclass(frozen=True)
class StepKey:
    """What a step's outcome depends on, as it stands: the digest of each file, and the values."""

    files: Mapping[str, str]
    values: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """All of it in one sha256."""
        text = json.dumps([dict(self.files), self.values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StepRecord:
    """What is kept of a step that ran: its key, the digest of every file that it wrote, and how it went.

    `code` is 0, or 1 for a check that was carried out and failed. `partial` names the steps whose results a report had
    to do without.
    """

    step: str
    kind: StepKind
    key: StepKey
    outputs: Mapping[str, str]
    seconds: float
    code: int = 0
    detail: str = ""
    partial: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def rerun_reasons(key: StepKey, record: StepRecord | None, now: Callable[[str], str]) -> list[str]:
    """Why the step has to run, in words; nothing when it is up to date. `now` is the digest of a file as it stands."""
    if record is None:
        return ["it has not been done yet"]
    found = [f"{path} {_change(record.key.files.get(path), digest)}" for path, digest in key.files.items()
             if record.key.files.get(path) != digest]  # fmt: skip
    found += [f"{path} is no longer read" for path in record.key.files if path not in key.files]
    found += [f"{name} changed" for name in _differences(record.key.values, key.values)]
    for path, digest in record.outputs.items():
        if now(path) != digest:
            found.append(f"{path} is {'missing' if now(path) == 'absent' else 'not what it wrote'}")
    found += [f"{name} had failed" for name in record.partial]
    return found


def _change(before: str | None, after: str) -> str:
    if before is None:
        return "is newly read"
    return {before: "appeared", after: "is gone"}.get("absent", "changed")


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], base: str = "") -> list[str]:
    """Names of values that differ, with the names of inner ones where both are tables."""
    found = []
    for name in dict.fromkeys((*before, *after)):
        one, other = before.get(name), after.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, f"{base}{name}.")
        elif one != other:
            found.append(f"{base}{name}")
    return found

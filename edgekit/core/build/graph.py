"""The step graph as plain data: what each step reads and writes, its key, and why it has to run.

The graph is independent of execution: the same one is executed, explained, and converted to make rules. Files are read
only through the digests that the caller passes.
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
from typing import Annotated, Any

from edgekit.core.errors import InputError
from edgekit.core.values.typed_json import NotNegative, Range, decode_any


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
        """Whether the step measures times on this host, so that no other step may run at the same time."""
        return self is StepKind.BENCH

    @property
    def runs_last(self) -> bool:
        """Whether the step runs even if a step that it depends on failed, with the results that exist."""
        return self in (StepKind.REPORT, StepKind.TRACK)

    @property
    def loads_framework(self) -> bool:
        """Whether the step's worker loads a framework or a runtime, which needs memory."""
        return self not in (StepKind.CHECK, StepKind.REPORT, StepKind.TRACK)

    @property
    def runs_elsewhere(self) -> bool:
        """Whether another host may execute the step, because the result does not depend on the host."""
        return self in (StepKind.TRAIN, StepKind.IMPORT, StepKind.EXPORT, StepKind.VALIDATE, StepKind.DIFF)


@dataclass(frozen=True)
class StepInput:
    """A file or folder that a step reads.

    A step may depend on single keys of a TOML or JSON file: changing a budget in `model.toml` does not retrain the
    model.

    Attributes:
        path: The path, absolute or relative to the project's root.
        only: The top-level keys that the step depends on; empty for all.
        without: The keys that the step does not depend on; `outer.inner` is a key of an inner table.
    """

    path: str
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} ({', '.join(self.only)})" if self.only else self.path


@dataclass(frozen=True)
class Step:
    """One step of the pipeline.

    Attributes:
        name: The name, unique in the graph, such as `export net/onnx onnx:int8`.
        kind: The kind.
        output: The file that exists when the step is done, relative to the project's root.
        folder: The folder that belongs to the step as a whole; empty if there is none.
        after: The names of the steps that it depends on.
        reads: The files and folders that it depends on.
        values: Everything else that its result depends on: options, limits and versions.
        arguments: What executing it needs, but its result does not depend on.
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
        object.__setattr__(self, "kind", StepKind(self.kind))  # plan builders may write its name

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        return {**asdict(self), "kind": self.kind.value}

    @property
    def subject(self) -> str:
        """The source model that the step processes, such as `simple_cnn/keras`; empty for none or several."""
        has_source = "model" in self.arguments and "kind" in self.arguments
        return f"{self.arguments['model']}/{self.arguments['kind']}" if has_source else ""

    def writes(self, path: str) -> bool:
        """Return whether a path is the step's output or inside its folder."""
        return path == self.output or (bool(self.folder) and (PurePath(path).is_relative_to(self.folder)))


@dataclass(frozen=True)
class Graph:
    """The steps of a pipeline in topological order.

    Attributes:
        steps: The steps, each after those that it depends on.
    """

    steps: tuple[Step, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """The steps by name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def writers(self) -> Mapping[str, Step]:
        """The steps by the paths that they write: output and folder."""
        return {path: step for step in self.steps for path in (step.output, step.folder) if path}

    def writer(self, path: str) -> Step | None:
        """Return the step that writes a path or a folder that contains it.

        Args:
            path: The path, absolute or relative to the project's root.

        Returns:
            The step; None if no step writes the path.
        """
        candidates = (path, *map(str, PurePath(path).parents))
        return next((self.writers[candidate] for candidate in candidates if candidate in self.writers), None)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the steps as JSON values, for `--json` and the plan cache."""
        return [step.to_dict() for step in self.steps]

    @classmethod
    def from_dict(cls, data: Iterable[Mapping[str, Any]]) -> Graph:
        """Decode a graph.

        Args:
            data: What `to_dict` returned, possibly encoded as JSON and decoded since.

        Returns:
            The graph.

        Raises:
            InputError: A key is missing or unknown, or a value is of another type.
        """
        return cls(decode_any(tuple[Step, ...], list(data), "graph"))

    def find(self, kind: StepKind, /, **arguments: Any) -> Step | None:
        """Return the first step of a kind with some arguments.

        Args:
            kind: The step's kind.
            **arguments: Values of `Step.arguments`; further arguments of the step are ignored.

        Returns:
            The step; None if there is none.
        """
        matches = (step for step in self.steps if step.kind is kind)
        return next(
            (step for step in matches if all(step.arguments.get(name) == value for name, value in arguments.items())),
            None,
        )

    def needed(self, patterns: Sequence[str]) -> Graph:
        """Select the steps that match a pattern, and all steps that they depend on.

        Args:
            patterns: Names of steps, or patterns with `*` and `?` such as `export *`; none selects all steps.

        Returns:
            The selected steps.

        Raises:
            InputError: A pattern matches no step.
        """
        if not patterns:
            return self
        selected: set[str] = set()
        for pattern in patterns:
            matches = [step.name for step in self.steps if fnmatchcase(step.name, _current_name(pattern))]
            if not matches:
                names = "; ".join(step.name for step in self.steps)
                raise InputError(f"no step is called '{pattern}'; steps: {names}")
            selected.update(matches)
        # Dependents come last in the order, so that one pass backwards reaches all dependencies.
        for step in reversed(self.steps):
            if step.name in selected:
                selected.update(step.after)
        return Graph(tuple(step for step in self.steps if step.name in selected))


def _current_name(pattern: str) -> str:
    # Up to 0.9 the import of a user's model was called "take in": pipelines may still ask for it by that name.
    return pattern.replace("take in ", "import ", 1) if pattern.startswith("take in ") else pattern


def build_graph(steps: Sequence[Step], where: Callable[[str], str]) -> Graph:
    """Build the graph: sort the steps, and make each depend on those that write what it reads.

    Args:
        steps: The steps in any order.
        where: Returns the file and line that define a step of that name, for error messages.

    Returns:
        The graph.

    Raises:
        InputError: Two steps write the same path, or steps depend on one another in a cycle.
    """
    writers: dict[str, str] = {}
    for step in steps:
        for path in {step.output, step.folder} - {""}:
            writer = writers.setdefault(path, step.name)
            if writer != step.name:
                raise InputError(f"{where(step.name)}: {step.name} writes {path}, and so does {writer}")
    linked = [replace(step, after=_dependencies(step, writers)) for step in steps]
    return Graph(_sort(linked, where))


def _dependencies(step: Step, writers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the steps that a step declares as dependencies, and those that write what it reads."""
    paths = (path for read in step.reads for path in (read.path, *map(str, PurePath(read.path).parents)))
    return tuple(dict.fromkeys((*step.after, *(writers[path] for path in paths if path in writers))))


def _sort(steps: Sequence[Step], where: Callable[[str], str]) -> tuple[Step, ...]:
    """Sort the steps topologically; independent ones keep their order. Unknown dependencies are ignored."""
    by_name = {step.name: step for step in steps}
    position = {name: index for index, name in enumerate(by_name)}
    sorter = TopologicalSorter({step.name: [name for name in step.after if name in by_name] for step in steps})
    try:
        sorter.prepare()
    except CycleError as error:
        # graphlib lists each step after one that it depends on, and the first step twice.
        cycle = _rotate_cycle(error.args[1][:0:-1], position)
        raise InputError(f"{where(cycle[0])}: the steps wait for one another: {' -> '.join(cycle)}") from None
    ordered: list[Step] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        ordered += (by_name[name] for name in ready)
        sorter.done(*ready)
    return tuple(ordered)


def _rotate_cycle(cycle: list[str], position: Mapping[str, int]) -> list[str]:
    """Return the cycle so that it starts and ends with the step that was defined first."""
    start = min(range(len(cycle)), key=lambda index: position[cycle[index]])
    rotated = cycle[start:] + cycle[:start]
    return [*rotated, rotated[0]]


@dataclass(frozen=True)
class StepKey:
    """The current state of everything that a step's result depends on.

    Attributes:
        files: Input -> the digest of its content.
        values: `Step.values`: options, limits and versions.
    """

    files: Mapping[str, str]
    values: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The sha256 of files and values, in hexadecimal."""
        text = json.dumps([dict(self.files), self.values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StepRecord:
    """The record of a step's latest run.

    Attributes:
        step: The step's name.
        kind: The step's kind.
        key: The state of its inputs when it ran.
        outputs: Path -> the digest of each file that it wrote.
        seconds: The wall time, in s.
        code: The exit code: 0, or 1 for a check that was executed and failed.
        detail: A summary of the result.
        partial: The failed steps whose results are missing from this step's report.
        arguments: `Step.arguments` of that run.
    """

    step: str
    kind: StepKind
    key: StepKey
    outputs: Mapping[str, str]
    seconds: NotNegative
    code: Annotated[int, Range(0, 255)] = 0
    detail: str = ""
    partial: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def rerun_reasons(key: StepKey, record: StepRecord | None, now: Callable[[str], str]) -> list[str]:
    """Compare a step's key and outputs with its record.

    Args:
        key: The current key of the step.
        record: The record of its latest run, or None.
        now: Returns the current digest of a file.

    Returns:
        Why the step has to run, in words; empty if it is up to date.
    """
    if record is None:
        return ["it has not run yet"]
    reasons = [
        f"{path} {_describe_change(record.key.files.get(path), digest)}"
        for path, digest in key.files.items()
        if record.key.files.get(path) != digest
    ]
    reasons += [f"{path} is no longer read" for path in record.key.files if path not in key.files]
    reasons += [f"{name} changed" for name in _changed_values(record.key.values, key.values)]
    for path, digest in record.outputs.items():
        if now(path) != digest:
            reasons.append(f"{path} {'is missing' if now(path) == 'absent' else 'changed after this step wrote it'}")
    reasons += [f"{name} failed last time" for name in record.partial]
    return reasons


def _describe_change(before: str | None, after: str) -> str:
    if before is None:
        return "is newly read"
    return {before: "appeared", after: "is gone"}.get("absent", "changed")


def _changed_values(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the values that differ."""
    names = []
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            names += _changed_values(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(f"{prefix}{name}")
    return names

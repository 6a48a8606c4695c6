"""Experiment tracking as plain data: where runs are kept, what a run is made of, and the step that sends them there."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgekit._version import __version__
from edgekit.core.build.graph import Graph, Step, StepInput, StepKind
from edgekit.core.environment.atomic_files import sha256_file, to_json
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError

MLFLOW = Requirement("mlflow", "mlflow-skinny", "mlflow")

STEP_NAME = "track mlflow"
RECEIPT_FILE = "build/mlflow.json"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SCHEMES = ("http", "https", "file", "databricks", *DATABASES)
_ENTRY_POINTS = "mlflow.tracking_store"
_ALLOWED = "write a server (http://host:5000), a folder, a database (sqlite:///mlflow.db), or databricks"
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.\- ]")  # of what MLflow allows, what needs no quotes and is no separator here
_LONGEST_NAME = 60


def parse_uri(text: str, base: Path) -> str:
    """A tracking URI as MLflow takes it: folders, relative to `base`, become `file:` with the whole path.

    Raises InputError for what is none.
    """
    if not text.strip() or text != text.strip():
        raise InputError(f"the MLflow URI is {text!r}; {_ALLOWED}")
    try:
        parts = urlsplit(text)
        port = parts.port if parts.scheme in ("http", "https") else None
    except ValueError as error:
        raise InputError(f"the MLflow URI '{display_uri(text)}' cannot be read ({error}); {_ALLOWED}") from None
    if _HOST_AND_PORT.fullmatch(text):
        raise InputError(f"the MLflow URI '{text}' has no scheme; did you mean http://{text}?")
    if parts.scheme in ("http", "https"):
        if not parts.hostname or port == 0:
            raise InputError(f"the MLflow URI '{display_uri(text)}' names no server; {_ALLOWED}")
        return text.rstrip("/")
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _folder(base / unquote(parts.path))
    if not parts.scheme:
        return text if text == "databricks" else _folder(base / Path(text).expanduser())
    known = (*_SCHEMES, *(item.name for item in metadata.entry_points(group=_ENTRY_POINTS)))
    if parts.scheme == "file" or parts.scheme.partition("+")[0] not in known:
        nearest = difflib.get_close_matches(parts.scheme, known, 1)
        hint = f"; nearest: {nearest[0]}" if nearest and nearest[0] != parts.scheme else ""
        raise InputError(f"'{without_password(text)}' is no MLflow URI; {_ALLOWED}{hint}")
    return text


def _folder(path: Path) -> str:
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: MLflow keeps its runs in a folder, and this is a file; {_ALLOWED}")
    return path.as_uri()


def display_uri(uri: str) -> str:
    """The URI as it may be printed and kept: without name and password; a folder as its path."""
    if uri.startswith("file:"):
        return unquote(urlsplit(uri).path)
    return without_password(uri)


def without_password(uri: str) -> str:
    """The URI without name and password."""
    return re.sub(r"(?<=//)[^/]*@", "", uri)


@dataclass(frozen=True)
class Tracking:
    """Where runs are logged. `model_files`: whether with the model files, or only with what is known of them."""

    uri: str
    experiment: str
    model_files: bool = True


def tracking(uri: str, experiment: str | None, root: Path, base: Path, *, model_files: bool = True) -> Tracking:
    """Checked; the experiment is called as the project's folder unless it is named. Raises InputError.

    `root` is the project's, `base` is what a folder is relative to.
    """
    name = (root.name or "edgekit") if experiment is None else experiment.strip()
    if not name:
        raise InputError("the name of the experiment is empty; leave it out to have the name of the project's folder")
    return Tracking(parse_uri(uri, base), name, model_files)


def sanitize_name(*parts: str) -> str:
    """A name for a metric or parameter: the parts with a slash between them, none of which can be taken for two names.

    MLflow allows letters, digits and `_-./: `; a part that has others, or is too long, is told apart by its hash.
    """
    return "/".join(map(_legal, parts))


def _legal(part: str) -> str:
    plain = _ILLEGAL.sub("_", part)[:_LONGEST_NAME].strip() or "_"
    if plain == part and plain.strip("."):
        return part
    return f"{plain}-{hashlib.sha256(part.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Point:
    """One value of a metric; `step` counts epochs from 1, and is 0 where there is one value only."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class TrackedRun:
    """What one run of MLflow is made of, apart from who logs it and when.

    `files` are logged into the `folder` of the run, and so are `model_files`, if they are wanted; `texts` by their
    names in the run. `labels` are tags that say nothing of the content: the version that logged it. `below` is the
    digest of the run above it, `data` name and sha256 of what a model was trained on.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: tuple[Point, ...]
    files: tuple[Path, ...] = ()
    model_files: tuple[Path, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    below: str = ""
    folder: str | None = None
    data: tuple[str, str] | None = None

    @property
    def digest(self) -> str:
        """sha256 of what is logged. Model files count by the hashes in the tags, whether or not they are logged."""
        content: dict[str, Any] = {
            "name": self.name,
            "below": self.below,
            "tags": dict(self.tags),
            "params": dict(self.params),
            "metrics": [[item.name, item.value, item.step] for item in self.metrics],
            "files": {path.name: sha256_file(path) for path in self.files},
            "texts": dict(self.texts),
        }
        return hashlib.sha256(to_json(content).encode()).hexdigest()


@dataclass(frozen=True)
class ExistingRun:
    """A run that is there already. One that is not `finished` was cut short; `parent` is the id of the run above it.

    `has_page`: whether it was tried to make its page.
    """

    run_id: str
    finished: bool
    parent: str | None
    has_model_files: bool
    has_page: bool = False


@dataclass(frozen=True)
class ExperimentState:
    """An experiment, and edgekit's runs in it by their digests."""

    experiment_id: str
    runs: Mapping[str, ExistingRun]


@dataclass(frozen=True)
class RunIdentity:
    """What a run is told apart by: its digest, the id of the run above it, whether it has its model files."""

    digest: str
    parent: str | None
    model_files: bool


@dataclass(frozen=True)
class LoggedRun:
    """What became of one run: `new`, `completed` (it was cut short, or lacked its model file), or `there`."""

    label: str
    run_id: str
    state: str


@dataclass(frozen=True)
class TrackingResult:
    """Where everything was logged, and what became of each run."""

    uri: str
    experiment: str
    experiment_id: str
    runs: tuple[LoggedRun, ...]

    def count(self, state: str) -> int:
        """How many runs are in that state."""
        return sum(item.state == state for item in self.runs)

    @property
    def summary(self) -> str:
        """In a few words."""
        parts = [f"{self.count('new')} runs logged"]
        if self.count("completed"):
            parts.append(f"{self.count('completed')} completed")
        if self.count("there"):
            parts.append(f"{self.count('there')} already there")
        return f"{', '.join(parts)} in the experiment {self.experiment} at {self.uri}"


def with_tracking(graph: Graph, chosen: Tracking) -> Graph:
    """The graph with a last step that logs what its other steps found out; it replaces one that was there."""
    others = tuple(step for step in graph.steps if step.kind is not StepKind.TRACK)
    return Graph((*others, tracking_step(others, chosen)))


def _devices(steps: Sequence[Step], kind: StepKind) -> dict[str, list[str]]:
    """By artifact folder the devices of steps of a kind."""
    found: dict[str, list[str]] = {}
    for step in steps:
        if step.kind is kind and "device" in step.arguments:
            found.setdefault(step.arguments["folder"], []).append(step.arguments["device"])
    return found


def tracking_step(steps: Sequence[Step], chosen: Tracking) -> Step:
    """The step that logs what these steps find out."""
    before = [step for step in steps if not step.kind.runs_last]
    followed = {step.arguments["folder"] for step in before if step.kind is StepKind.DIFF}
    benched, emulated = (_devices(before, kind) for kind in (StepKind.BENCH, StepKind.VALIDATE))
    artifacts = [
        {
            **step.arguments,
            "folder": step.folder,
            "devices": benched.get(step.folder, []),
            "emulated": emulated.get(step.folder, []),
            "layers": step.folder in followed,
        }
        for step in before
        if step.kind is StepKind.EXPORT
    ]
    where = {"uri": display_uri(chosen.uri), "experiment": chosen.experiment, "model_files": chosen.model_files}
    return Step(
        STEP_NAME,
        StepKind.TRACK,
        RECEIPT_FILE,
        after=tuple(step.name for step in before),
        reads=tuple(StepInput(step.output) for step in before),
        values={"mlflow": where, "versions": {"edgekit": __version__}},
        arguments={"uri": chosen.uri, "artifacts": artifacts},
    )


def tracking_of(step: Step) -> Tracking:
    """Where a step logs to."""
    return replace(Tracking(**step.values["mlflow"]), uri=step.arguments["uri"])

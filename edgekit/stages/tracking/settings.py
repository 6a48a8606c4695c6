"""The plain data of experiment tracking: settings, the content of runs, and the step that logs them."""

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
# The record of what a tracking step has logged.
RECEIPT_FILE = "build/mlflow.json"
# The databases that MLflow supports, by URI scheme.
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# The URI schemes that MLflow supports without plug-ins.
_SCHEMES = ("http", "https", "file", "databricks", *DATABASES)
# The entry point group in which MLflow plug-ins register further schemes.
_ENTRY_POINTS = "mlflow.tracking_store"
_ALLOWED = "use a server (http://host:5000), a folder, a database (sqlite:///mlflow.db) or databricks"
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")


def parse_uri(text: str, base: Path) -> str:
    """Parse a tracking URI.

    Args:
        text: A URI that MLflow supports, or a folder.
        base: The folder that relative paths start from.

    Returns:
        The URI; a folder becomes a `file:` URI with its absolute path.

    Raises:
        InputError: The text is neither a supported URI nor a usable folder.
    """
    if not text.strip() or text != text.strip():
        raise InputError(f"the MLflow URI is {text!r}; {_ALLOWED}")
    try:
        parts = urlsplit(text)
        port = parts.port if parts.scheme in ("http", "https") else None
    except ValueError as error:
        raise InputError(f"the MLflow URI '{display_uri(text)}' is invalid ({error}); {_ALLOWED}") from None
    if _HOST_AND_PORT.fullmatch(text):
        raise InputError(f"the MLflow URI '{text}' has no scheme; did you mean http://{text}?")
    if parts.scheme in ("http", "https"):
        if not parts.hostname or port == 0:
            raise InputError(f"the MLflow URI '{display_uri(text)}' has no server name; {_ALLOWED}")
        return text.rstrip("/")
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _folder_uri(base / unquote(parts.path))
    if not parts.scheme:
        return text if text == "databricks" else _folder_uri(base / Path(text).expanduser())
    schemes = (*_SCHEMES, *(entry_point.name for entry_point in metadata.entry_points(group=_ENTRY_POINTS)))
    if parts.scheme == "file" or parts.scheme.partition("+")[0] not in schemes:
        nearest = difflib.get_close_matches(parts.scheme, schemes, 1)
        hint = f"; nearest: {nearest[0]}" if nearest and nearest[0] != parts.scheme else ""
        raise InputError(f"'{without_password(text)}' is not a valid MLflow URI; {_ALLOWED}{hint}")
    return text


def _folder_uri(path: Path) -> str:
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, but MLflow needs a folder for its runs; {_ALLOWED}")
    return path.as_uri()


def display_uri(uri: str) -> str:
    """Return a URI that may be printed and stored: without credentials; a folder as its path."""
    if uri.startswith("file:"):
        return unquote(urlsplit(uri).path)
    return without_password(uri)


def without_password(uri: str) -> str:
    """Return the URI without user name and password."""
    return re.sub(r"(?<=//)[^/]*@", "", uri)


@dataclass(frozen=True)
class Tracking:
    """The destination of experiment tracking.

    Attributes:
        uri: The tracking URI.
        experiment: The name of the experiment.
        model_files: Whether to log the model files as well as the results.
    """

    uri: str
    experiment: str
    model_files: bool = True


def tracking(uri: str, experiment: str | None, root: Path, base: Path, *, model_files: bool = True) -> Tracking:
    """Validate the settings of experiment tracking.

    Args:
        uri: The tracking URI, or a folder.
        experiment: The name of the experiment; None for the name of the project's folder.
        root: The project's folder.
        base: The folder that a relative `uri` starts from.
        model_files: Whether to log the model files.

    Returns:
        The settings.

    Raises:
        InputError: The URI is invalid, or the name of the experiment is empty.
    """
    name = (root.name or "edgekit") if experiment is None else experiment.strip()
    if not name:
        raise InputError("the name of the experiment is empty; omit it to use the name of the project's folder")
    return Tracking(parse_uri(uri, base), name, model_files)


@dataclass(frozen=True)
class Point:
    """One value of a metric; `step` is the epoch from 1, or 0 for a metric with a single value."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class TrackedRun:
    """The content of one MLflow run, independent of its author and time.

    Attributes:
        name: The name of the run.
        tags: The tags.
        params: The parameters.
        metrics: The values of metrics.
        files: The files to log into `folder`.
        model_files: The model files to log into `folder`, if `Tracking.model_files` is set.
        texts: Further files by name, with their text.
        labels: Tags that do not belong to the content, such as the version of edgekit.
        below: The digest of the parent run; empty for none.
        folder: The folder of the files in the run; None for its top level.
        data: Name and sha256 of the training data, or None.
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
        """The sha256 of the content. Model files count by their hashes in the tags, whether they are logged or not."""
        content: dict[str, Any] = {
            "name": self.name,
            "below": self.below,
            "tags": dict(self.tags),
            "params": dict(self.params),
            "metrics": [[point.name, point.value, point.step] for point in self.metrics],
            "files": {path.name: sha256_file(path) for path in self.files},
            "texts": dict(self.texts),
        }
        return hashlib.sha256(to_json(content).encode()).hexdigest()


@dataclass(frozen=True)
class ExistingRun:
    """A run that exists in MLflow.

    Attributes:
        run_id: The id of the run.
        finished: Whether the run is complete; otherwise it was interrupted.
        parent: The id of its parent run, or None.
        has_model_files: Whether the model files are logged.
        has_page: Whether its page was rendered, even if that was not possible.
    """

    run_id: str
    finished: bool
    parent: str | None
    has_model_files: bool
    has_page: bool = False


@dataclass(frozen=True)
class ExperimentState:
    """An experiment, with edgekit's runs by their digests."""

    experiment_id: str
    runs: Mapping[str, ExistingRun]


@dataclass(frozen=True)
class RunIdentity:
    """The identity of a run to log.

    Attributes:
        digest: The digest of its content.
        parent: The id of its parent run, or None.
        model_files: Whether to log its model files.
    """

    digest: str
    parent: str | None
    model_files: bool


@dataclass(frozen=True)
class LoggedRun:
    """The result of logging one run.

    Attributes:
        label: The name of the run.
        run_id: The id of the run.
        state: `new`, `completed` (it was interrupted, or its model files were missing) or `there` (it existed).
    """

    label: str
    run_id: str
    state: str


@dataclass(frozen=True)
class TrackingResult:
    """The result of tracking: the experiment and its runs."""

    uri: str
    experiment: str
    experiment_id: str
    runs: tuple[LoggedRun, ...]

    def count(self, state: str) -> int:
        """Return the number of runs in a state."""
        return sum(run.state == state for run in self.runs)

    @property
    def summary(self) -> str:
        """The result in one line."""
        parts = [f"{self.count('new')} runs logged"]
        if self.count("completed"):
            parts.append(f"{self.count('completed')} completed")
        if self.count("there"):
            parts.append(f"{self.count('there')} already there")
        return f"{', '.join(parts)} in the experiment {self.experiment} at {self.uri}"


def with_tracking(graph: Graph, destination: Tracking) -> Graph:
    """Add a step that logs the results of a graph, or replace an existing one.

    Args:
        graph: The graph.
        destination: Where to log.

    Returns:
        The graph, with the tracking step last.
    """
    others = tuple(step for step in graph.steps if step.kind is not StepKind.TRACK)
    return Graph((*others, tracking_step(others, destination)))


def _devices_by_folder(steps: Sequence[Step], kind: StepKind) -> dict[str, list[str]]:
    """Return the devices of the steps of a kind, by artifact folder."""
    devices: dict[str, list[str]] = {}
    for step in steps:
        if step.kind is kind and "device" in step.arguments:
            devices.setdefault(step.arguments["folder"], []).append(step.arguments["device"])
    return devices


def tracking_step(steps: Sequence[Step], destination: Tracking) -> Step:
    """Build the step that logs the results of other steps.

    Args:
        steps: The other steps.
        destination: Where to log.

    Returns:
        The step, which depends on all steps that do not run last themselves.
    """
    before = [step for step in steps if not step.kind.runs_last]
    with_layers = {step.arguments["folder"] for step in before if step.kind is StepKind.DIFF}
    benched, emulated = (_devices_by_folder(before, kind) for kind in (StepKind.BENCH, StepKind.VALIDATE))
    artifacts = [
        {
            **step.arguments,
            "folder": step.folder,
            "devices": benched.get(step.folder, []),
            "emulated": emulated.get(step.folder, []),
            "layers": step.folder in with_layers,
        }
        for step in before
        if step.kind is StepKind.EXPORT
    ]
    # `values` are written to records, so the URI there has no password; `arguments` has the complete one.
    settings = {
        "uri": display_uri(destination.uri),
        "experiment": destination.experiment,
        "model_files": destination.model_files,
    }
    return Step(
        STEP_NAME,
        StepKind.TRACK,
        RECEIPT_FILE,
        after=tuple(step.name for step in before),
        reads=tuple(StepInput(step.output) for step in before),
        values={"mlflow": settings, "versions": {"edgekit": __version__}},
        arguments={"uri": destination.uri, "artifacts": artifacts},
    )


def tracking_of(step: Step) -> Tracking:
    """Return the destination of a tracking step, with the complete URI."""
    return replace(Tracking(**step.values["mlflow"]), uri=step.arguments["uri"])

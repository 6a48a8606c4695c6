"""What every command shares: --root, --json, -q, -v; events to stderr; errors to exit codes."""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from edgekit.core.build.file_digests import FileDigests
    from edgekit.core.build.plan_cache import CachedPlan
    from edgekit.core.environment.project import Project
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.report import Report
    from edgekit.stages.context import Context
    from edgekit.stages.models.model_refs import UserModelOptions
    from edgekit.stages.tracking.settings import Tracking

_log = logging.getLogger("edgekit")


class CommandSession:
    """One run of one command: where it works, how much it says, and in which form it answers."""

    def __init__(self, root: Path, as_json: bool, verbosity: int) -> None:
        self.root = root
        self.as_json = as_json
        self.verbosity = verbosity

    @property
    def project(self) -> Project:
        """The project at --root."""
        from edgekit.core.environment.project import open_project

        return open_project(self.root)

    @contextmanager
    def context(self, timeout_s: float = 600.0, workers: int | None = None) -> Iterator[Context]:
        """The project, warm workers that end with the block, and a listener that writes to stderr.

        `timeout_s` is what one step of a worker may take, `workers` how many may wait for more work.
        """
        from edgekit.cli._progress import Watcher
        from edgekit.stages.context import Context
        from edgekit.workers.pool import WorkerPool

        with WorkerPool(timeout_s=timeout_s, limit=workers) as pool, Watcher(self.verbosity) as watcher:
            context = Context(self.project, pool, watcher)
            try:
                yield context
            finally:
                context.close()

    def answer(self, data: Any, text: str | Callable[[], str]) -> None:
        """The command's answer on stdout: a JSON document with --json, text otherwise."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2, allow_nan=False, default=str))
        else:
            click.echo(text() if callable(text) else text, nl=False)

    @property
    def color(self) -> bool:
        """Whether stdout is a terminal."""
        return sys.stdout.isatty()


def _terminate(_number: int, _frame: object) -> None:
    from edgekit.core.errors import Interrupted

    raise Interrupted("terminated")


def common(function: Callable[..., int | None]) -> Callable[..., None]:
    """Gives a command its common options, and turns its errors into sentences and exit codes.

    The function's first argument is the `Run`; what it returns is the exit code (None is 0).
    """

    @click.option(
        "--root", type=click.Path(path_type=Path), default=".", help="Project folder (default: the current folder)."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only results, warnings and errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more details, and the stderr of failed workers.")
    @functools.wraps(function)
    def wrapper(root: Path, as_json: bool, quiet: bool, verbose: bool, **arguments: Any) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            return  # a group: its subcommand answers, and takes these options from it
        outer = context.parent.params if context.parent else {}
        session = CommandSession(
            root if root != Path() else outer.get("root", root),
            as_json or outer.get("as_json", False),
            (verbose or outer.get("verbose", False)) - (quiet or outer.get("quiet", False)),
        )
        context.exit(_guarded(session, lambda: function(session, **arguments)))

    return wrapper


def _guarded(session: CommandSession, work: Callable[[], int | None]) -> int:
    from edgekit.core.errors import EdgekitError

    with _terminable():
        try:
            return work() or 0
        except EdgekitError as error:
            print_error(error, session)
            return error.exit_code
        except KeyboardInterrupt:
            _log.debug("interrupted", exc_info=True)
            click.echo("Interrupted: no partially written files remain.", err=True)
            return 130


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM stops a command as Ctrl-C does."""
    try:
        before = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not the main thread: somebody calls the command as a function
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_error(error: Any, session: CommandSession) -> None:
    """One sentence on stderr; with --json the error as a document on stdout; with -v the worker's last lines."""
    click.echo(f"Error: {error}", err=True)
    tail = getattr(error, "stderr_tail", "")
    if tail and session.verbosity > 0:
        click.echo(tail, err=True)
    if session.as_json:
        click.echo(json.dumps({"error": {**error.to_dict(), "exit_code": error.exit_code}}, indent=2, sort_keys=True))


def plan_of(session: CommandSession, digests: FileDigests, file: Path) -> tuple[CachedPlan, bool]:
    """The steps of the folder's edgekit.toml, and whether they are those that were kept in `file`.

    Nothing that needs a framework's plug-ins is imported where the kept ones will do.
    """
    from edgekit.cli._progress import Watcher
    from edgekit.core.build import plan_cache
    from edgekit.devices.host_machine import description

    root = session.project.root
    kept = plan_cache.load(file, root, digests, description())
    if kept is None:
        from edgekit.config.project import load_project
        from edgekit.stages.pipeline.plan import plan

        made = plan(session.project, load_project(root))
    else:
        made = kept
    watcher = Watcher(session.verbosity)
    for note in made.notes:
        watcher(note)
    return made, kept is not None


def waiting(process: str) -> None:
    """Print that another run holds the lock of the build folder."""
    click.echo(f"Another edgekit process is running in this folder (PID {process}); waiting for it to end.", err=True)


def artifact_data(artifact: Artifact) -> dict[str, Any]:
    """An artifact for --json: its folder and its manifest."""
    from dataclasses import asdict

    return {"folder": str(artifact.folder), "manifest": asdict(artifact.manifest)}


def failures(context: Context) -> list[dict[str, Any]]:
    """The steps that failed, for --json."""
    return [error.to_dict() for error in context.failures]


def _names(kind: str) -> list[str]:
    """Names to complete, from the folders; a completion never fails."""
    from edgekit.contracts.executor import EXECUTORS
    from edgekit.contracts.report import REPORTS
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.contracts.target import TARGETS
    from edgekit.core.environment.project import Project
    from edgekit.core.values.precisions import precision_names

    project = Project(Path.cwd())
    if kind == "target":
        targets = TARGETS.names()
        return [*targets, *(f"{target}:{precision}" for target in targets for precision in precision_names())]
    known: dict[str, Callable[[], list[str]]] = {
        "model": lambda: list(project.models()),
        "device": lambda: list(project.device_files()),
        "precision": lambda: list(precision_names()),
        "format": REPORTS.names,
        "runtime": RUNTIMES.names,
        "executor": EXECUTORS.names,
    }
    return known[kind]()


class RenamedOption(click.Option):
    """An option whose former names still work and are not shown in the help."""

    def __init__(self, *args: Any, former: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.former = tuple(former)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register the former names with the parser alone, which the help does not read."""
        shown = self.opts
        self.opts = [*shown, *self.former]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown


def complete(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A completer for names of models, targets, precisions, devices or report formats."""
    return lambda _context, _parameter, typed: [name for name in _names(kind) if name.startswith(typed)]


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Time limit of one step, in seconds.",
)


runtime_option = click.option(
    "--runtime",
    metavar="NAME",
    default="",
    shell_complete=complete("runtime"),
    help="Runtime to use instead of each target's default. See: edgekit targets",
)

executor_option = click.option(
    "--executor",
    "executors",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("executor"),
    help="Also run on this executor, such as 'emulated'; may be repeated.",
)


class ArtifactFilter(NamedTuple):
    """What the arguments and options of `selection_options` named: the fields of a `Selection`."""

    names: tuple[str, ...]
    framework: str | None
    targets: tuple[str, ...]
    precision: str | None


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL arguments, and --framework, --target, --precision to narrow them down; the command gets one `Choice`."""

    @click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete("model"))
    @click.option("--framework", metavar="keras|torch|both", help="Framework of the source models.")
    @click.option(
        "--target",
        "targets",
        metavar="NAME[:PRECISION]",
        multiple=True,
        shell_complete=complete("target"),
        help="Target format, or one variant of it; may be repeated. See: edgekit targets",
    )
    @click.option(
        "--precision",
        metavar="NAME",
        shell_complete=complete("precision"),
        help="Precision: float32, float16, dynamic, int8, int16x8 …",
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        models: tuple[str, ...],
        framework: str | None,
        targets: tuple[str, ...],
        precision: str | None,
        **options: Any,
    ) -> Any:
        return function(*args, choice=ArtifactFilter(models, framework, targets, precision), **options)

    return wrapper


class Mlflow(NamedTuple):
    """What the options of `mlflow_options` named."""

    uri: str | None
    experiment: str | None
    no_model_files: bool

    def tracking(self, session: CommandSession) -> Tracking | None:
        """Where to log, or None; folders are relative to where the command is called. Raises InputError,
        MissingDependency."""
        from edgekit.core.errors import InputError

        if self.uri is None:
            if self.experiment is not None or self.no_model_files:
                raise InputError("--experiment and --no-model-files have no effect without --mlflow; add: --mlflow URI")
            return None
        from edgekit.core.environment.requirements import require
        from edgekit.stages.tracking.settings import MLFLOW, tracking

        chosen = tracking(
            self.uri, self.experiment, session.project.root, Path.cwd(), model_files=not self.no_model_files
        )
        require((MLFLOW,), "--mlflow")
        return chosen


def mlflow_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--mlflow, --experiment, --no-model-files; the command gets one `Mlflow`."""

    @click.option("--mlflow", "uri", metavar="URI", help="Log the results to MLflow: a server, a folder or a database.")
    @click.option("--experiment", metavar="NAME", help="MLflow experiment (default: the name of the project folder).")
    @click.option("--no-model-files", is_flag=True, help="Do not upload the model files to MLflow.")
    @functools.wraps(function)
    def wrapper(*args: Any, uri: str | None, experiment: str | None, no_model_files: bool, **options: Any) -> Any:
        return function(*args, mlflow=Mlflow(uri, experiment, no_model_files), **options)

    return wrapper


def rendered(name: str, report: Report) -> str:
    """A report as text of the format."""
    from edgekit.contracts.report import REPORTS

    report_format = REPORTS.load(name)
    return report_format.render(report)


pair_option = click.option(
    "--pair", "pairs", metavar="A=B", multiple=True, help="Pair tensor A with tensor B; may be repeated."
)


def forced_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """What --pair names, as a mapping. Raises InputError for anything but A=B."""
    from edgekit.core.errors import InputError

    forced = dict(item.partition("=")[::2] for item in pairs)
    if not all(forced.values()) or not all(forced):
        raise InputError("--pair: write A=B, a tensor of the first model and one of the second")
    return forced


def own_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What can be said of a model of the user's own; `own_model` makes one value of it."""
    for option in reversed(
        (
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                help="Weights for a model from code: state dict, safetensors, .h5.",
            ),
            click.option(
                "--input", "inputs", metavar="NAME:SHAPE:DTYPE", multiple=True, help="Model input; may be repeated."
            ),
            click.option(
                "--sample",
                type=click.Path(path_type=Path),
                help="Real inputs by name (npz, npy); an array 'labels' enables accuracy.",
            ),
            click.option(
                "--calibration",
                metavar="PATH|FILE.py:FUNCTION",
                help="Calibration inputs for quantization: npz, npy, images or code.",
            ),
            click.option(
                "--image-range",
                nargs=2,
                type=float,
                default=(0.0, 1.0),
                help="Range that pixel values 0..255 are scaled to (default: 0 1).",
            ),
            click.option("--name", help="Name of your model (default: the name of its file)."),
            click.option(
                "--dim",
                "dims",
                metavar="NAME=SIZE",
                multiple=True,
                help="Fix a symbolic dimension, such as batch=1; may be repeated.",
            ),
        )
    ):
        function = option(function)
    return function


def own_model(options: dict[str, Any]) -> UserModelOptions:
    """What `own_model_options` were given."""
    from edgekit.stages.models.model_refs import UserModelOptions, parse_size

    keys = ("name", "weights", "inputs", "sample", "calibration", "image_range")
    return UserModelOptions(sizes=dict(map(parse_size, options["dims"])), **{key: options[key] for key in keys})

"""Options that commands share, and what several commands print."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edgekit.cli._session import CommandSession

if TYPE_CHECKING:
    from edgekit.core.build.file_digests import FileDigests
    from edgekit.core.build.plan_cache import CachedPlan
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.report import Report
    from edgekit.stages.context import Context
    from edgekit.stages.models.model_refs import UserModelOptions
    from edgekit.stages.tracking.settings import Tracking


_log = logging.getLogger("edgekit")


def load_plan(session: CommandSession, digests: FileDigests, file: Path) -> tuple[CachedPlan, bool]:
    """Return the pipeline of the project, from the plan cache if nothing has changed.

    Plug-ins are not imported if the cached plan is valid.

    Args:
        session: Names the project.
        digests: Hashes of the project's files.
        file: Plan cache.

    Returns:
        The plan, and whether it comes from the cache.

    Raises:
        InputError: edgekit.toml is missing or invalid.
    """
    from edgekit.cli._progress import Watcher
    from edgekit.core.build import plan_cache
    from edgekit.devices.host_machine import description

    root = session.project.root
    cached_plan = plan_cache.load(file, root, digests, description())
    reason = "planned anew: no saved plan fits the present files, packages and machine"
    _log.info("pipeline: %s", reason if cached_plan is None else "taken from the saved plan")
    if cached_plan is None:
        from edgekit.config.project import load_project
        from edgekit.stages.pipeline.plan import plan

        current_plan = plan(session.project, load_project(root))
    else:
        current_plan = cached_plan
    watcher = Watcher(session.verbosity)
    for note in current_plan.notes:
        watcher(note)
    return current_plan, cached_plan is not None


def print_waiting(process: str) -> None:
    """Print that another run holds the lock of the build folder."""
    click.echo(f"Another edgekit process is running in this folder (PID {process}); waiting for it to end.", err=True)


def artifact_data(artifact: Artifact) -> dict[str, Any]:
    """Return the folder and the manifest of an artifact for --json."""
    from dataclasses import asdict

    return {"folder": str(artifact.folder), "manifest": asdict(artifact.manifest)}


def failures(context: Context) -> list[dict[str, Any]]:
    """Return the errors of the failed steps for --json."""
    return [error.to_dict() for error in context.failures]


def _completion_names(kind: str) -> list[str]:
    """Return the names of a kind that shell completion offers, in the current folder."""
    from edgekit.config.board import BOARDS
    from edgekit.config.phone import PHONES
    from edgekit.contracts.executor import EXECUTORS
    from edgekit.contracts.report import REPORTS
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.contracts.target import TARGETS
    from edgekit.core.environment.project import Project
    from edgekit.core.values.precisions import precision_names
    from edgekit.devices.boards.places import device_names

    project = Project(Path.cwd())
    if kind == "target":
        targets = TARGETS.names()
        return [*targets, *(f"{target}:{precision}" for target in targets for precision in precision_names())]
    list_names: dict[str, Callable[[], list[str]]] = {
        "model": lambda: list(project.models()),
        "device": lambda: device_names(project),
        "board": lambda: sorted([*BOARDS.files(), *PHONES.files()]),
        "precision": lambda: list(precision_names()),
        "format": REPORTS.names,
        "runtime": RUNTIMES.names,
        "executor": EXECUTORS.names,
    }
    return list_names[kind]()


class FiniteFloat(click.FloatRange):
    """Range of numbers without infinity and NaN, which click accepts because NaN is not less than any limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class AliasedOption(click.Option):
    """Option with aliases that the help does not show."""

    def __init__(self, *args: Any, aliases: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases = tuple(aliases)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register the aliases only with the parser, because the help lists `opts`."""
        visible_names = self.opts
        self.opts = [*visible_names, *self.aliases]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = visible_names


def complete(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a shell completion callback for names.

    Args:
        kind: One of model, target, precision, device, board, format, runtime, executor.
    """
    return lambda _context, _parameter, typed: [name for name in _completion_names(kind) if name.startswith(typed)]


timeout_option = click.option(
    "--timeout",
    type=FiniteFloat(min=0, min_open=True),
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
    """Values of the `selection_options`: the fields of a `Selection`."""

    names: tuple[str, ...]
    framework: str | None
    targets: tuple[str, ...]
    precision: str | None


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add MODEL arguments, --framework, --target and --precision; the function receives an `artifact_filter`."""

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
        return function(*args, artifact_filter=ArtifactFilter(models, framework, targets, precision), **options)

    return wrapper


class MlflowOptions(NamedTuple):
    """Values of the `mlflow_options`.

    Attributes:
        uri: Server, folder or database; None does not log.
        experiment: Name of the experiment; None for the name of the project folder.
        no_model_files: Whether model files are not uploaded.
    """

    uri: str | None
    experiment: str | None
    no_model_files: bool

    def tracking(self, session: CommandSession) -> Tracking | None:
        """Return the tracking settings, or None without --mlflow.

        Relative folders refer to the current folder, not to the project.

        Raises:
            InputError: The other options are given without --mlflow, or the URI is invalid.
            MissingDependency: The MLflow client is not installed.
        """
        from edgekit.core.errors import InputError

        if self.uri is None:
            if self.experiment is not None or self.no_model_files:
                raise InputError("--experiment and --no-model-files have no effect without --mlflow; add: --mlflow URI")
            return None
        from edgekit.core.environment.requirements import require
        from edgekit.stages.tracking.settings import MLFLOW, tracking

        settings = tracking(
            self.uri, self.experiment, session.project.root, Path.cwd(), model_files=not self.no_model_files
        )
        require((MLFLOW,), "--mlflow")
        return settings


def mlflow_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --mlflow, --experiment and --no-model-files; the function receives `mlflow`, an `MlflowOptions`."""

    @click.option("--mlflow", "uri", metavar="URI", help="Log the results to MLflow: a server, a folder or a database.")
    @click.option("--experiment", metavar="NAME", help="MLflow experiment (default: the name of the project folder).")
    @click.option("--no-model-files", is_flag=True, help="Do not upload the model files to MLflow.")
    @functools.wraps(function)
    def wrapper(*args: Any, uri: str | None, experiment: str | None, no_model_files: bool, **options: Any) -> Any:
        return function(*args, mlflow=MlflowOptions(uri, experiment, no_model_files), **options)

    return wrapper


def render_report(name: str, report: Report) -> str:
    """Return the report as text in the named format."""
    from edgekit.contracts.report import REPORTS

    report_format = REPORTS.load(name)
    return report_format.render(report)


pair_option = click.option(
    "--pair", "pairs", metavar="A=B", multiple=True, help="Pair tensor A with tensor B; may be repeated."
)


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse the values of --pair.

    Args:
        pairs: Texts of the form A=B.

    Returns:
        Tensors of the second model by tensors of the first.

    Raises:
        InputError: A text is not of the form A=B.
    """
    from edgekit.core.errors import InputError

    counterparts = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(counterparts.values()) or not all(counterparts):
        raise InputError("--pair: write A=B, a tensor of the first model and one of the second")
    return counterparts


def fix_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that makes inputs constant."""
    return click.option(
        "--fix",
        "fixed",
        metavar="NAME=VALUE",
        multiple=True,
        help="Make an input a constant, such as sr=16000; may be repeated.",
    )(function)


def user_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a model of the user; `user_model` collects their values."""
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
                metavar="PATH|FILE.py:FUNCTION|synthetic",
                help="Calibration inputs for quantization: npz, npy, images, code, or made without data (synthetic).",
            ),
            click.option(
                "--image-range",
                nargs=2,
                type=float,
                default=(0.0, 1.0),
                help="Range that pixel values 0..255 are scaled to (default: 0 1).",
            ),
            click.option(
                "--signature",
                metavar="NAME",
                help="Signature of a SavedModel (default: serving_default, or the only one).",
            ),
            click.option("--name", help="Name of your model (default: the name of its file)."),
            click.option(
                "--dim",
                "dims",
                metavar="NAME=SIZE",
                multiple=True,
                help="Fix a symbolic dimension, such as batch=1; may be repeated.",
            ),
            fix_option,
            click.option(
                "--preprocess",
                metavar="NAME:KEY=VALUE,…",
                multiple=True,
                help="Put steps from the application's images to an input into the files, such as"
                " image:size=480x640,scale=1/255; may be repeated.",
            ),
        )
    ):
        function = option(function)
    return function


def user_model(options: dict[str, Any]) -> UserModelOptions:
    """Collect the values of `user_model_options`.

    Args:
        options: Values of the command's options by parameter name.

    Raises:
        InputError: A --dim or --fix is not of the form NAME=VALUE, or an end of --image-range is not finite.
    """
    from edgekit.core.errors import InputError
    from edgekit.core.values.fixed_inputs import parse_fixed
    from edgekit.stages.models.model_refs import UserModelOptions, parse_size

    low, high = options["image_range"]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"--image-range: write two finite numbers (got {low} {high})")
    keys = ("name", "weights", "inputs", "sample", "calibration", "image_range", "signature", "preprocess")
    return UserModelOptions(
        sizes=dict(map(parse_size, options["dims"])),
        fixed=dict(map(parse_fixed, options["fixed"])),
        **{key: options[key] for key in keys},
    )

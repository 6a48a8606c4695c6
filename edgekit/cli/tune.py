"""edgekit tune"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.cli._common import artifact_data, complete, timeout_option, user_model, user_model_options
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.tuning import Candidate, Tuning
    from edgekit.stages.context import Context
    from edgekit.stages.tuning.tune import TuneOptions

T = TypeVar("T")


@click.command("tune", short_help="Find the mixed precision that meets your limits best.")
@click.argument("model", shell_complete=complete("model"))
@click.option(
    "--framework", metavar="keras|torch", help="Framework of the source model (default: the first trained one)."
)
@click.option("--target", default="tflite", show_default=True, shell_complete=complete("target"), help="Target format.")
@click.option("--max-drop", metavar="SHARE", default="1%", show_default=True, help="Maximum loss of accuracy.")
@click.option("--max-size", metavar="SIZE", help='Maximum size of the model file, such as "300 KB".')
@click.option("--max-latency", metavar="DURATION", help="Maximum latency of one inference in --tier, such as 5ms.")
@click.option(
    "--max-float", metavar="SHARE", default="25%", show_default=True, help="Maximum share of the weights kept in float."
)
@click.option("--device", metavar="NAME", shell_complete=complete("device"), help="Measure under this device profile.")
@click.option(
    "--tier",
    type=click.Choice(["host", "emulated", "device"]),
    default="host",
    show_default=True,
    help="Tier of the latency.",
)
@click.option(
    "--prefer",
    type=click.Choice(["latency", "size", "accuracy"]),
    default="latency",
    show_default=True,
    help="What to optimize among the candidates that meet the limits.",
)
@click.option(
    "--time-limit", metavar="DURATION", help="Stop after this time and use the best candidate so far: 90s, 2m."
)
@click.option("--keep-best", is_flag=True, help="Write the nearest candidate if none meets the limits.")
@user_model_options
@timeout_option
@common_options
def command(
    session: CommandSession, model: str, framework: str | None, target: str, timeout: float, **options: Any
) -> int:
    """Search the precisions of a target for the variant that meets the limits best, and write it as an artifact.

    Uniform precisions are tried first. If int8 loses too much accuracy, the search tries other calibration methods,
    then measures the sensitivity of single layers, keeps as few layers as possible in float, and finally tries int16
    activations instead of float. Every candidate is converted and run.

    The drop is the loss of the task metric on the test set: percentage points of accuracy or AUC, or the relative
    increase of an error. Without labels, it is the relative error of the outputs (1% is an SQNR of 40 dB). The best
    candidate must also be within the tolerances of `edgekit validate`. Latency is measured only for candidates that
    meet the other limits.

    The result is written to build/MODEL/KIND/TARGET-PRECISION-tuned, with its recipe in recipe.json. If no candidate
    meets the limits, the exit code is 1 and nothing is written.

    \b
    Example:
      edgekit tune simple_cnn --max-drop 1% --max-size 300KB --device raspberry-pi-4b
      edgekit tune detector.onnx --sample photos.npz --target onnx --max-drop 0.5% --prefer size
    """
    from dataclasses import asdict

    from edgekit.stages.conversion import export_plans, routes
    from edgekit.stages.models import model_refs
    from edgekit.stages.tuning import tune

    plugin = routes.load_target(target)
    tune_options = _tune_options(session, **options)
    model_options = user_model(options)
    with session.context(timeout) as context:
        groups = model_refs.resolve(context, (model,), framework, model_options)
        name, kind = groups[0].models[0], _source_kind(context, plugin.name, groups[0].kinds, groups[0].models[0])
        settings = export_plans.ExportSettings(sizes=model_options.sizes or {})
        tuning, artifact = tune.tune(context, name, kind, plugin, settings, tune_options)
    data = {
        **asdict(tuning),
        "sensitivities": [sensitivity.to_dict() for sensitivity in tuning.sensitivities],
        "front": [candidate.sha256 for candidate in tuning.front],
        "artifact": None if artifact is None else artifact_data(artifact),
    }
    session.print_result(data, lambda: _render(tuning, artifact, session))
    return 0 if tuning.winner is not None else 1


def _source_kind(context: Context, target: str, kinds: tuple[str, ...], model: str) -> str:
    """Return the kind of the source to tune: the first trained one, otherwise the first."""
    from edgekit.core.events import NoteEvent

    trained = [kind for kind in kinds if context.project.is_trained(model, kind)]
    kind = (trained or list(kinds))[0]
    if len(kinds) > 1:
        context.emit(NoteEvent(f"tune {model} {target}", f"using the {kind} source; choose another with --framework"))
    return kind


def _tune_options(session: CommandSession, **options: Any) -> TuneOptions:
    from edgekit.core.errors import InputError
    from edgekit.core.units import parse_bytes, parse_seconds, parse_share
    from edgekit.core.values.specs import HOST
    from edgekit.devices.boards.places import find_place, measuring_executor
    from edgekit.stages.benchmark.bench import BenchOptions
    from edgekit.stages.tuning.tune import TuneOptions

    device, tier = options["device"], options["tier"]
    if tier == "emulated" and device is None:
        raise InputError("the emulated tier needs a device; pass --device NAME")
    if tier == "device" and (device is None or not measuring_executor(device)):
        raise InputError(
            "the tier device needs a board or a phone, which edgekit devices add adds, or a browser; pass --device NAME"
        )
    latency_s = _parse_option("--max-latency", options["max_latency"], parse_seconds)
    return TuneOptions(
        max_drop=_parse_option("--max-drop", options["max_drop"], parse_share) or 0.0,
        max_size_bytes=_parse_option("--max-size", options["max_size"], parse_bytes),
        max_latency_ms=None if latency_s is None else 1000 * latency_s,
        max_float_share=_parse_option("--max-float", options["max_float"], parse_share) or 0.0,
        device=device or HOST,
        profile=None if device is None else find_place(session.project, device).profile,
        tier=tier,
        preference=options["prefer"],
        time_limit_s=_parse_option("--time-limit", options["time_limit"], parse_seconds),
        keep_best=options["keep_best"],
        bench=BenchOptions(emulated=tier == "emulated"),
    )


def _parse_option(name: str, text: str | None, parse: Callable[[str], T]) -> T | None:
    from edgekit.core.errors import InputError

    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None


def _render(tuning: Tuning, artifact: Artifact | None, session: CommandSession) -> str:
    from edgekit.core.units import format_seconds
    from edgekit.reports.console import sensitivity_table, table

    header = ("candidate", "size", "SQNR dB", "drop (95 %)", "float", tuning.tier, "verdict")
    front = {candidate.sha256 for candidate in tuning.front}
    rows = [_candidate_row(tuning, candidate, candidate.sha256 in front) for candidate in tuning.candidates]
    parts = [table(header, rows, left=1, color=session.color)]
    parts.append("* not dominated in size, drop and latency; float: share of the weights kept in float\n")
    parts.append(line(f"drop: {tuning.judged_by}"))
    if tuning.sensitivities:
        parts.append("\n" + sensitivity_table(tuning.sensitivities, tuning.constraints.drop_factor, session.color))
    parts.append(_render_conclusion(tuning))
    if artifact is not None:
        folder = _relative_path(artifact.folder)
        model = (
            f"{tuning.model} --framework {tuning.kind}" if tuning.model in session.project.models() else tuning.model
        )
        parts.append(
            line(str(folder)) + line(f"reproduce it with: edgekit export {model} --recipe {folder}/recipe.json")
        )
    parts.append(line(f"{len(tuning.candidates)} candidates in {format_seconds(tuning.seconds)}"))
    return "".join(parts)


def _relative_path(path: Path) -> Path:
    """Return the path relative to the current folder if it is inside it."""
    from pathlib import Path

    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _candidate_row(tuning: Tuning, candidate: Candidate, in_front: bool) -> tuple[str, ...]:
    from edgekit.core.units import format_bytes, format_ms

    limits = tuning.constraints
    interval = None if candidate.drift is None else candidate.drift.interval
    is_best = tuning.winner is not None and tuning.winner.sha256 == candidate.sha256
    factor = limits.drop_factor
    digits = ".1f" if limits.drop_unit else ".2g"
    interval_text = (
        "" if interval is None else f" ({factor * interval.low:{digits}}..{factor * interval.high:{digits}})"
    )
    return (
        f"{'*' if in_front else '-'} {candidate.recipe}",
        format_bytes(candidate.size_bytes),
        "exact" if candidate.sqnr_db is None else f"{candidate.sqnr_db:.1f}",
        f"{factor * candidate.drop:+.3g}{interval_text}",
        f"{100 * candidate.float_share:.0f}%",
        "-" if candidate.latency_ms is None else format_ms(candidate.latency_ms),
        "BEST"
        if is_best
        else " ".join(candidate.breaks(limits)) or ("meets" if candidate.meets(limits) else "not measured"),
    )


def _render_conclusion(tuning: Tuning) -> str:
    if tuning.winner is not None:
        return "\n" + line(f"best by {tuning.preference}: {tuning.target}:{tuning.winner.recipe}")
    misses = "; ".join(tuning.nearest.broken(tuning.constraints)) or "the latency could not be measured"
    return "\n" + line(f"NOTHING meets the limits; nearest is {tuning.target}:{tuning.nearest.recipe}: {misses}")

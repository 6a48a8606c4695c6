"""edgekit tune"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.cli._common import (
    CommandSession,
    artifact_data,
    common,
    complete,
    own_model,
    own_model_options,
    timeout_option,
)

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
    "--tier", type=click.Choice(["host", "emulated"]), default="host", show_default=True, help="Tier of the latency."
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
@own_model_options
@timeout_option
@common
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

    from edgekit.stages.conversion import export, routes
    from edgekit.stages.models import model_refs
    from edgekit.stages.tuning import tune

    plugin = routes.load_target(target)
    chosen = _options(session, **options)
    own = own_model(options)
    with session.context(timeout) as context:
        groups = model_refs.resolve(context, (model,), framework, own)
        name, kind = groups[0].models[0], _kind(context, plugin.name, groups[0].kinds, groups[0].models[0])
        settings = export.ExportSettings(sizes=own.sizes or {})
        found, artifact = tune.tune(context, name, kind, plugin, settings, chosen)
    data = {
        **asdict(found),
        "front": [item.sha256 for item in found.front],
        "artifact": None if artifact is None else artifact_data(artifact),
    }
    session.answer(data, lambda: _text(found, artifact, session))
    return 0 if found.winner is not None else 1


def _kind(context: Context, target: str, kinds: tuple[str, ...], model: str) -> str:
    """The source to tune: the first that is there already, else the first."""
    from edgekit.core.events import Noted

    there = [kind for kind in kinds if context.project.is_trained(model, kind)]
    chosen = (there or list(kinds))[0]
    if len(kinds) > 1:
        context.emit(Noted(f"tune {model} {target}", f"using the {chosen} source; choose another with --framework"))
    return chosen


def _options(session: CommandSession, **options: Any) -> TuneOptions:
    from edgekit.config.device_profile import load_profile
    from edgekit.core.errors import InputError
    from edgekit.core.units import parse_bytes, parse_seconds, parse_share
    from edgekit.core.values.specs import HOST
    from edgekit.stages.benchmark.bench import BenchOptions
    from edgekit.stages.tuning.tune import TuneOptions

    device, tier = options["device"], options["tier"]
    if tier == "emulated" and device is None:
        raise InputError("the emulated tier needs a device; pass --device NAME")
    latency_s = _parsed("--max-latency", options["max_latency"], parse_seconds)
    return TuneOptions(
        max_drop=_parsed("--max-drop", options["max_drop"], parse_share) or 0.0,
        max_size_bytes=_parsed("--max-size", options["max_size"], parse_bytes),
        max_latency_ms=None if latency_s is None else 1000 * latency_s,
        max_float_share=_parsed("--max-float", options["max_float"], parse_share) or 0.0,
        device=device or HOST,
        profile=None if device is None else load_profile(session.project.device_file(device)),
        tier=tier,
        preference=options["prefer"],
        time_limit_s=_parsed("--time-limit", options["time_limit"], parse_seconds),
        keep_best=options["keep_best"],
        bench=BenchOptions(emulated=tier == "emulated"),
    )


def _parsed(name: str, text: str | None, parse: Callable[[str], T]) -> T | None:
    from edgekit.core.errors import InputError

    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None


def _text(found: Tuning, artifact: Artifact | None, session: CommandSession) -> str:
    from edgekit.core.units import format_seconds
    from edgekit.reports.console import sensitivity_table, table

    header = ("candidate", "size", "SQNR dB", "drop (95 %)", "float", found.tier, "verdict")
    front = {item.sha256 for item in found.front}
    rows = [_candidate(found, item, item.sha256 in front) for item in found.candidates]
    parts = [table(header, rows, left=1, color=session.color)]
    parts.append("* not dominated in size, drop and latency; float: share of the weights kept in float\n")
    parts.append(f"drop: {found.judged_by}\n")
    if found.sensitivities:
        parts.append("\n" + sensitivity_table(found.sensitivities, found.constraints.drop_factor, session.color))
    parts.append(_conclusion(found))
    if artifact is not None:
        folder = _from_here(artifact.folder)
        whose = f" --framework {found.kind}" if found.model in session.project.models() else ""
        parts.append(
            f"{folder}\nreproduce it with: edgekit export {found.model}{whose} --recipe {folder}/recipe.json\n"
        )
    parts.append(f"{len(found.candidates)} candidates in {format_seconds(found.seconds)}\n")
    return "".join(parts)


def _from_here(path: Path) -> Path:
    """As a person would write it."""
    from pathlib import Path

    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _candidate(found: Tuning, item: Candidate, front: bool) -> tuple[str, ...]:
    from edgekit.core.units import format_bytes, format_ms

    limits = found.constraints
    interval = None if item.drift is None else item.drift.interval
    best = found.winner is not None and found.winner.sha256 == item.sha256
    factor = limits.drop_factor
    digits = ".1f" if limits.drop_unit else ".2g"
    between = "" if interval is None else f" ({factor * interval.low:{digits}}..{factor * interval.high:{digits}})"
    return (
        f"{'*' if front else '-'} {item.recipe}",
        format_bytes(item.size_bytes),
        "exact" if item.sqnr_db is None else f"{item.sqnr_db:.1f}",
        f"{factor * item.drop:+.3g}{between}",
        f"{100 * item.float_share:.0f}%",
        "-" if item.latency_ms is None else format_ms(item.latency_ms),
        "BEST" if best else " ".join(item.breaks(limits)) or ("meets" if item.meets(limits) else "not measured"),
    )


def _conclusion(found: Tuning) -> str:
    if found.winner is not None:
        return f"\nbest by {found.preference}: {found.target}:{found.winner.recipe}\n"
    close = "; ".join(found.nearest.broken(found.constraints)) or "the latency could not be measured"
    return f"\nNOTHING meets the limits; nearest is {found.target}:{found.nearest.recipe}: {close}\n"

"""edgekit micro"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import ArtifactFilter, complete, failures, selection_options, timeout_option
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.stages.benchmark.micro import MicroFit
    from edgekit.stages.benchmark.npu_job import NpuFit


@click.command("micro", short_help="Run TFLite artifacts in TensorFlow Lite Micro; write C files.")
@selection_options
@click.option(
    "--device",
    metavar="NAME",
    shell_complete=complete("device"),
    help="Microcontroller profile: check that the model fits into RAM and flash.",
)
@click.option("--emit-c", "folder", type=click.Path(path_type=Path), help="Write C files into this folder.")
@click.option(
    "--npu", metavar="NAME", help="Also compile for this Arm Ethos-U, such as ethos-u55-128, and print estimates."
)
@timeout_option
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
    device: str | None,
    folder: Path | None,
    npu: str | None,
    timeout: float,
) -> int:
    """Run TFLite artifacts with the kernels of TensorFlow Lite Micro; without a MODEL, everything in build/.

    Prints the smallest arena that works, in exact bytes, unsupported operators, and the error of the outputs against
    the source. The arena is that of a 64-bit host: on a 32-bit core its tail, which holds pointers, is smaller. "code"
    estimates the flash that the interpreter and the operators need on a Cortex-M with reference kernels. With --device,
    the latency of int8 models is estimated from published timings of the device (see: edgekit devices fit). -v also
    prints the code size of each operator and the lifetime of each tensor. --emit-c writes a header, the model as an
    array, and the list of operators to register.

    MODEL may also be a .tflite file: its outputs are compared with those of LiteRT, on random samples.

    The exit code is 1 if an artifact is not equivalent to its source, or does not fit the device.

    \b
    Example:
      edgekit micro --target tflite:int8
      edgekit micro resnet8 --target tflite:int8 --device stm32l4r5-nucleo -v
      edgekit micro keyword.tflite --device stm32l4r5-nucleo --emit-c firmware/models
      edgekit micro ds_cnn --target tflite:int8 --emit-c firmware/models
      edgekit micro --target tflite:int8 --npu ethos-u55-128
    """
    from dataclasses import asdict

    from edgekit.reports.console import table
    from edgekit.stages.benchmark.micro import c_name, device_of, emit_c, micro, on_npu
    from edgekit.stages.selection import Selection, artifacts

    with session.context(timeout) as context:
        profile = None if device is None else device_of(context, device)
        selected = artifacts(context, Selection(*artifact_filter), files=True)
        npu_fits = () if npu is None else on_npu(context, selected, npu)
        fits = micro(context, selected, profile)
        written = [] if folder is None else [emit_c(fit, folder / c_name(fit.artifact)) for fit in fits]
    data = {
        "artifacts": [fit.data() for fit in fits],
        "written": list(map(str, written)),
        "npu": [{**asdict(fit), "on_npu": fit.on_npu} for fit in npu_fits],
        "failures": failures(context),
    }
    header = ("model", "variant", "arena", "model", "code", "latency", "max err", "verdict")
    text = table(header, list(_table_rows(fits)), left=2, color=session.color)
    text += _latency_notes(fits) + _code_notes(fits)
    text += "".join((*_lifetime_lines(fits), *_code_lines(fits))) if session.verbosity > 0 else ""
    text += _render_npu(npu_fits, session) if npu_fits else ""
    text += "".join(line(str(path)) for path in written)
    session.print_result(data, text)
    return max(context.exit_code, 0 if all(fit.passed for fit in fits) else 1)


def _table_rows(fits: Sequence[MicroFit]) -> Iterator[tuple[str, ...]]:
    from edgekit.core.numerics.output_comparison import format_figure
    from edgekit.core.units import format_bytes

    for fit in fits:
        manifest = fit.artifact.manifest
        errors = [value for comparison in fit.comparisons if (value := comparison.value("max_abs_error")) is not None]
        verdict = "; ".join(fit.problems) or ("runs" if fit.passed else "NOT EQUIVALENT")
        sizes = (fit.arena.total_bytes, fit.flash_bytes)
        error = format_figure(max(errors)) if errors else ""
        yield (
            f"{manifest.model}/{manifest.source['kind']}",
            str(manifest.variant),
            *map(format_bytes, sizes),
            "" if fit.code is None else f"~{format_bytes(fit.code.code_bytes)}",
            _format_latency(fit),
            error,
            verdict,
        )


def _format_latency(fit: MicroFit) -> str:
    """Return the latency with its interval, or "uncalibrated" for a device without published timings."""
    from edgekit.core.units import format_ms

    if fit.latency is None:
        return "" if fit.device is None else "uncalibrated"
    width = fit.latency.high_ms / fit.latency.latency_ms - 1
    return f"{format_ms(fit.latency.latency_ms)} +-{100 * width:.0f} %"


def _latency_notes(fits: Sequence[MicroFit]) -> str:
    """Return one line for each origin of the latencies."""
    texts = {fit.latency.text: None for fit in fits if fit.latency is not None}
    return "".join(line(f"latency: analytic, {text}") for text in texts)


def _code_notes(fits: Sequence[MicroFit]) -> str:
    """Return one line with the origin of the code sizes and the operators that they do not include."""
    code_sizes = [fit.code for fit in fits if fit.code is not None]
    missing = dict.fromkeys(name for code in code_sizes for name in code.missing)
    without = f"; not included, because their code is unknown: {', '.join(missing)}" if missing else ""
    return line(f"code: estimated {code_sizes[0].text}{without}") if code_sizes else ""


def _code_lines(fits: Sequence[MicroFit]) -> Iterator[str]:
    """Yield the code sizes of the interpreter and of each operator; shared code counts for every operator."""
    from edgekit.core.units import format_bytes

    for fit in fits:
        if fit.code is not None:
            rows = [("interpreter", fit.code.interpreter_bytes), *fit.code.operators]
            size_range = f"{format_bytes(fit.code.low_bytes)} to {format_bytes(fit.code.high_bytes)}"
            yield "\n" + line(f"{fit.artifact.label}, code: {size_range} of flash; each operator by itself:")
            yield from (line(f"  {name:<32} {format_bytes(size):>8}") for name, size in rows)


def _render_npu(npu_fits: Sequence[NpuFit], session: CommandSession) -> str:
    """Return the table of Vela's estimates; with --verbose, also the cycles of each layer."""
    from edgekit.core.units import format_bytes
    from edgekit.reports.console import table

    rows = [
        (
            fit.artifact,
            f"{fit.cycles:,}",
            f"{fit.latency_ms:.3g} ms at {fit.clock_mhz:g} MHz",
            format_bytes(fit.sram_bytes),
            format_bytes(fit.flash_bytes),
            f"{fit.on_npu:.0%}",
        )
        for fit in npu_fits
    ]
    header = (f"{npu_fits[0].accelerator}, estimated by Vela", "cycles", "latency", "SRAM", "flash", "on the NPU")
    text = "\n" + table(header, rows, left=1, color=session.color)
    if session.verbosity > 0:
        layers = [
            (fit.artifact, layer.operator, "NPU" if layer.on_npu else "CPU", f"{layer.cycles:,}", layer.name[-40:])
            for fit in npu_fits
            for layer in fit.layers
            if layer.cycles
        ]
        text += "\n" + table(("model", "operator", "on", "cycles", "name"), layers, left=3, color=session.color)
    return text


def _lifetime_lines(fits: Sequence[MicroFit]) -> Iterator[str]:
    """Yield the lifetime of each tensor as a bar over the operators, with the tensors at the peak marked."""
    from edgekit.core.records.memory_plan import render_timeline
    from edgekit.core.units import format_bytes

    for fit in fits:
        yield "\n" + line(f"{fit.artifact.label}: lifetimes of tensors over the operators; * alive at the peak")
        for lifetime, bar in zip(fit.tensor_lifetimes, render_timeline(fit.tensor_lifetimes), strict=True):
            mark = "*" if lifetime in fit.peak.tensors else " "
            yield line(f"{mark} {bar} {format_bytes(lifetime.size_bytes):>9}  {lifetime.name[-50:]}")
        head, tail = format_bytes(fit.arena.head_bytes), format_bytes(fit.arena.tail_bytes)
        yield line(f"  arena: {head} of tensors at its head, {tail} of metadata at its tail")
        yield line(f"  peak: {format_bytes(fit.peak.size_bytes)} of live tensors, in operator {fit.peak.operator}")

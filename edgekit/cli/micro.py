"""edgekit micro"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import (
    ArtifactFilter,
    CommandSession,
    common,
    complete,
    failures,
    selection_options,
    timeout_option,
)

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
@common
def command(
    session: CommandSession,
    choice: ArtifactFilter,
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

    The exit code is 1 if an artifact is not equivalent to its source, or does not fit the device.

    \b
    Example:
      edgekit micro --target tflite:int8
      edgekit micro resnet8 --target tflite:int8 --device stm32l4r5-nucleo -v
      edgekit micro ds_cnn --target tflite:int8 --emit-c firmware/models
      edgekit micro --target tflite:int8 --npu ethos-u55-128
    """
    from dataclasses import asdict

    from edgekit.reports.console import table
    from edgekit.stages.benchmark.micro import c_name, device_of, emit_c, micro, on_npu
    from edgekit.stages.selection import Selection, artifacts

    with session.context(timeout) as context:
        profile = None if device is None else device_of(context, device)
        chosen = artifacts(context, Selection(*choice))
        compiled = () if npu is None else on_npu(context, chosen, npu)
        done = micro(context, chosen, profile)
        written = [] if folder is None else [emit_c(item, folder / c_name(item.artifact)) for item in done]
    data = {
        "artifacts": [item.data() for item in done],
        "written": list(map(str, written)),
        "npu": [{**asdict(item), "on_npu": item.on_npu} for item in compiled],
        "failures": failures(context),
    }
    header = ("model", "variant", "arena", "model", "code", "latency", "max err", "verdict")
    text = table(header, list(_rows(done)), left=2, color=session.color)
    text += _fitted(done) + _counted(done)
    text += "".join((*_lives(done), *_code(done))) if session.verbosity > 0 else ""
    text += _npu_table(compiled, session) if compiled else ""
    text += "".join(f"{path}\n" for path in written)
    session.answer(data, text)
    return max(context.exit_code, 0 if all(item.passed for item in done) else 1)


def _rows(done: Sequence[MicroFit]) -> Iterator[tuple[str, ...]]:
    from edgekit.core.numerics.output_comparison import format_figure
    from edgekit.core.units import format_bytes

    for item in done:
        manifest = item.artifact.manifest
        errors = [value for found in item.comparisons if (value := found.value("max_abs_error")) is not None]
        verdict = "; ".join(item.problems) or ("runs" if item.passed else "NOT EQUIVALENT")
        sizes = (item.arena.total_bytes, item.flash_bytes)
        error = format_figure(max(errors)) if errors else ""
        yield (
            f"{manifest.model}/{manifest.source['kind']}",
            str(manifest.variant),
            *map(format_bytes, sizes),
            "" if item.code is None else f"~{format_bytes(item.code.code_bytes)}",
            _latency(item),
            error,
            verdict,
        )


def _latency(item: MicroFit) -> str:
    """With its interval; where no timings of the device are published, it says so."""
    from edgekit.core.units import format_ms

    if item.latency is None:
        return "" if item.device is None else "uncalibrated"
    width = item.latency.high_ms / item.latency.latency_ms - 1
    return f"{format_ms(item.latency.latency_ms)} +-{100 * width:.0f} %"


def _fitted(done: Sequence[MicroFit]) -> str:
    """What the latencies rest on."""
    found = {item.latency.text: None for item in done if item.latency is not None}
    return "".join(f"latency: analytic, {text}\n" for text in found)


def _counted(done: Sequence[MicroFit]) -> str:
    """What the sizes of code rest on, and which operators are not in them."""
    found = [item.code for item in done if item.code is not None]
    missing = dict.fromkeys(name for code in found for name in code.missing)
    without = f"; without {', '.join(missing)}, of which it has no code" if missing else ""
    return f"code: estimated {found[0].text}{without}\n" if found else ""


def _code(done: Sequence[MicroFit]) -> Iterator[str]:
    """What the interpreter takes, and what each operator adds to it alone; what several share is in each of them."""
    from edgekit.core.units import format_bytes

    for item in done:
        if item.code is not None:
            rows = [("interpreter", item.code.interpreter_bytes), *item.code.operators]
            between = f"{format_bytes(item.code.low_bytes)} to {format_bytes(item.code.high_bytes)}"
            yield f"\n{item.artifact.label}, code {between} of flash, by operator alone\n"
            yield from (f"  {name:<32} {format_bytes(size):>8}\n" for name, size in rows)


def _npu_table(compiled: Sequence[NpuFit], session: CommandSession) -> str:
    """What Vela estimates; with -v, each layer's cycles."""
    from edgekit.core.units import format_bytes
    from edgekit.reports.console import table

    rows = [
        (
            item.artifact,
            f"{item.cycles:,}",
            f"{item.latency_ms:.3g} ms at {item.clock_mhz:g} MHz",
            format_bytes(item.sram_bytes),
            format_bytes(item.flash_bytes),
            f"{item.on_npu:.0%}",
        )
        for item in compiled
    ]
    header = (f"{compiled[0].accelerator}, by Vela's estimate", "cycles", "latency", "SRAM", "flash", "on the NPU")
    text = "\n" + table(header, rows, left=1, color=session.color)
    if session.verbosity > 0:
        layers = [
            (item.artifact, layer.operator, "NPU" if layer.on_npu else "CPU", f"{layer.cycles:,}", layer.name[-40:])
            for item in compiled
            for layer in item.layers
            if layer.cycles
        ]
        text += "\n" + table(("model", "operator", "on", "cycles", "name"), layers, left=3, color=session.color)
    return text


def _lives(done: Sequence[MicroFit]) -> Iterator[str]:
    """Each tensor's bar along the operators; the tensors at the peak are marked."""
    from edgekit.core.records.memory_plan import render_timeline
    from edgekit.core.units import format_bytes

    for item in done:
        yield f"\n{item.artifact.label}: tensors from the first operator to the last, * those alive at the peak\n"
        for life, bar in zip(item.tensor_lifetimes, render_timeline(item.tensor_lifetimes), strict=True):
            mark = "*" if life in item.peak.tensors else " "
            yield f"{mark} {bar} {format_bytes(life.size_bytes):>9}  {life.name[-50:]}\n"
        head, tail = format_bytes(item.arena.head_bytes), format_bytes(item.arena.tail_bytes)
        yield f"  the arena: {head} of tensors at its head, {tail} of what describes them at its tail\n"
        yield f"  at the peak {format_bytes(item.peak.size_bytes)} are alive, in operator {item.peak.operator}\n"

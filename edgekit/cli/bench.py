"""edgekit bench"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import (
    ArtifactFilter,
    FiniteFloat,
    complete,
    executor_option,
    failures,
    runtime_option,
    selection_options,
)
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.stages.benchmark.emulated_bench import EmulationOptions
    from edgekit.stages.selection import Selection


@click.command("bench", short_help="Measure size, latency and memory.")
@selection_options
@click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("device"),
    help="Device profile, board, phone, browser, or 'all' profiles; repeatable (default: host). See: edgekit devices",
)
@click.option(
    "--tier",
    "tiers",
    type=click.Choice(["host", "emulated"]),
    multiple=True,
    help="Tier to measure; 'emulated' adds the device's core under QEMU. See: edgekit devices setup --help",
)
@runtime_option
@executor_option
@click.option(
    "--threads", type=click.IntRange(min=1), help="Number of threads (default: the profile's; without a profile: 1)."
)
@click.option(
    "--min-duration",
    type=FiniteFloat(min=0),
    default=0.25,
    show_default=True,
    help="Minimum measuring time in seconds; extended up to twofold until the median is stable.",
)
@click.option(
    "--min-runs", type=click.IntRange(min=1), default=50, show_default=True, help="Minimum number of measured runs."
)
@click.option(
    "--timeout",
    type=FiniteFloat(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Time limit of one measurement, in seconds.",
)
@click.option("--per-op", is_flag=True, help="Also measure each operator, in the tiers that support it.")
@click.option(
    "--with",
    "versions",
    metavar="PACKAGE==VERSION",
    multiple=True,
    help="Count instructions under this version of the runtime on the emulated core; repeat it to compare versions.",
)
@click.option("--baseline", type=click.Path(path_type=Path), help="JSON output of an earlier bench to compare with.")
@click.option("--max-regression", metavar="SHARE", help="Allowed regression (default: 2%).")
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
    devices: tuple[str, ...],
    tiers: tuple[str, ...],
    runtime: str,
    executors: tuple[str, ...],
    threads: int | None,
    min_duration: float,
    min_runs: int,
    timeout: float,
    per_op: bool,
    versions: tuple[str, ...],
    baseline: Path | None,
    max_regression: str | None,
) -> int:
    """Measure the size, latency and memory of artifacts, each in a fresh process pinned to cores.

    Every latency names its tier: `host` is measured on this machine, `analytic` is the device's roofline estimate,
    `emulated` is predicted from the instructions and cache misses of one inference on the device's core under QEMU,
    `device` is measured on a board, on a phone or in a browser itself. See: edgekit devices add --help

    MODEL may also be a model file, such as a .tflite of a vendor: it is measured with random samples, and the results
    are only printed.

    With --per-op, the emulated tier truncates the model after each operator and counts again (.tflite and .onnx); the
    host tier uses the profiler of the runtime (ONNX Runtime, TorchScript, lite interpreter).

    With --with, nothing is measured on this host. The emulated tier runs the same file under each version of the
    runtime, each in an environment of its own, and compares the instructions with those of the first version. A single
    version is compared with the one that edgekit pins. With --max-regression, the exit code is 1 if a version executes
    more.

    The exit code is 1 if a figure exceeds the --baseline by more than --max-regression. Host latency is compared only
    if there is no emulated latency and none of a board, because it varies between runs. The latency of a board may also
    grow by the noise that both measurements show.

    \b
    Example:
      edgekit bench simple_cnn --device raspberry-pi-4b
      edgekit bench simple_cnn --device pi
      edgekit bench detector.tflite --device raspberry-pi-4b --tier emulated
      edgekit bench simple_cnn --device chromium
      edgekit bench simple_cnn --device raspberry-pi-4b --tier emulated
      edgekit bench simple_cnn --device raspberry-pi-4b --tier emulated --per-op
      edgekit bench simple_cnn --device raspberry-pi-4b --tier emulated --baseline main.json
      edgekit bench simple_cnn --device raspberry-pi-4b --with ai-edge-litert==2.2.0 --with ai-edge-litert==2.3.0
      edgekit bench simple_cnn --target tflite:int8 --threads 2 --json
      edgekit bench simple_cnn --target tflite:int8 --runtime tflite-micro
    """
    from dataclasses import asdict

    from edgekit.core.errors import InputError
    from edgekit.reports.console import bench_tables
    from edgekit.stages.benchmark.bench import BenchOptions, bench, load_devices
    from edgekit.stages.benchmark.emulated_bench import EmulationOptions
    from edgekit.stages.gates.baseline import load_baseline, regressions
    from edgekit.stages.selection import Selection, artifacts, check_executors, with_runtime

    check_executors(executors)
    if versions:
        if tiers or executors or runtime or baseline:
            raise InputError(
                "--with compares versions on the emulated core; leave out --tier, --executor, --runtime and --baseline"
            )
        emulation = EmulationOptions(threads, per_op, 2 * timeout)
        return _compare_versions(session, Selection(*artifact_filter), devices, versions, emulation, max_regression)
    max_regression_share = _parse_max_regression(baseline, max_regression)
    baseline_measurements = load_baseline(baseline) if baseline else ()
    profiles = load_devices(session.project, devices)
    options = BenchOptions(
        threads=threads,
        min_duration_s=min_duration,
        min_runs=min_runs,
        timeout_s=timeout,
        emulated="emulated" in (*tiers, *executors),
        runtime=runtime,
        executors=tuple(name for name in executors if name not in ("host", "emulated")),
        emulated_timeout_s=2 * timeout,
        per_op=per_op,
    )
    with session.context() as context:
        selected = with_runtime(context, artifacts(context, Selection(*artifact_filter), files=True), runtime)
        measurements = bench(context, selected, profiles, options)
    verdicts = regressions(baseline_measurements, measurements, max_regression_share, str(baseline)) if baseline else ()
    regressed = [verdict for verdict in verdicts if not verdict.passed]
    data: dict[str, Any] = {
        "measurements": [asdict(measurement) for measurement in measurements],
        "failures": failures(context),
    }
    if baseline:
        data["regressions"] = [{**asdict(verdict), "sentence": verdict.sentence} for verdict in regressed]
    benches = {
        name: [measurement for measurement in measurements if measurement.device == name]
        for name in dict.fromkeys(measurement.device for measurement in measurements)
    }
    lines = "".join(line(f"REGRESSION  {verdict.sentence}") for verdict in regressed)
    session.print_result(data, lambda: bench_tables(benches, session.color).lstrip("\n") + lines)
    return max(context.exit_code, 1 if regressed else 0)


def _compare_versions(
    session: CommandSession,
    selection: Selection,
    devices: tuple[str, ...],
    versions: tuple[str, ...],
    options: EmulationOptions,
    max_regression: str | None,
) -> int:
    """Compare the instructions under several versions of a runtime; 1 if one of them exceeds what is allowed."""
    from dataclasses import asdict

    from edgekit.core.errors import InputError
    from edgekit.reports.console import runtime_versions_tables
    from edgekit.stages.benchmark.bench import load_devices
    from edgekit.stages.benchmark.runtime_versions import compare_versions
    from edgekit.stages.selection import artifacts

    allowed = None if max_regression is None else _parse_share(max_regression)
    if not devices:
        raise InputError("--with needs a device to emulate", parameters=("device",))
    profiles = load_devices(session.project, devices)
    with session.context() as context:
        selected = artifacts(context, selection, files=True)
        comparisons = compare_versions(context, selected, profiles, versions, options)
    sentences = [
        f"{comparison.artifact.label} on {comparison.record.device}: {sentence}"
        for comparison in comparisons
        for sentence in (() if allowed is None else comparison.record.slower(allowed))
    ]
    data = {
        "runtime_versions": [
            {
                "model": comparison.artifact.manifest.model,
                "kind": comparison.artifact.manifest.source["kind"],
                "variant": str(comparison.artifact.manifest.variant),
                **asdict(comparison.record),
            }
            for comparison in comparisons
        ],
        "regressions": sentences,
        "failures": failures(context),
    }
    lines = "".join(line(f"REGRESSION  {sentence}") for sentence in sentences)
    rows = [(comparison.artifact, comparison.record) for comparison in comparisons]
    session.print_result(data, lambda: runtime_versions_tables(rows, session.color) + lines)
    return max(context.exit_code, 1 if sentences else 0)


def _parse_share(text: str) -> float:
    from edgekit.core.errors import InputError
    from edgekit.core.units import parse_share

    try:
        return parse_share(text)
    except ValueError as error:
        raise InputError(f"--max-regression: {error}") from None


def _parse_max_regression(baseline: Path | None, text: str | None) -> float:
    from edgekit.core.errors import InputError

    if text is not None and baseline is None:
        raise InputError("--max-regression needs a --baseline or --with to compare with")
    return _parse_share(text or "2%")

"""Fitting a microcontroller's kernels: MLPerf Tiny's networks made, their work counted, beside published timings."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import DeviceProfile, KernelSpec
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.core.units import format_ms
from edgekit.devices.cost_models import microcontroller, reference_networks
from edgekit.devices.cost_models.microcontroller import TinyRow
from edgekit.stages.benchmark import fit_cost_model
from edgekit.stages.context import Context
from edgekit.stages.conversion.inspect import describe

MEASURED_FILE = "mlperf_tiny.csv"


@dataclass(frozen=True)
class TinyFit:
    """The fitted kernels; the relative error of each row left out, by this model and by multiply-accumulates alone."""

    device: str
    clock_mhz: float
    spec: KernelSpec
    rows: tuple[TinyRow, ...]
    left_out: tuple[float, ...]
    by_macs: tuple[float, ...]


def timings(path: Path, device: str, profile: DeviceProfile) -> tuple[dict[str, float], str]:
    """The device's published milliseconds by benchmark, and what they are.

    Raises InputError when the table is damaged, has none of this device, or was taken at another clock.
    """
    own = profile.published
    found: dict[str, float] = {}
    kernels_used = ""
    for number, row in enumerate(csv.DictReader(read_bytes(path, "table of timings").decode().splitlines()), start=2):
        try:
            if own is None or (row["board"], row["round"], row["runtime"]) != (own.board, own.round, own.runtime):
                continue
            clock_mhz, rate = float(row["mhz"]), float(row["inferences_per_second"])
            found[row["benchmark"]] = 1000 / rate
            kernels_used = row["kernels"]
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"{path}: line {number} lacks or mistypes a column ({error})") from None
        if clock_mhz != profile.cores[0].clock_mhz:
            raise InputError(
                f"{path}: line {number} was taken at {clock_mhz:g} MHz, and {device} runs at"
                f" {profile.cores[0].clock_mhz} MHz"
            )
    if own is None or not found:
        raise InputError(f"{path}: there is no timing of {device} to fit with; its figures stay uncalibrated")
    return (
        found,
        f"{len(found)} MLPerf Tiny {own.round} timings of {own.board} ({kernels_used}, called by {own.runtime})",
    )


def network(context: Context, benchmark: str) -> tuple[int, int]:
    """Multiply-accumulates and outputs of the benchmark's network. Raises what an export raises."""
    artifact = fit_cost_model.made(context, reference_networks.TINY[benchmark], (microcontroller.PRECISION,))
    description = describe(context, "tflite", artifact.verified_path(), f"inspect {artifact.label}")
    assert description.macs is not None  # no loops
    assert description.mac_outputs is not None
    return description.macs, description.mac_outputs


def fit_kernels(context: Context, device: str, profile: DeviceProfile, table: Path) -> TinyFit:
    """Fits the device's kernels to its rows of the table.

    Raises InputError without rows, StepError when a network cannot be made.
    """
    published, text = timings(table, device, profile)
    clock_mhz = profile.cores[0].clock_mhz
    known = {name: latency for name, latency in published.items() if name in reference_networks.TINY}
    rows = [TinyRow(name, *network(context, name), latency) for name, latency in known.items()]
    try:
        spec = microcontroller.kernel_spec(rows, clock_mhz, text)
    except ValueError as error:
        raise InputError(f"{table}: {device}: {error}") from None
    plain = microcontroller.leave_one_out(rows, clock_mhz, microcontroller.by_macs)
    return TinyFit(
        device, clock_mhz, spec, tuple(rows), tuple(microcontroller.leave_one_out(rows, clock_mhz)), tuple(plain)
    )


def write_kernels(path: Path, spec: KernelSpec) -> None:
    """Puts the [kernels] table into the profile, in place of the one that was there; the rest stays as it is.

    Raises InputError when the profile cannot be written, or would not be read again.
    """
    lines = [
        "[kernels]                         # written by: edgekit devices fit",
        f"cycles_per_mac = {spec.cycles_per_mac}",
        f"cycles_per_output = {spec.cycles_per_output}",
        f"rows = {spec.rows}",
        f"mean_error = {spec.mean_error}                # each row predicted from the others",
        f"max_error = {spec.max_error}",
        f'fitted_with = "{spec.fitted_with}"',
    ]
    fit_cost_model.write_table(path, "kernels", "\n".join(lines) + "\n")


def rows_of(found: TinyFit) -> list[dict[str, Any]]:
    """The fit row by row, for --json."""
    per_mac, per_output = found.spec.cycles_per_mac, found.spec.cycles_per_output
    return [
        {
            **asdict(row),
            "fitted_ms": microcontroller.latency_ms((per_mac, per_output), row.macs, row.outputs, found.clock_mhz),
            "left_out_error": left_out,
            "by_macs_left_out_error": plain,
        }
        for row, left_out, plain in zip(found.rows, found.left_out, found.by_macs, strict=True)
    ]


def table_rows(found: TinyFit) -> list[tuple[str, ...]]:
    """The fit for a table."""
    return [
        (
            f"{reference_networks.TINY[row['network']]} ({row['network']})",
            f"{row['macs']:,}",
            f"{row['outputs']:,}",
            format_ms(row["latency_ms"]),
            format_ms(row["fitted_ms"]),
            f"{100 * row['left_out_error']:+.1f} %",
            f"{100 * row['by_macs_left_out_error']:+.1f} %",
        )
        for row in rows_of(found)
    ]

"""Fits the kernel costs of a microcontroller to published MLPerf Tiny timings."""

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

# The table of published timings in device_profiles/measured/.
MEASURED_FILE = "mlperf_tiny.csv"
# The table of other timings of kernels, with the work of their networks.
KERNELS_FILE = "kernel_latency.csv"
# How the note of a timing begins that is in the table but is not used; the reason follows.
_NOT_FITTED = "not fitted: "


@dataclass(frozen=True)
class TinyFit:
    """Fitted kernel costs.

    Attributes:
        device: The name of the device.
        clock_mhz: The clock of the device.
        spec: The fitted coefficients.
        rows: The timings.
        left_out: The relative leave-one-out error of each row.
        by_macs: The relative leave-one-out error of each row by a baseline that uses multiply-accumulates only.
    """

    device: str
    clock_mhz: float
    spec: KernelSpec
    rows: tuple[TinyRow, ...]
    left_out: tuple[float, ...]
    by_macs: tuple[float, ...]


def timings(path: Path, device: str, profile: DeviceProfile) -> tuple[dict[str, float], str]:
    """Read a device's timings from the published table.

    Args:
        path: The table, a CSV file.
        device: The name of the device, for messages.
        profile: The device's profile, which names its rows.

    Returns:
        The latency in ms by benchmark, and a description of the timings.

    Raises:
        InputError: The table is damaged, has no timing of the device, or was measured at another clock.
    """
    published = profile.published
    latencies: dict[str, float] = {}
    kernels_used = ""
    for number, row in enumerate(csv.DictReader(read_bytes(path, "table of timings").decode().splitlines()), start=2):
        try:
            columns = (row["board"], row["round"], row["runtime"])
            if published is None or columns != (published.board, published.round, published.runtime):
                continue
            clock_mhz, rate = float(row["mhz"]), float(row["inferences_per_second"])
            latencies[row["benchmark"]] = 1000 / rate
            kernels_used = row["kernels"]
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"{path}: line {number} has a missing or mistyped column ({error})") from None
        if clock_mhz != profile.cores[0].clock_mhz:
            raise InputError(
                f"{path}: line {number} was measured at {clock_mhz:g} MHz, but {device} runs at"
                f" {profile.cores[0].clock_mhz} MHz"
            )
    if published is None or not latencies:
        raise InputError(f"{path}: no timing of {device} to fit its cost model; its latencies stay uncalibrated")
    return (
        latencies,
        f"{len(latencies)} MLPerf Tiny {published.round} timings of {published.board}"
        f" ({kernels_used}, called by {published.runtime})",
    )


def kernel_rows(path: Path, device: str, profile: DeviceProfile) -> tuple[list[TinyRow], str]:
    """Read a device's timings from the table of kernels, which contains the work of each network.

    Args:
        path: The table, a CSV file.
        device: The name of the device, for messages.
        profile: The device's profile, which names its rows.

    Returns:
        The timings, and a description of them.

    Raises:
        InputError: The table is damaged, has no timing of the device, or was measured at another clock.
    """
    assert profile.published is not None  # the caller selects the table by it
    board, runtime = profile.published.board, profile.published.runtime
    rows: list[TinyRow] = []
    sources: dict[str, None] = {}
    for number, row in enumerate(csv.DictReader(read_bytes(path, "table of timings").decode().splitlines()), start=2):
        try:
            if (row["board"], row["runtime"]) != (board, runtime) or row["note"].startswith(_NOT_FITTED):
                continue
            work = int(row["macs"]), int(row["outputs"])
            rows.append(TinyRow(row["network"], *work, float(row["latency_ms"]), row["family"]))
            sources[f"{row['kernels']}, {row['source']}"] = None
            clock_mhz = float(row["mhz"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: line {number} has a missing or mistyped column ({error})") from None
        if clock_mhz != profile.cores[0].clock_mhz:
            expected = f"{device} runs at {profile.cores[0].clock_mhz} MHz"
            raise InputError(f"{path}: line {number} was measured at {clock_mhz:g} MHz, but {expected}")
    if not rows:
        raise InputError(f"{path}: no timing of {device} to fit its cost model; its latencies stay uncalibrated")
    return rows, f"{len(rows)} timings of {board} with {runtime} ({'; '.join(sources)})"


def count_work(context: Context, benchmark: str) -> tuple[int, int]:
    """Count the work of one inference of a benchmark's network.

    Args:
        context: The project and its workers.
        benchmark: The name of the benchmark in the published table.

    Returns:
        The multiply-accumulates, and the outputs that they are accumulated into.

    Raises:
        EdgekitError: The network cannot be exported.
    """
    artifact = fit_cost_model.export_network(context, reference_networks.TINY[benchmark], (microcontroller.PRECISION,))
    description = describe(context, "tflite", artifact.verified_path(), f"inspect {artifact.label}")
    assert description.macs is not None  # these networks have no loops, whose MACs would be unknown
    assert description.mac_outputs is not None
    return description.macs, description.mac_outputs


def fit_kernels(context: Context, device: str, profile: DeviceProfile, table: Path) -> TinyFit:
    """Fit a device's kernel costs to its published timings.

    Args:
        context: The project and its workers.
        device: The name of the device.
        profile: The device's profile.
        table: The table of published timings, a CSV file.

    Returns:
        The fitted kernel costs.

    Raises:
        InputError: The table is damaged, or does not have enough timings of the device.
        StepError: A network cannot be exported.
    """
    clock_mhz = profile.cores[0].clock_mhz
    if profile.published is not None and profile.published.round is None:
        rows, text = kernel_rows(table, device, profile)
    else:
        published, text = timings(table, device, profile)
        supported = {name: latency for name, latency in published.items() if name in reference_networks.TINY}
        rows = [TinyRow(name, *count_work(context, name), latency) for name, latency in supported.items()]
    try:
        spec = microcontroller.kernel_spec(rows, clock_mhz, text)
    except ValueError as error:
        raise InputError(f"{table}: {device}: {error}") from None
    by_macs = microcontroller.leave_one_out(rows, clock_mhz, microcontroller.by_macs)
    return TinyFit(
        device, clock_mhz, spec, tuple(rows), tuple(microcontroller.leave_one_out(rows, clock_mhz)), tuple(by_macs)
    )


def write_kernels(path: Path, spec: KernelSpec) -> None:
    """Write the [kernels] table of a device profile, in place of an existing one.

    Args:
        path: The profile.
        spec: The coefficients.

    Raises:
        InputError: The profile cannot be written, or would be invalid afterwards; it is then left as it was.
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


def rows_of(fit: TinyFit) -> list[dict[str, Any]]:
    """Return the rows of a fit for `--json`, one entry for each timing."""
    per_mac, per_output = fit.spec.cycles_per_mac, fit.spec.cycles_per_output
    return [
        {
            **asdict(row),
            "fitted_ms": microcontroller.latency_ms((per_mac, per_output), row.macs, row.outputs, fit.clock_mhz),
            "left_out_error": left_out,
            "by_macs_left_out_error": by_macs,
        }
        for row, left_out, by_macs in zip(fit.rows, fit.left_out, fit.by_macs, strict=True)
    ]


def measured_file(profile: DeviceProfile) -> str:
    """Return the name of the table that has a device's timings."""
    in_kernels = profile.published is not None and profile.published.round is None
    return KERNELS_FILE if in_kernels else MEASURED_FILE


def _network_label(network: str) -> str:
    return f"{reference_networks.TINY[network]} ({network})" if network in reference_networks.TINY else network


def table_rows(fit: TinyFit) -> list[tuple[str, ...]]:
    """Return the rows of a fit as table cells: network, work, published and fitted latency, and the errors."""
    return [
        (
            _network_label(row["network"]),
            f"{row['macs']:,}",
            f"{row['outputs']:,}",
            format_ms(row["latency_ms"]),
            format_ms(row["fitted_ms"]),
            f"{100 * row['left_out_error']:+.1f} %",
            f"{100 * row['by_macs_left_out_error']:+.1f} %",
        )
        for row in rows_of(fit)
    ]

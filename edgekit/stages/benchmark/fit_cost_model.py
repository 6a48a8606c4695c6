"""Fits the cost model of an emulated core to published timings of reference networks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import CostSpec, DeviceProfile, load_profile
from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.atomic_files import read_bytes, read_json, sha256_file, write_json, write_output
from edgekit.core.environment.project import open_project
from edgekit.core.environment.requirements import KERAS, TENSORFLOW, versions
from edgekit.core.environment.user_cache import cache_folder, locked
from edgekit.core.errors import InputError, StepError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import Counts
from edgekit.core.units import format_ms
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.typed_json import Milliseconds, PositiveCount, decode
from edgekit.devices.cost_models import emulated_core, reference_networks
from edgekit.devices.cost_models.emulated_core import Prediction, TimingRow
from edgekit.devices.emulation import emulator
from edgekit.devices.emulation.folders import key
from edgekit.devices.emulation.guest import cache_arguments
from edgekit.stages.benchmark.bench import BenchOptions, bench_one
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, routes
from edgekit.stages.models import model_refs

# The table of published timings in device_profiles/measured/.
MEASURED_FILE = "published_latency.csv"
# The precisions that the published table covers.
_PRECISIONS = ("float32", "int8")
# A long bench, once per network: its fastest run is the baseline that the fit is compared with.
_ONE_THREAD = BenchOptions(threads=1, min_duration_s=3.0, min_runs=50)


@dataclass(frozen=True)
class Timing:
    """One published timing of a device."""

    network: str
    precision: str
    threads: int
    latency_ms: float
    source: str


@dataclass(frozen=True)
class Network:
    """An exported reference network.

    Attributes:
        artifact: The exported artifact.
        macs: The multiply-accumulates of one inference; None if they are unknown.
        host_ms: The CPU time of one inference on this host with one thread.
    """

    artifact: Artifact
    macs: int | None
    host_ms: float


@dataclass(frozen=True)
class Fit:
    """A fitted cost model.

    Attributes:
        device: The name of the device.
        spec: The fitted coefficients.
        predictions: The leave-one-out predictions: each row predicted from the others.
        fitted: The predictions by the coefficients that were fitted to all rows.
        alternatives: The leave-one-out predictions of one-parameter baselines, by name.
    """

    device: str
    spec: CostSpec
    predictions: tuple[Prediction, ...]
    fitted: tuple[Prediction, ...]
    alternatives: dict[str, tuple[Prediction, ...]]


def timings(path: Path, device: str, profile: DeviceProfile) -> tuple[Timing, ...]:
    """Read a device's timings from the published table.

    Args:
        path: The table, a CSV file.
        device: The name of the device, for messages.
        profile: The device's profile, which names its rows.

    Returns:
        The timings of networks in `reference_networks`.

    Raises:
        InputError: The table is damaged, or has no timing of the device.
    """
    published = profile.emulation.published_as if profile.emulation else None
    rows = []
    for number, row in enumerate(csv.DictReader(read_bytes(path, "table of timings").decode().splitlines()), start=2):
        try:
            supported = row["model"] in reference_networks.PUBLISHED_AS and row["precision"] in _PRECISIONS
            if row["device"] == published and supported:
                latency, source = float(row["latency_ms"]), row["source"]
                rows.append(Timing(row["model"], row["precision"], int(row["threads"]), latency, source))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: line {number} has a missing or mistyped column ({error})") from None
    if not rows:
        raise InputError(f"{path}: no timing of {device} to fit its cost model; its latencies stay uncalibrated")
    return tuple(rows)


def _networks_folder() -> Path:
    """Return the cache folder of exported networks, keyed by their code and the versions of the framework."""
    fingerprint = key(sha256_file(Path(reference_networks.__file__)), versions((TENSORFLOW, KERAS)))
    return cache_folder() / "networks" / fingerprint


def load_network(context: Context, name: str, precision: str) -> Network:
    """Return a reference network, exported and measured on first use.

    Args:
        context: The project and its workers.
        name: The name of the network in the published table.
        precision: `float32` or `int8`.

    Returns:
        The network, in the cache folder.

    Raises:
        EdgekitError: The network cannot be exported or measured.
    """
    root = _networks_folder()
    artifact = export_network(context, reference_networks.PUBLISHED_AS[name], _PRECISIONS, precision)
    with locked(root):
        record_path = artifact.folder / "host.json"
        if not record_path.is_file():
            inner = Context(open_project(root), context.pool, context.emit)
            measurement = bench_one(inner, artifact, "host", None, _ONE_THREAD)
            # The CPU time of the fastest run: other load on this machine only ever makes a run slower.
            write_json(record_path, {"macs": measurement.macs, "host_ms": measurement.cpu.min_ms})
        stored = read_json(record_path, "record of a network")
        record = decode(_HostRecord, stored, record_path, f"remove {record_path}")
    return Network(artifact, record.macs, record.host_ms)


@dataclass(frozen=True)
class _HostRecord:
    macs: PositiveCount | None
    host_ms: Milliseconds


def export_network(context: Context, function: str, precisions: Sequence[str], precision: str = "int8") -> Artifact:
    """Export a reference network to .tflite in the cache folder, unless it is there.

    Args:
        context: The project and its workers.
        function: The function of `reference_networks` that builds the network.
        precisions: The precisions to export.
        precision: The precision of the artifact to return.

    Returns:
        The artifact.

    Raises:
        EdgekitError: The network cannot be exported.
    """
    root = _networks_folder()
    with locked(root):
        inner = Context(open_project(root), context.pool, context.emit)
        folder = inner.project.artifact_folder(function, "keras", f"tflite-{precision}")
        if not (folder / MANIFEST_FILE).is_file():
            _export(inner, function, precisions)
        return load_artifact(folder)


def _export(context: Context, function: str, precisions: Sequence[str]) -> None:
    code = str(Path(reference_networks.__file__))
    calibration = f"{function}_calibration" if hasattr(reference_networks, f"{function}_calibration") else "calibration"
    options = model_refs.UserModelOptions(name=function, calibration=f"{code}:{calibration}", sizes={"batch": 1})
    selection = routes.parse_selection(tuple(f"tflite:{precision}" for precision in precisions), None)
    settings = export.ExportSettings(reference_networks.CALIBRATION_SAMPLES, {"batch": 1})
    for group in model_refs.resolve(context, (f"{code}:{function}",), "keras", options):
        export.export(context, export.plan(group, selection, targets_named=True), settings)
    if context.failures:
        raise context.failures[0]


def count_network(guest: emulator.Guest, network: Network, threads: int) -> Counts:
    """Count the instructions of one inference, cached by model file, core and its caches.

    Args:
        guest: The emulated device.
        network: The network.
        threads: The number of threads.

    Returns:
        The counts.

    Raises:
        StepError: The emulated process fails or exceeds its time-out.
    """
    manifest, core = network.artifact.manifest, guest.profile.cores[0]
    folders = guest.installed.folders
    caches = cache_arguments(guest.spec, core, threads)
    cache_key = key(manifest.sha256, folders.device.name, folders.plugin_folder.name, guest.spec.cpu, caches)
    path = cache_folder() / "networks" / "counts" / f"{cache_key}.json"
    if not path.is_file():
        step = f"count {network.artifact.label} for {threads} threads of {guest.name}"
        model = ModelFiles.of(network.artifact)
        write_json(path, asdict(emulator.count(guest, model, threads, step, emulator.TIMEOUT_S).counts))
    return decode(Counts, read_json(path, "counts"), path, f"remove {path}")


def fit(context: Context, device: str, profile: DeviceProfile, table: Path) -> Fit:
    """Fit a device's cost model to its published timings.

    Args:
        context: The project and its workers.
        device: The name of the device.
        profile: The device's profile.
        table: The table of published timings, a CSV file.

    Returns:
        The fitted cost model.

    Raises:
        InputError: The table is damaged, or has no timing of the device.
        MissingDependency: The emulation is not set up.
        StepError: A network cannot be exported or counted.
    """
    published = timings(table, device, profile)
    guest = emulator.open_guest(device, profile)
    networks: dict[tuple[str, str], Network] = {}
    rows: list[TimingRow] = []
    for timing in published:
        variant = (timing.network, timing.precision)

        def count_row(timing: Timing = timing, variant: tuple[str, str] = variant) -> TimingRow:
            if variant not in networks:
                networks[variant] = load_network(context, *variant)
            counts = count_network(guest, networks[variant], timing.threads)
            return TimingRow(timing.network, timing.precision, timing.threads, counts, timing.latency_ms)

        step = f"count {timing.network} {timing.precision}, {timing.threads} threads, on {device}"
        row = context.attempt(step, count_row, lambda row: f"{row.counts.instructions / 1e6:.1f} M instructions")
        if row is None:
            raise StepError(str(context.failures[-1]), step=step)
        rows.append(row)
    return _fit_rows(device, profile, rows, networks, sorted({timing.source for timing in published}))


def _fit_rows(
    device: str,
    profile: DeviceProfile,
    rows: Sequence[TimingRow],
    networks: dict[tuple[str, str], Network],
    sources: Sequence[str],
) -> Fit:
    coefficients, predictions = emulated_core.fit(rows, profile), emulated_core.leave_one_out(rows, profile)
    clock_mhz = profile.cores[0].clock_mhz
    text = f"{len(rows)} timings from {', '.join(sources)}"
    figures: dict[str, Callable[[TimingRow], float | None]] = {
        "MACs x constant": lambda row: networks[row.network, row.precision].macs,
        "host time x constant": lambda row: networks[row.network, row.precision].host_ms,
        "instructions x constant": lambda row: row.counts.instructions,
    }
    return Fit(
        device,
        emulated_core.cost_spec(coefficients, predictions, text),
        tuple(predictions),
        tuple(Prediction(row, coefficients.latency_ms(row.counts, row.threads, clock_mhz)) for row in rows),
        {name: tuple(emulated_core.predict_by_ratio(rows, figure)) for name, figure in figures.items()},
    )


def write_cost(path: Path, spec: CostSpec) -> None:
    """Write the [cost] table of a device profile, in place of an existing one.

    Args:
        path: The profile.
        spec: The coefficients.

    Raises:
        InputError: The profile cannot be written, or would be invalid afterwards; it is then left as it was.
    """
    write_table(path, "cost", _cost_table(spec))


def write_table(path: Path, name: str, table: str) -> None:
    """Write a table of a device profile before [provenance], in place of an existing one.

    Args:
        path: The profile.
        name: The name of the table.
        table: The table as TOML text.

    Raises:
        InputError: The profile cannot be written, or would be invalid afterwards; it is then left as it was.
    """
    before = path.read_text()
    write_output(path, _with_table(before, name, table))
    try:
        load_profile(path)
    except InputError:
        write_output(path, before)
        raise


def _with_table(text: str, name: str, table: str) -> str:
    """Return the profile's text with the new table before [provenance], without the old one and its sub-tables."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            inside = line.startswith((f"[{name}]", f"[[{name}."))
        if not inside:
            kept.append(line)
    rest = "".join(kept)
    before, header, after = rest.partition("[provenance]\n")
    return f"{before.rstrip()}\n\n{table}\n{header}{after}" if header else f"{rest}\n{table}"


def _cost_table(spec: CostSpec) -> str:
    lines = [
        "[cost]                            # written by: edgekit devices fit",
        f"cycles_per_instruction = {spec.cycles_per_instruction}",
        f"cycles_per_l1_miss = {spec.cycles_per_l1_miss}",
        f'fitted_with = "{spec.fitted_with}"',
    ]
    for cost in spec.threads:
        lines += [
            "[[cost.threads]]",
            f"count = {cost.count}",
            f"line_ns = {cost.line_ns}",
            f"rows = {cost.rows}",
            f"mean_error = {cost.mean_error}                # each row predicted from the others",
            f"max_error = {cost.max_error}",
        ]
    return "\n".join(lines) + "\n"


def rows_of(fitted_model: Fit) -> list[dict[str, Any]]:
    """Return the rows of a fit for `--json`.

    Args:
        fitted_model: The fitted cost model.

    Returns:
        One entry for each timing, with relative errors; None if there was nothing to predict a row from.
    """
    return [
        {
            **{name: getattr(fitted.row, name) for name in ("network", "precision", "threads")},
            "published_ms": fitted.row.latency_ms,
            "instructions": fitted.row.counts.instructions,
            "memory_misses": fitted.row.counts.memory_misses,
            "fitted_ms": fitted.predicted_ms,
            "left_out_ms": left_out.predicted_ms,
            "left_out_error": left_out.error,
            **{
                f"{name}: left_out_error": predictions[index].error
                for name, predictions in fitted_model.alternatives.items()
            },
        }
        for index, (fitted, left_out) in enumerate(zip(fitted_model.fitted, fitted_model.predictions, strict=True))
    ]


def table_rows(fitted_model: Fit) -> list[tuple[str, ...]]:
    """Return the rows of a fit as table cells.

    Args:
        fitted_model: The fitted cost model.

    Returns:
        For each timing: network, precision, threads, published and fitted latency, and the errors.
    """
    return [
        (
            str(row["network"]),
            str(row["precision"]),
            str(row["threads"]),
            format_ms(row["published_ms"]),
            format_ms(row["fitted_ms"]),
            *(_format_percent(row[name]) for name in row if name.endswith("left_out_error")),
        )
        for row in rows_of(fitted_model)
    ]


def _format_percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:+.1f} %"

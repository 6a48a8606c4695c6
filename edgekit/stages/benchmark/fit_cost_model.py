"""Fitting a device's cost model: the published networks made and counted on its emulated core, beside their timings."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import CostSpec, DeviceProfile, load_profile
from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.atomic_files import read_bytes, read_json, sha256_file, write_json, write_text
from edgekit.core.environment.project import open_project
from edgekit.core.environment.requirements import KERAS, TENSORFLOW, versions
from edgekit.core.environment.user_cache import cache_folder, locked
from edgekit.core.errors import InputError, StepError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import Counts
from edgekit.core.units import format_ms
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.devices.cost_models import emulated_core, reference_networks
from edgekit.devices.cost_models.emulated_core import Prediction, TimingRow
from edgekit.devices.emulation import emulator
from edgekit.devices.emulation.folders import key
from edgekit.devices.emulation.guest import cache_arguments
from edgekit.stages.benchmark.bench import BenchOptions, bench_one
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, routes
from edgekit.stages.models import model_refs

MEASURED_FILE = "published_latency.csv"
_PRECISIONS = ("float32", "int8")
_ONE_THREAD = BenchOptions(threads=1, min_duration_s=3.0, min_runs=50)


@dataclass(frozen=True)
class Timing:
    """One row of the published table that is about this device."""

    network: str
    precision: str
    threads: int
    latency_ms: float
    source: str


@dataclass(frozen=True)
class Network:
    """A network that was made: its multiply-accumulates, and what it takes on this host with one thread."""

    artifact: Artifact
    macs: int | None
    host_ms: float


@dataclass(frozen=True)
class Fit:
    """The fitted model, its leave-one-out predictions, and those of the plain alternatives by name."""

    device: str
    spec: CostSpec
    predictions: tuple[Prediction, ...]
    fitted: tuple[Prediction, ...]
    alternatives: dict[str, tuple[Prediction, ...]]


def timings(path: Path, device: str, profile: DeviceProfile) -> tuple[Timing, ...]:
    """The device's rows. Raises InputError when the table is damaged, or has none of networks that are known here."""
    published = profile.emulation.published_as if profile.emulation else None
    found = []
    for number, row in enumerate(csv.DictReader(read_bytes(path, "table of timings").decode().splitlines()), start=2):
        try:
            known = row["model"] in reference_networks.PUBLISHED_AS and row["precision"] in _PRECISIONS
            if row["device"] == published and known:
                latency, source = float(row["latency_ms"]), row["source"]
                found.append(Timing(row["model"], row["precision"], int(row["threads"]), latency, source))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: line {number} lacks or mistypes a column ({error})") from None
    if not found:
        raise InputError(f"{path}: there is no timing of {device} to fit with; its figures stay uncalibrated")
    return tuple(found)


def _made_with() -> str:
    return key(sha256_file(Path(reference_networks.__file__)), versions((TENSORFLOW, KERAS)))


def network(context: Context, name: str, precision: str) -> Network:
    """The network as a .tflite artifact in the cache folder, made and measured once. Raises what an export raises."""
    root = cache_folder() / "networks" / _made_with()
    artifact = made(context, reference_networks.PUBLISHED_AS[name], _PRECISIONS, precision)
    with locked(root):
        record = artifact.folder / "host.json"
        if not record.is_file():
            inner = Context(open_project(root), context.pool, context.emit)
            measured = bench_one(inner, artifact, "host", None, _ONE_THREAD)
            # The CPU time of the fastest run: other programs of this machine only ever make it slower.
            write_json(record, {"macs": measured.macs, "host_ms": measured.cpu.min_ms})
        known = read_json(record, "record of a network")
    return Network(artifact, known["macs"], known["host_ms"])


def made(context: Context, function: str, precisions: Sequence[str], precision: str = "int8") -> Artifact:
    """Export what a function of `reference_networks` builds to .tflite in the cache folder; return the artifact of
    `precision`. Raises what an export raises."""
    root = cache_folder() / "networks" / _made_with()
    with locked(root):
        inner = Context(open_project(root), context.pool, context.emit)
        folder = inner.project.artifact_folder(function, "keras", f"tflite-{precision}")
        if not (folder / MANIFEST_FILE).is_file():
            _export(inner, function, precisions)
        return load_artifact(folder)


def _export(context: Context, function: str, precisions: Sequence[str]) -> None:
    code = str(Path(reference_networks.__file__))
    calibration = f"{function}_calibration" if hasattr(reference_networks, f"{function}_calibration") else "calibration"
    own = model_refs.UserModelOptions(name=function, calibration=f"{code}:{calibration}", sizes={"batch": 1})
    selection = routes.parse_selection(tuple(f"tflite:{precision}" for precision in precisions), None)
    settings = export.ExportSettings(reference_networks.CALIBRATION_SAMPLES, {"batch": 1})
    for group in model_refs.resolve(context, (f"{code}:{function}",), "keras", own):
        export.export(context, export.plan(group, selection, targets_named=True), settings)
    if context.failures:
        raise context.failures[0]


def counted(guest: emulator.Guest, made: Network, threads: int) -> Counts:
    """What the network executes; remembered by its file, the core and its caches. Raises what counting raises."""
    manifest, core = made.artifact.manifest, guest.profile.cores[0]
    folders = guest.installed.folders
    caches = cache_arguments(guest.spec, core, threads)
    known = key(manifest.sha256, folders.device.name, folders.plugin_folder.name, guest.spec.cpu, caches)
    path = cache_folder() / "networks" / "counts" / f"{known}.json"
    if not path.is_file():
        step = f"count {made.artifact.label} for {threads} threads of {guest.name}"
        write_json(
            path, asdict(emulator.count(guest, ModelFiles.of(made.artifact), threads, step, emulator.TIMEOUT_S).counts)
        )
    return Counts(**read_json(path, "counts"))


def fit(context: Context, device: str, profile: DeviceProfile, table: Path) -> Fit:
    """Fits the device's cost model to its rows of the table.

    Raises InputError without rows, MissingDependency when the emulation is not set up, StepError when a network cannot
    be made or counted.
    """
    chosen = timings(table, device, profile)
    guest = emulator.open_guest(device, profile)
    made: dict[tuple[str, str], Network] = {}
    rows: list[TimingRow] = []
    for item in chosen:
        named = (item.network, item.precision)

        def work(item: Timing = item, named: tuple[str, str] = named) -> TimingRow:
            if named not in made:
                made[named] = network(context, *named)
            counts = counted(guest, made[named], item.threads)
            return TimingRow(item.network, item.precision, item.threads, counts, item.latency_ms)

        step = f"count {item.network} {item.precision}, {item.threads} threads, on {device}"
        row = context.attempt(step, work, lambda row: f"{row.counts.instructions / 1e6:.1f} M instructions")
        if row is None:
            raise StepError(str(context.failures[-1]), step=step)
        rows.append(row)
    return _fitted(device, profile, rows, made, sorted({item.source for item in chosen}))


def _fitted(
    device: str,
    profile: DeviceProfile,
    rows: Sequence[TimingRow],
    made: dict[tuple[str, str], Network],
    sources: Sequence[str],
) -> Fit:
    coefficients, predictions = emulated_core.fit(rows, profile), emulated_core.leave_one_out(rows, profile)
    clock_mhz = profile.cores[0].clock_mhz
    text = f"{len(rows)} timings from {', '.join(sources)}"
    figures: dict[str, Callable[[TimingRow], float | None]] = {
        "MACs x constant": lambda row: made[row.network, row.precision].macs,
        "host time x constant": lambda row: made[row.network, row.precision].host_ms,
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
    """Puts the [cost] table into the profile, in place of the one that was there; the rest stays as it is.

    Raises InputError when the profile cannot be written, or would not be read again.
    """
    write_table(path, "cost", _cost_table(spec))


def write_table(path: Path, name: str, table: str) -> None:
    """Puts a table's text into the profile before the provenance, in place of the one of that name.

    Raises InputError when the profile cannot be written, or would not be read again.
    """
    before = path.read_text()
    write_text(path, _with_table(before, name, table))
    try:
        load_profile(path)
    except InputError:
        write_text(path, before)
        raise


def _with_table(text: str, name: str, table: str) -> str:
    """The profile's text: the table and what is below it cut out, the new one before the provenance."""
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
    for item in spec.threads:
        lines += [
            "[[cost.threads]]",
            f"count = {item.count}",
            f"line_ns = {item.line_ns}",
            f"rows = {item.rows}",
            f"mean_error = {item.mean_error}                # each row predicted from the others",
            f"max_error = {item.max_error}",
        ]
    return "\n".join(lines) + "\n"


def rows_of(found: Fit) -> list[dict[str, Any]]:
    """The fit row by row, for --json: relative errors, and None where nothing could be predicted from."""
    return [
        {
            **{name: getattr(fitted.row, name) for name in ("network", "precision", "threads")},
            "published_ms": fitted.row.latency_ms,
            "instructions": fitted.row.counts.instructions,
            "memory_misses": fitted.row.counts.memory_misses,
            "fitted_ms": fitted.predicted_ms,
            "left_out_ms": left_out.predicted_ms,
            "left_out_error": left_out.error,
            **{f"{name}: left_out_error": items[index].error for name, items in found.alternatives.items()},
        }
        for index, (fitted, left_out) in enumerate(zip(found.fitted, found.predictions, strict=True))
    ]


def table_rows(found: Fit) -> list[tuple[str, ...]]:
    """The fit for a table: the network, the published figure, the fitted and the left-out ones, and the errors."""
    return [
        (
            str(row["network"]),
            str(row["precision"]),
            str(row["threads"]),
            format_ms(row["published_ms"]),
            format_ms(row["fitted_ms"]),
            *(_percent(row[name]) for name in row if name.endswith("left_out_error")),
        )
        for row in rows_of(found)
    ]


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:+.1f} %"

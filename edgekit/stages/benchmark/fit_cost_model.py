"""Fits the cost model of an emulated core to published timings of reference networks."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.config.device_profile import CostSpec, DeviceProfile, load_profile
from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.atomic_files import read_bytes, read_json, sha256_file, write_output
from edgekit.core.environment.project import open_project
from edgekit.core.environment.requirements import KERAS, TENSORFLOW, versions
from edgekit.core.environment.user_cache import cache_folder, locked
from edgekit.core.errors import InputError, StepError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.emulated_measurement import Counts, CriticalPath, Region
from edgekit.core.units import format_ms
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.typed_json import Count, MeanCount, Name, decode
from edgekit.devices.cost_models import emulated_core, reference_networks
from edgekit.devices.cost_models.emulated_core import Prediction, TimingRow, Workload
from edgekit.devices.emulation import emulator, pins
from edgekit.devices.emulation.folders import key
from edgekit.stages.benchmark.post_process_job import PostProcessRequest, write_post_process
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import export, export_plans, routes
from edgekit.stages.models import model_refs

# The table of published timings in device_profiles/measured/.
MEASURED_FILE = "published_latency.csv"
# The precisions that the published table covers.
_PRECISIONS = ("float32", "int8")
# The post-processing of detectors among the counted networks, by network and precision: of so many anchors. It takes
# instructions in proportion to them.
POST_PROCESS = ("detection_post_process", "float32")
POST_PROCESS_ANCHORS = 19206
# The time limit of counting a network, in seconds: large ones take minutes.
_COUNT_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Timing:
    """One published timing of a device, with the peak memory in MiB where that is published."""

    network: str
    precision: str
    threads: int
    latency_ms: float
    source: str
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Fit:
    """A fitted cost model.

    Attributes:
        device: The name of the device.
        spec: The fitted coefficients.
        predictions: Each row predicted from the networks of other families.
        fitted: The predictions by the coefficients that were fitted to all rows.
        alternatives: The same predictions of one-parameter baselines, by name.
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
                memory = float(row["peak_memory_mib"]) if row.get("peak_memory_mib") else None
                rows.append(Timing(row["model"], row["precision"], int(row["threads"]), latency, source, memory))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: line {number} has a missing or mistyped column ({error})") from None
    if not rows:
        raise InputError(f"{path}: no timing of {device} to fit its cost model; its latencies stay uncalibrated")
    return tuple(rows)


def _networks_folder() -> Path:
    """Return the cache folder of exported networks, keyed by their code and the versions of the framework."""
    fingerprint = key(sha256_file(Path(reference_networks.__file__)), versions((TENSORFLOW, KERAS)))
    return cache_folder() / "networks" / fingerprint


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
    settings = export_plans.ExportSettings(reference_networks.CALIBRATION_SAMPLES, {"batch": 1})
    for group in model_refs.resolve(context, (f"{code}:{function}",), "keras", options):
        export.export(context, export_plans.plan(group, selection, targets_named=True), settings)
    if context.failures:
        raise context.failures[0]


@dataclass(frozen=True)
class NetworkCounts:
    """What one inference of a reference network executes on a device's emulated core.

    Attributes:
        network: The network's name in the table of timings.
        precision: Its precision.
        counts: The counts of one thread.
        memory_misses: Number of threads, as text -> lines from memory with the caches of one of so many threads.
        regions: The parallel regions, each as tasks, whether it is tiled (0 or 1), instructions and L1 misses.
        peak_memory_bytes: The peak of the process's data memory.
    """

    network: Name
    precision: Name
    counts: Counts
    memory_misses: dict[str, MeanCount]
    regions: tuple[tuple[float, ...], ...]
    peak_memory_bytes: Count

    def workload(self, threads: int) -> Workload:
        """Return what one inference executes with a number of threads.

        Args:
            threads: The number of threads.

        Returns:
            The counts with the caches of one of `threads` threads, and the critical path.
        """
        lines = self.memory_misses[str(threads)]
        last = "l3_misses" if self.counts.l3_misses is not None else "l2_misses"
        counts = self.counts if getattr(self.counts, last) is None else replace(self.counts, **{last: lines})
        regions = [Region(int(tasks), bool(tiled), work, misses) for tasks, tiled, work, misses in self.regions]
        return Workload(counts, CriticalPath.of(counts, regions, threads), threads)


@dataclass(frozen=True)
class _CountsFile:
    """The content of a file of counts."""

    made_by: Name
    runtime: Name
    networks: tuple[NetworkCounts, ...]


def read_counts(context: Context, table: Path, device: str) -> dict[tuple[str, str], NetworkCounts]:
    """Read the counts of a device: those beside the table of timings, and those that this project has added.

    Args:
        context: The project.
        table: The table of timings.
        device: The name of the device.

    Returns:
        The counts by network and precision.

    Raises:
        InputError: A file is damaged.
    """
    counts: dict[tuple[str, str], NetworkCounts] = {}
    for path in dict.fromkeys((_counts_file(table, device), _project_counts(context, device))):
        if path.is_file():
            stored = decode(_CountsFile, read_json(path, "counts of networks"), path, f"remove {path}")
            counts |= {(entry.network, entry.precision): entry for entry in stored.networks}
    return counts


def _counts_file(table: Path, device: str) -> Path:
    return table.with_name(f"counts_{device}.json")


def _project_counts(context: Context, device: str) -> Path:
    return _counts_file(context.project.root / "device_profiles" / "measured" / MEASURED_FILE, device)


def _write_counts(path: Path, device: str, counts: Iterable[NetworkCounts]) -> None:
    """Write a file of counts with one network a line, so that a new network changes one line."""
    lines = ",\n".join(json.dumps(asdict(entry)) for entry in counts)
    text = (
        f'{{"made_by": "edgekit devices fit {device}", "runtime": "litert {pinned_runtime_version()}", "networks": [\n'
    )
    write_output(path, f"{text}{lines}\n]}}\n")


def pinned_runtime_version() -> str:
    """Return the version of LiteRT on emulated cores."""
    return next(wheel.partition("==")[2] for wheel in pins.WHEELS["base"] if wheel.startswith("ai-edge-litert=="))


def _count_post_process(context: Context, guest: emulator.Guest) -> NetworkCounts:
    network, precision = POST_PROCESS
    step = f"write {network}"
    with tempfile.TemporaryDirectory(prefix="post-process-", dir=context.scratch()) as folder:
        request = PostProcessRequest(POST_PROCESS_ANCHORS, folder)
        signature = context.pool.call(write_post_process, request, step=step, environment=runtime_environment("litert"))
        path = Path(folder, "model.tflite")
        samples = Path(folder, "samples.npz")
        model = ModelFiles(network, "tflite", precision, "litert", path, (path,), signature, samples)
        return count_network(guest, model, network, precision)


def count_network(guest: emulator.Guest, model: ModelFiles, network: str, precision: str) -> NetworkCounts:
    """Count one inference of a network on a device's emulated core, for all its numbers of threads at once.

    Args:
        guest: The emulated device.
        model: The exported network.
        network: Its name in the table of timings.
        precision: Its precision.

    Returns:
        The counts.

    Raises:
        StepError: The emulated process fails or exceeds its time-out.
    """
    step = f"count {model.label} on {guest.name}"
    several = tuple(range(2, guest.profile.cores[0].count + 1))
    result = emulator.count(guest, model, 1, step, _COUNT_TIMEOUT_S, several)
    misses = {1: result.counts.memory_misses, **result.memory_misses}
    return NetworkCounts(
        network,
        precision,
        result.counts,
        {str(threads): value for threads, value in misses.items()},
        tuple(
            (region.tasks, int(region.tiled), region.instructions, region.l1_misses) for region in result.regions or ()
        ),
        result.peak_memory_bytes,
    )


def published_rows(
    published: Sequence[Timing], counts: Mapping[tuple[str, str], NetworkCounts]
) -> list[tuple[Timing, TimingRow]]:
    """Join timings and counts, with those of the post-processing where a timing includes it.

    Args:
        published: The timings of one device.
        counts: The counts by network and precision.

    Returns:
        The timings whose networks were counted.
    """
    return [
        (timing, _timing_row(timing, counts[timing.network, timing.precision], counts.get(POST_PROCESS)))
        for timing in published
        if _is_counted(timing, counts)
    ]


def _timing_row(timing: Timing, counts: NetworkCounts, post_process: NetworkCounts | None) -> TimingRow:
    family = reference_networks.FAMILIES[timing.network]
    work, anchors = counts.workload(timing.threads), reference_networks.ANCHORS.get(timing.network)
    if anchors is not None and post_process is not None:
        work = work.plus(post_process.workload(timing.threads), anchors / POST_PROCESS_ANCHORS)
    return TimingRow(timing.network, family, timing.precision, work, timing.latency_ms)


def _is_counted(timing: Timing, counts: Mapping[tuple[str, str], NetworkCounts]) -> bool:
    needs_post_process = timing.network in reference_networks.ANCHORS
    return (timing.network, timing.precision) in counts and (not needs_post_process or POST_PROCESS in counts)


def fit(context: Context, device: str, profile: DeviceProfile, table: Path, counted_only: bool = False) -> Fit:
    """Fit a device's cost model to its published timings.

    Networks without counts beside the table are exported and counted on the emulated core. Their counts go to the
    project's `device_profiles/measured/`.

    Args:
        context: The project and its workers.
        device: The name of the device.
        profile: The device's profile.
        table: The table of published timings, a CSV file.
        counted_only: Whether to leave out the timings of networks without counts.

    Returns:
        The fitted cost model.

    Raises:
        InputError: The table is damaged, or has no timing of the device.
        MissingDependency: The emulation is not set up.
        StepError: A network cannot be exported or counted.
    """
    published = timings(table, device, profile)
    counts = read_counts(context, table, device)
    needed = dict.fromkeys((timing.network, timing.precision) for timing in published)
    if any(network in reference_networks.ANCHORS for network, _ in needed):
        needed[POST_PROCESS] = None
    for network, precision in needed:
        if counted_only or (network, precision) in counts:
            continue
        guest = emulator.open_guest(device, profile)

        def count(guest: emulator.Guest = guest, network: str = network, precision: str = precision) -> NetworkCounts:
            if (network, precision) == POST_PROCESS:
                return _count_post_process(context, guest)
            function = reference_networks.PUBLISHED_AS[network]
            artifact = export_network(context, function, _PRECISIONS, precision)
            return count_network(guest, ModelFiles.of(artifact), network, precision)

        step = f"count {network} {precision} on {device}"
        entry = context.attempt(step, count, lambda entry: f"{entry.counts.instructions / 1e6:.1f} M instructions")
        if entry is None:
            raise StepError(str(context.failures[-1]), step=step)
        counts[network, precision] = entry
        _write_counts(_project_counts(context, device), device, counts.values())
    rows = [row for _, row in published_rows(published, counts)]
    if not rows:
        raise InputError(f"no network with a timing of {device} was counted; leave out --counted")
    return _fit_rows(device, profile, rows, pooled_predictions(context, table), published)


def device_rows(context: Context, table: Path) -> dict[str, tuple[DeviceProfile, list[tuple[Timing, TimingRow]]]]:
    """Return the counted timings of each emulated device.

    Args:
        context: The project.
        table: The table of published timings.

    Returns:
        Device -> its profile and its timings.
    """
    found = {}
    for device, path in context.project.device_files().items():
        profile = load_profile(path)
        if profile.emulation is not None and profile.emulation.published_as is not None:
            counts = read_counts(context, table, device)
            found[device] = (profile, published_rows(timings(table, device, profile), counts))
    return found


def pooled_predictions(context: Context, table: Path) -> list[Prediction]:
    """Predict the timings of all devices, each from networks of other families on the same device.

    Args:
        context: The project.
        table: The table of published timings.

    Returns:
        The predictions of all devices, from which intervals are computed.
    """
    pooled: list[Prediction] = []
    for profile, pairs in device_rows(context, table).values():
        pooled += emulated_core.leave_family_out([row for _, row in pairs], profile)
    return pooled


def _fit_rows(
    device: str,
    profile: DeviceProfile,
    rows: Sequence[TimingRow],
    pooled: Sequence[Prediction],
    published: Sequence[Timing],
) -> Fit:
    coefficients = emulated_core.fit(rows, profile)
    clock_mhz = profile.cores[0].clock_mhz
    sources = dict.fromkeys(timing.source for timing in published)
    text = f"{len(rows)} timings from {', '.join(sources)}"
    by_instructions = emulated_core.predict_by_ratio(rows, lambda row: row.work.counts.instructions)
    return Fit(
        device,
        emulated_core.cost_spec(coefficients, rows, pooled, text),
        tuple(emulated_core.leave_family_out(rows, profile)),
        tuple(Prediction(row, coefficients.latency_ms(row.work, clock_mhz)) for row in rows),
        {"instructions x constant": tuple(by_instructions)},
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


def with_cost(text: str, spec: CostSpec) -> str:
    """Return the text of a device profile with another [cost] table, which is before [provenance].

    Args:
        text: The text of the profile.
        spec: The coefficients.
    """
    return _with_table(text, "cost", _cost_table(spec))


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
            inside = line.startswith((f"[{name}]", f"[{name}.", f"[[{name}."))
        if not inside:
            kept.append(line)
    rest = "".join(kept)
    before, header, after = rest.partition("[provenance]\n")
    return f"{before.rstrip()}\n\n{table}\n{header}{after}" if header else f"{rest}\n{table}"


def _cost_table(spec: CostSpec) -> str:
    width = "covers nine of ten networks of families that were not fitted"
    lines = [
        "[cost]                            # written by: edgekit devices fit",
        f"cycles_per_instruction = {spec.cycles_per_instruction}",
        f"cycles_per_l1_miss = {spec.cycles_per_l1_miss}",
        f"line_ns = {spec.line_ns}",
        f"bus_line_ns = {spec.bus_line_ns}",
        f"region_us = {spec.region_us}",
        f"rows = {spec.rows}",
        f"threads = {list(spec.threads)}",
        f"width_one_thread = {spec.width_one_thread}         # {width}",
        f"unseen_one_thread = {spec.unseen_one_thread}",
        f"width_several_threads = {spec.width_several_threads}",
        f"unseen_several_threads = {spec.unseen_several_threads}",
        f'fitted_with = "{spec.fitted_with}"',
        f'runtime = "{spec.runtime}"',
        "[cost.properties]                 # the ranges of the fitted networks",
        *(f'"{name}" = {{ low = {span.low}, high = {span.high} }}' for name, span in spec.properties.items()),
    ]
    if spec.measured is not None:
        lines.append("[cost.measured]                   # on a board of one's own")
        # JSON's strings and numbers are also TOML's.
        values = {key: value for key, value in asdict(spec.measured).items() if value is not None}
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
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
            "instructions": fitted.row.work.counts.instructions,
            "memory_misses": fitted.row.work.counts.memory_misses,
            "regions": fitted.row.work.path.regions,
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

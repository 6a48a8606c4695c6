"""Fits the cost model of an emulated core to measurements on a board of one's own, and describes the board."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from edgekit.config.board import BOARDS
from edgekit.config.device_profile import DeviceProfile, MeasuredSpec, load_profile
from edgekit.contracts.executor import EXECUTORS, BenchRequest, ExecutionSession, ModelFiles, Place
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.atomic_files import read_json, write_json, write_output
from edgekit.core.environment.project import user_profiles_folder
from edgekit.core.environment.user_cache import cache_folder
from edgekit.core.errors import InputError, StepFailed, unknown_name
from edgekit.core.events import FinishEvent, NoteEvent, StartEvent
from edgekit.core.records.artifact import Artifact
from edgekit.core.units import format_ms
from edgekit.core.values.typed_json import Name, decode
from edgekit.devices.boards.board import Board, open_board
from edgekit.devices.boards.board_profile import not_emulated, printable, profile_document, read_document, to_toml
from edgekit.devices.boards.machine import Machine
from edgekit.devices.boards.places import SSH, profile_file
from edgekit.devices.cost_models import emulated_core, reference_networks
from edgekit.devices.cost_models.emulated_core import Prediction, TimingRow
from edgekit.devices.emulation import emulator, pins
from edgekit.devices.emulation.folders import key
from edgekit.devices.emulation.guest import cache_arguments
from edgekit.devices.emulation.setup import Say
from edgekit.stages.benchmark.fit_cost_model import (
    Fit,
    NetworkCounts,
    count_network,
    export_network,
    pinned_runtime_version,
    with_cost,
)
from edgekit.stages.context import Context

T = TypeVar("T")
PRECISIONS = ("float32", "int8")
# The runtime whose thread pool is observed: only its regions can be told apart.
RUNTIME = "litert"
# With fewer families, a family that is left out is predicted from one kind of network.
MIN_FAMILIES = 3
# A range of the medians of a measurement's processes beyond this share of the latency is noise.
MAX_NOISE = 0.1
# A version as the board gives it, which becomes part of a file.
_VERSION = re.compile(r"[A-Za-z0-9.+!-]{1,64}")
# How often a noisy measurement is made before the board is refused.
_ATTEMPTS = 3


@dataclass(frozen=True)
class BoardFitOptions:
    """The options of a fit to a board.

    Attributes:
        networks: The reference networks; empty for all, or for the small ones with `quick`.
        precisions: Their precisions.
        threads: The numbers of threads, to which one thread is added; empty for one thread and all fast cores.
        quick: Whether to measure small networks only, for a shorter time.
        max_noise: The largest range of a measurement's medians, relative to the latency.
        repeat: Whether timings that were kept are measured again.
        timeout_s: The time limit of one measurement in seconds.
    """

    networks: tuple[str, ...] = ()
    precisions: tuple[str, ...] = PRECISIONS
    threads: tuple[int, ...] = ()
    quick: bool = False
    max_noise: float = MAX_NOISE
    repeat: bool = False
    timeout_s: float = 600.0

    def request(self, threads: int) -> BenchRequest:
        """Return how a network is measured with a number of threads."""
        return BenchRequest(threads, 0.25 if self.quick else 1.0, 50, 3.0, self.timeout_s)


@dataclass(frozen=True)
class BoardTiming:
    """A measurement of a reference network on a board.

    Attributes:
        latency_ms: The median of the medians of several processes, in ms.
        low_ms: The smallest of these medians.
        high_ms: The largest of them.
        date: The day of the measurement, as YYYY-MM-DD.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    date: Name

    @property
    def noise(self) -> float:
        """The range of the medians relative to the latency."""
        return (self.high_ms - self.low_ms) / self.latency_ms


@dataclass(frozen=True)
class BoardFit:
    """A cost model that was fitted to a board, with the board's profile.

    Attributes:
        fit: The fitted cost model and its predictions.
        timings: The measurements, in the order of the predictions.
        profile: The text of the device profile.
        remarks: What a reader of the fit has to know.
    """

    fit: Fit
    timings: tuple[BoardTiming, ...]
    profile: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Subject:
    """A board that is measured, with its emulated core."""

    name: str
    board: Board
    machine: Machine
    guest: emulator.Guest
    versions: str
    options: BoardFitOptions

    def counts_file(self, artifact: Artifact) -> Path:
        """Return where the counts of an artifact are kept."""
        core, spec = self.guest.profile.cores[0], self.guest.spec
        caches = [cache_arguments(spec, core, threads) for threads in range(1, core.count + 1)]
        installed = self.guest.installed
        parts = (installed.folders.plugin_folder.name, installed.sites[pins.wheel_set(RUNTIME)].parent.name)
        return _kept_folder() / f"counts-{key(artifact.manifest.sha256, asdict(spec), caches, parts)}.json"

    def timing_file(self, artifact: Artifact, threads: int) -> Path:
        """Return where the timing of an artifact with a number of threads is kept."""
        identity = (self.name, self.board.config.label, self.machine.description, self.machine.kernel, self.versions)
        request = asdict(self.options.request(threads))
        return _kept_folder() / f"timing-{key(artifact.manifest.sha256, identity, request)}.json"


def _kept_folder() -> Path:
    return cache_folder() / "board-fits"


def check_options(options: BoardFitOptions, profile: DeviceProfile) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the networks and the numbers of threads of a fit.

    Args:
        options: The options.
        profile: The profile of the board.

    Raises:
        InputError: A network is unknown, the networks are of too few families, or there are not so many cores.
    """
    known = list(reference_networks.BOARD)
    for name in options.networks:
        if name not in known:
            raise unknown_name("reference network", name, known)
    networks = options.networks or (reference_networks.BOARD_QUICK if options.quick else tuple(known))
    networks = tuple(dict.fromkeys(networks))
    families = sorted({reference_networks.BOARD[name] for name in networks})
    if len(families) < MIN_FAMILIES:
        raise InputError(
            f"a fit needs networks of {MIN_FAMILIES} families, since each is predicted from the others, and these are"
            f" of {', '.join(families)}; the families are {_list_families()}",
            parameters=("models",),
        )
    cores = profile.cores[0]
    threads = tuple(sorted({1, *(options.threads or (cores.count,))}))
    if threads[-1] > cores.count:
        raise InputError(
            f"{threads[-1]} threads were requested, and the fastest cores are {cores.count}x {cores.name}",
            parameters=("threads",),
        )
    return networks, threads


def _list_families() -> str:
    members: dict[str, list[str]] = {}
    for name, family in reference_networks.BOARD.items():
        members.setdefault(family, []).append(name)
    return "; ".join(f"{family}: {', '.join(names)}" for family, names in members.items())


def fit_board(context: Context, name: str, options: BoardFitOptions, say: Say) -> BoardFit:
    """Measure reference networks on a board, count them on its emulated core, and fit the cost model.

    What was measured and counted before is kept in the user's cache folder by its hash, and not done again.

    Args:
        context: The project and its workers.
        name: The board's name.
        options: What to measure, and how.
        say: Receives a line about each part of the emulation that is set up.

    Returns:
        The fitted cost model.

    Raises:
        InputError: The board cannot be emulated or described, or an option does not fit it.
        MissingDependency: The board has no runtime, or a program for the emulation is not installed.
        StepError: The board failed, was throttled or is too noisy, or a network cannot be exported or counted.
    """
    step = f"fit {name}"
    board = open_board(context.pool, name)
    found = board.require(RUNTIMES.load(RUNTIME), step)
    machine = board.machine(step)
    base = profile_file(context.project, name)
    if base is not None:
        load_profile(base)  # raises the error that names the wrong key
    document = profile_document(name, machine, base, _today())
    profile = read_document(document, name)
    networks, threads = check_options(options, profile)
    emulator.set_up(name, profile, (), say)
    requirement = RUNTIMES.load(RUNTIME).requires[0]
    version = found[requirement.module] or ""
    versions = f"{requirement.distribution} {version if _VERSION.fullmatch(version) else 'unknown'}"
    subject = _Subject(name, board, machine, emulator.open_guest(name, profile), versions, options)
    remarks = _remarks(subject, threads)
    for text in remarks:
        context.emit(NoteEvent(step, text, warning=True))
    pairs = _measure_all(context, subject, networks, threads)
    rows, timings = [row for row, _ in pairs], tuple(timing for _, timing in pairs)
    fitted = fit_rows(name, profile, rows, _measured(subject, timings))
    return BoardFit(fitted, timings, with_cost(to_toml(document), fitted.spec), remarks)


def _remarks(subject: _Subject, threads: Sequence[int]) -> tuple[str, ...]:
    """Return in what the counted runtime differs from the one on the board, and what the fit will not predict."""
    pinned = pinned_runtime_version()
    remarks = []
    if subject.versions.rpartition(" ")[2] != pinned:
        remarks.append(f"{subject.name} has {subject.versions}, and the emulated core counts version {pinned}")
    default = subject.guest.profile.run.threads
    if default > 1 and max(threads) == 1:
        remarks.append(f"a bench runs with {default} threads here; predictions of several are fitted with --threads")
    lacking = not_emulated(subject.machine)
    if lacking:
        remarks.append(f"the emulated core lacks {', '.join(lacking)}: the board may run other kernels")
    return tuple(remarks)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _measured(subject: _Subject, timings: Sequence[BoardTiming]) -> MeasuredSpec:
    dates = sorted({timing.date for timing in timings})
    return MeasuredSpec(
        board=subject.name,
        machine=printable(subject.machine.description),
        date=" to ".join(dict.fromkeys((dates[0], dates[-1]))),
        versions=f"{subject.versions} on the board, {pinned_runtime_version()} on the emulated core",
        noise=_rounded(max(timing.noise for timing in timings)),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def fit_rows(name: str, profile: DeviceProfile, rows: Sequence[TimingRow], measured: MeasuredSpec) -> Fit:
    """Fit the cost model to measurements of one board.

    Args:
        name: The board's name.
        profile: Its profile.
        rows: The measurements with the counts of the same networks.
        measured: How they were made; the errors of families that were left out are added.

    Returns:
        The fitted cost model. Its intervals are from the errors of this board alone.
    """
    coefficients = emulated_core.fit(rows, profile)
    left_out = tuple(emulated_core.leave_family_out(rows, profile))
    found = emulated_core.errors(left_out)
    if found is not None:
        measured = replace(measured, mean_error=_rounded(found[0]), max_error=_rounded(found[1]))
    text = f"{len(rows)} own measurements on {name}, {measured.date}, {measured.versions}"
    by_instructions = emulated_core.predict_by_ratio(rows, lambda row: row.work.counts.instructions)
    clock_mhz = profile.cores[0].clock_mhz
    return Fit(
        name,
        replace(emulated_core.cost_spec(coefficients, rows, left_out, text), measured=measured),
        left_out,
        tuple(Prediction(row, coefficients.latency_ms(row.work, clock_mhz)) for row in rows),
        {"instructions x constant": tuple(by_instructions)},
    )


def _measure_all(
    context: Context, subject: _Subject, networks: Sequence[str], threads: Sequence[int]
) -> list[tuple[TimingRow, BoardTiming]]:
    """Return the rows of a fit; what is missing is counted and measured, and kept at once."""
    artifacts = {
        (network, precision): export_network(context, network, subject.options.precisions, precision)
        for network in networks
        for precision in subject.options.precisions
    }
    work: dict[str, Callable[[], str]] = {}
    for (network, precision), artifact in artifacts.items():
        _add_count(subject, artifact, (network, precision), work)
        for count in threads:
            _add_timing(context, subject, artifact, (network, precision), count, work)
    for done, (step, run) in enumerate(work.items()):
        context.emit_overview(list(work), done)
        context.emit(StartEvent(step))
        context.emit(FinishEvent(step, run()))
    pairs = []
    for (network, precision), artifact in artifacts.items():
        counts = _read(NetworkCounts, subject.counts_file(artifact))
        for count in threads:
            timing = _read(BoardTiming, subject.timing_file(artifact, count))
            work_done = counts.workload(count)
            family = reference_networks.BOARD[network]
            pairs.append((TimingRow(network, family, precision, work_done, timing.latency_ms), timing))
    return pairs


def _read(cls: type[T], path: Path) -> T:
    return decode(cls, read_json(path, "measurements of a board"), path, f"remove {path}")


def _add_count(
    subject: _Subject, artifact: Artifact, network: tuple[str, str], work: dict[str, Callable[[], str]]
) -> None:
    path = subject.counts_file(artifact)
    if path.is_file():
        return

    def run() -> str:
        counts = count_network(subject.guest, ModelFiles.of(artifact, RUNTIME), *network)
        write_json(path, asdict(counts))
        return f"{counts.counts.instructions / 1e6:.1f} M instructions"

    work[f"count {' '.join(network)} for {subject.name}"] = run


def _add_timing(
    context: Context,
    subject: _Subject,
    artifact: Artifact,
    network: tuple[str, str],
    threads: int,
    work: dict[str, Callable[[], str]],
) -> None:
    path, options = subject.timing_file(artifact, threads), subject.options
    if path.is_file() and not options.repeat and _read(BoardTiming, path).noise <= options.max_noise:
        return
    step = f"measure {' '.join(network)} on {subject.name}, {threads} thread{'s' if threads > 1 else ''}"

    def run() -> str:
        timing = _measure(context, subject, ModelFiles.of(artifact, RUNTIME), threads, step)
        write_json(path, asdict(timing))
        return f"{format_ms(timing.latency_ms)}, noise {100 * timing.noise:.1f} %"

    work[step] = run


def _measure(context: Context, subject: _Subject, model: ModelFiles, threads: int, step: str) -> BoardTiming:
    """Measure until the noise is low enough.

    Raises:
        StepFailed: The board was throttled, or is too noisy.
    """
    session, place = ExecutionSession(step, context.pool, context.emit), Place(subject.name, subject.guest.profile)
    executor, noises = EXECUTORS.load(SSH), []
    for _ in range(_ATTEMPTS):
        with executor.prepare(session, model, place, subject.options.request(threads)) as prepared:
            result = prepared.run()
        if result.throttled:
            raise StepFailed(
                f"{step}: the board was throttled ({result.throttled}); cool it or give it more power, and run the"
                " command again: the timings so far are kept",
                step=step,
            )
        low_ms, high_ms = result.low_ms or result.latency_ms, result.high_ms or result.latency_ms
        timing = BoardTiming(result.latency_ms, low_ms, high_ms, _today())
        if timing.noise <= subject.options.max_noise:
            return timing
        noises.append(timing.noise)
        context.emit(NoteEvent(step, f"its processes differ by {100 * timing.noise:.0f} %"))
    raise StepFailed(
        f"{step}: the board is too noisy: its processes differ by {100 * min(noises):.0f} % at best, and by at most"
        f" {100 * subject.options.max_noise:g} % are allowed; end other programs there, and run the command again: the"
        " timings so far are kept",
        step=step,
    )


def fitted_name(board: str) -> str:
    """Return the name of the profile that a fit writes for a board."""
    return f"{board}-fitted"


def write_profile(board: str, fitted: BoardFit, output: Path | None) -> Path:
    """Write the profile of a board.

    Args:
        board: The board's name.
        fitted: The fit.
        output: The file; None for the profiles in the user's configuration, which the board's configuration then names.

    Returns:
        The file.

    Raises:
        InputError: The file cannot be written.
    """
    if output is not None:
        write_output(output, fitted.profile)
        return output
    path = user_profiles_folder() / f"{fitted_name(board)}.toml"
    write_output(path, fitted.profile)
    BOARDS.save(board, replace(BOARDS.load(board), profile=path.stem))
    return path


def rows_of(result: BoardFit) -> list[dict[str, Any]]:
    """Return the rows of a fit for `--json`.

    Args:
        result: The fit.

    Returns:
        One entry for each measurement, with relative errors; None if there was nothing to predict a row from.
    """
    fit, (by_ratio,) = result.fit, result.fit.alternatives.values()
    return [
        {
            **{name: getattr(fitted.row, name) for name in ("network", "family", "precision", "threads")},
            "measured_ms": fitted.row.latency_ms,
            "noise": timing.noise,
            "instructions": fitted.row.work.counts.instructions,
            "memory_misses": fitted.row.work.counts.memory_misses,
            "regions": fitted.row.work.path.regions,
            "fitted_ms": fitted.predicted_ms,
            "left_out_ms": left_out.predicted_ms,
            "left_out_error": left_out.error,
            "instructions_error": ratio.error,
        }
        for fitted, left_out, ratio, timing in zip(fit.fitted, fit.predictions, by_ratio, result.timings, strict=True)
    ]


def table_rows(result: BoardFit) -> list[tuple[str, ...]]:
    """Return the rows of a fit as table cells.

    Args:
        result: The fit.

    Returns:
        For each measurement: network, precision, threads, measured latency, noise, fitted latency, and the errors.
    """
    return [
        (
            str(row["network"]),
            str(row["precision"]),
            str(row["threads"]),
            format_ms(row["measured_ms"]),
            f"{100 * row['noise']:.1f} %",
            format_ms(row["fitted_ms"]),
            *(
                "-" if row[name] is None else f"{100 * row[name]:+.1f} %"
                for name in ("left_out_error", "instructions_error")
            ),
        )
        for row in rows_of(result)
    ]

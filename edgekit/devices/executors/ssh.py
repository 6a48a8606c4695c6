"""Runs models on a board that is reached over ssh, with the runtimes that are installed there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

from edgekit.config.board import BOARDS
from edgekit.contracts.executor import (
    BenchRequest,
    BenchResult,
    ExecutionSession,
    Executor,
    InferRequest,
    InferResult,
    ModelFiles,
    Place,
    PreparedBench,
)
from edgekit.contracts.runner import infer_request, measure_request, read_measurement, read_outputs
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import StepFailed
from edgekit.core.records.samples import Samples
from edgekit.devices.boards.board import Board, BoardRun, open_board
from edgekit.devices.boards.machine import fastest_cpus, state_notes, throttling
from edgekit.devices.repeated_runs import PROCESSES, summarize
from edgekit.workers import scratch
from edgekit.workers.pool import WorkerPool

DEFAULT_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class _BoardBench(PreparedBench):
    """A model whose files are on the board."""

    board: Board
    runtime: Runtime
    model: ModelFiles
    request: BenchRequest
    threads: int
    cpus: tuple[int, ...]
    step: str
    notes: tuple[str, ...]
    waiting: Callable[[], None]

    def run(self) -> BenchResult:
        """Measure in several processes, one after the other; the interval is that of their medians."""
        runs = [self._measure() for _ in range(PROCESSES)]
        results = [
            read_measurement(_result(run, self.step), self.board.known_machine(self.step).description) for run in runs
        ]
        notes = (*self.notes, *state_notes(runs[0].before, runs[-1].after, self.cpus))
        throttled = throttling(runs[0].before, runs[-1].after, self.cpus)
        return replace(summarize(results, notes), throttled=throttled)

    def _measure(self) -> BoardRun:
        return self.board.execute(
            self.runtime,
            self.model,
            measure_request(self.model, self.request, self.threads, self.cpus),
            self.model.samples,
            step=self.step,
            timeout_s=self.request.timeout_s,
            threads=self.threads,
            waiting=self.waiting,
        )


def _result(run: BoardRun, step: str) -> dict[str, object]:
    try:
        result = json.loads(run.texts["result.json"])
    except (KeyError, ValueError, RecursionError):
        result = None
    if not isinstance(result, dict):
        raise StepFailed(f"{step}: the board's result is not valid JSON", step=step)
    return result


def version_notes(found: Mapping[str, str | None], requirements: Sequence[Requirement], name: str) -> tuple[str, ...]:
    """Return a remark for each package whose version differs from that of this host.

    Args:
        found: Module -> version on the board.
        requirements: The packages.
        name: The board's name.
    """
    return tuple(
        f"{item.distribution} {found[item.module]} on {name}, {item.version()} on this host"
        for item in requirements
        if found.get(item.module) and item.version() and found[item.module] != item.version()
    )


class SshExecutor(Executor):
    """Measures in fresh processes on the board, pinned to its fastest cores, while nothing else is measured there."""

    name = "ssh"
    title = "a board over ssh"
    tier = "device"
    # This host only waits for the board, which has a lock of its own.
    exclusive = False

    def refusal(self, runtime: str, place: Place) -> str:
        if place.device not in BOARDS.files():
            return f"{place.device} is not a board; add one with: edgekit devices add NAME --ssh USER@HOST"
        if RUNTIMES.load(runtime).in_browser:
            return f"{runtime} runs in a browser"
        if runtime in RUNTIMES.third_party_names():
            return f"{runtime} is a runtime of another package, which is not sent to boards"
        return ""

    def connect(self, pool: WorkerPool, place: Place) -> None:
        open_board(pool, place.device).check_python()

    def identity(self, place: Place) -> str:
        board = BOARDS.load(place.device)
        return f"{self.name} {board.label} {board.python}"

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        """Send the files of the model to the board, and check that its runtime is there.

        Args:
            session: The workers, whose end closes the connection, and the name of the step.
            model: The model.
            place: The board.
            request: How to measure.

        Yields:
            The model on the board.

        Raises:
            InputError: The board, its key or its host key is refused.
            MissingDependency: There is no ssh here, or no Python or runtime there.
            StepError: The board does not answer, or has no space left.
        """
        self.check(model.runtime, place)
        board, runtime = open_board(session.pool, place.device), RUNTIMES.load(model.runtime)
        found = board.require(runtime, session.step)
        machine = board.machine(session.step)
        threads = request.threads_at(place)
        cpus, note = fastest_cpus(machine.cores, threads)
        notes = (note, *version_notes(found, runtime.requires, place.device))
        waiting = session.announce_wait(place.device)
        board.send(model, model.samples, step=session.step, timeout_s=request.timeout_s, waiting=waiting)
        yield _BoardBench(
            board,
            runtime,
            model,
            request,
            min(threads, len(cpus)),
            cpus,
            session.step,
            tuple(text for text in notes if text),
            waiting,
        )

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run samples on the board.

        Args:
            session: The workers, whose end closes the connection, and the name of the step.
            model: The model.
            place: The board.
            request: The samples.

        Returns:
            Real values by output name.

        Raises:
            InputError: The board, its key or its host key is refused.
            MissingDependency: There is no ssh here, or no Python or runtime there.
            StepError: The board failed, does not answer, or has no space left.
        """
        self.check(model.runtime, place)
        board, runtime = open_board(session.pool, place.device), RUNTIMES.load(model.runtime)
        board.require(runtime, session.step)
        with tempfile.TemporaryDirectory(prefix=scratch.prefix()) as folder:
            samples, outputs = Path(folder, "samples.npz"), Path(folder, "outputs.npz")
            Samples(dict(request.inputs), {}).save(samples)
            run = board.execute(
                runtime,
                model,
                {**infer_request(model, samples, outputs), "batch": request.batch},
                samples,
                step=session.step,
                timeout_s=request.timeout_s or DEFAULT_TIMEOUT_S,
                threads=1,
                output=outputs.name,
                waiting=session.announce_wait(place.device),
            )
            outputs.write_bytes(run.output)
            try:
                return InferResult(read_outputs(outputs))
            except (
                ValueError,
                OSError,
                KeyError,
                EOFError,
                BadZipFile,
            ) as error:  # what numpy raises for a damaged archive
                raise StepFailed(f"{session.step}: the outputs of {place.device} are damaged ({error})") from None


EXECUTOR = SshExecutor()

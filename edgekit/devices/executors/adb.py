"""Runs .tflite files on a phone that is reached over adb, with LiteRT's benchmark_model or a runner like it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.config.phone import PHONES
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
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import InputError, MissingDependency, StepFailed
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import from_tensor, to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.records import samples
from edgekit.core.units import format_ms
from edgekit.core.values.specs import Signature
from edgekit.devices.boards.machine import fastest_cpus, state_notes, throttling
from edgekit.devices.infer_job import SignatureRequest, read_signature
from edgekit.devices.phones import benchmark_model as runner
from edgekit.devices.phones.phone import UNPINNED, Phone, open_phone
from edgekit.devices.repeated_runs import PROCESSES, summarize
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

# The runtime that the runner contains.
_RUNTIME = "litert"
DEFAULT_TIMEOUT_S = 600.0
_UNCOMPARED = (
    f"outputs cannot be compared on the phone: its runner has no --{runner.OUTPUT_FLAG}; take one of TensorFlow 2.11 or"
    " later, or of LiteRT"
)


@dataclass(frozen=True)
class _PhoneBench(PreparedBench):
    """A model whose files are on the phone."""

    phone: Phone
    model: ModelFiles
    inputs: bytes
    n_inputs: int
    request: BenchRequest
    threads: int
    cpus: tuple[int, ...]
    step: str
    notes: tuple[str, ...]
    waiting: Callable[[], None]

    def run(self) -> BenchResult:
        """Measure in several processes, one after the other; the interval is that of their medians."""
        before = self.phone.facts(self.step)
        outputs, pinned = zip(*(self._measure() for _ in range(PROCESSES)), strict=True)
        operators = self._measure(runner.PROFILE_WORD)[0].operators if self.request.per_operator else ()
        after = self.phone.facts(self.step)
        notes = [
            *self.notes,
            _spread_note(sorted(outputs, key=lambda output: output.latency_ms)[PROCESSES // 2]),
            *state_notes(before.machine.state, after.machine.state, self.cpus),
            *after.notes(),
        ]
        if not all(pinned):
            notes.append("not pinned: the phone does not let its cores be chosen")
        if self.request.per_operator and not operators:
            notes.append("no latency by operator: the runner printed no profile")
        results = [self._result(output, before.machine.description, all(pinned)) for output in outputs]
        throttled = throttling(before.machine.state, after.machine.state, self.cpus)
        return replace(summarize(results, tuple(notes)), operators=operators, throttled=throttled)

    def _measure(self, *words: str) -> tuple[runner.RunnerResult, bool]:
        """Measure in one process; return the measurement, and whether it ran on the chosen cores."""
        request = self.request
        # A slow model ends by itself, with fewer runs, before it would be stopped without a figure.
        max_s = max(request.min_duration_s, request.timeout_s / 2)
        flags = runner.measure_words(
            self.threads, request.min_runs, request.min_duration_s, max_s, request.warm_up_max_s
        )
        printed = self.phone.measure(
            self.model.path,
            self.inputs,
            [*runner.input_words(self.n_inputs), *flags, *words],
            self.cpus,
            step=self.step,
            timeout_s=request.timeout_s,
            waiting=self.waiting,
        )
        try:
            return runner.parse_output(printed), UNPINNED not in printed
        except ValueError as error:
            message = f"{self.step}: the output of the phone's runner cannot be read ({error})"
            raise StepFailed(message, step=self.step, stderr_tail=printed) from None

    def _result(self, output: runner.RunnerResult, description: str, pinned: bool) -> BenchResult:
        return BenchResult(
            latency_ms=output.latency_ms,
            threads=self.threads,
            description=description,
            load_ms=output.load_ms,
            first_inference_ms=output.first_inference_ms,
            warm_up_runs=output.warm_up_runs,
            cpus=self.cpus if pinned else None,
            peak_memory_load_bytes=output.peak_memory_load_bytes,
            peak_memory_run_bytes=output.peak_memory_run_bytes,
        )


def _spread_note(output: runner.RunnerResult) -> str:
    """Return the distribution of one process; the runner does not print single latencies."""
    values = [("min", output.min_ms), ("p5", output.p5_ms), ("p95", output.p95_ms), ("max", output.max_ms)]
    spread = ", ".join(f"{name} {format_ms(value)}" for name, value in values if value is not None)
    mean = "" if output.median_ms is not None else "; the latency is a mean, as the runner prints no median"
    return f"{spread} over {output.runs} runs{mean}"


def _file_signature(session: ExecutionSession, model: ModelFiles) -> Signature:
    """Return the inputs and outputs in the order of the file, which is the runner's; the manifest's is the source's."""
    runtime = RUNTIMES.load(model.runtime)
    environment = Environment.of(runtime.variables, confined=runtime.confined)
    request = SignatureRequest(model.runtime, str(model.path), model.signature)
    signature = session.pool.call(read_signature, request, step=session.step, environment=environment)
    names = {spec.name for spec in (*signature.inputs, *signature.outputs)}
    unknown = [spec.name for spec in (*model.signature.inputs, *model.signature.outputs) if spec.name not in names]
    if unknown:
        raise InputError(f"{model.label}: the file has no input or output {unknown[0]}")
    return signature


def raw_calls(
    model: ModelFiles, file: Signature, inputs: Mapping[str, Array], batch: int = 1, limit: int | None = None
) -> list[list[Array]]:
    """Return the raw inputs of each call.

    Args:
        model: The model.
        file: Its inputs and outputs in the order of the file.
        inputs: Real values of shape (N, ...) by input name.
        batch: The number of samples per call if the batch is symbolic.
        limit: The largest number of calls; None for all.

    Returns:
        For each call, one array per input in the order of the file.
    """
    specs = model.signature.inputs
    order = [[spec.name for spec in specs].index(spec.name) for spec in file.inputs]
    calls = itertools.islice(batching.iter_batches(model.signature, inputs, batch), limit)
    raw = ([to_tensor(array, spec) for array, spec in zip(call, specs, strict=True)] for call in calls)
    return [[call[index] for index in order] for call in raw]


def _output_shapes(model: ModelFiles, signature: Signature, call: Sequence[Array]) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs of a call; the file's are those of a single sample."""
    shapes = [tuple(int(dim) for dim in spec.shape) for spec in signature.outputs]
    return [(len(call[0]), *shape[1:]) for shape in shapes] if batching.has_symbolic_batch(model.signature) else shapes


class AdbExecutor(Executor):
    """Measures in fresh processes on the phone, pinned to its fastest cores, while nothing else is measured there."""

    name = "adb"
    title = "a phone over adb"
    tier = "device"
    # This host only waits for the phone, which has a lock of its own.
    exclusive = False

    def refusal(self, runtime: str, place: Place) -> str:
        if place.device not in PHONES.files():
            return f"{place.device} is not a phone; add one with: edgekit devices add NAME --adb SERIAL"
        if runtime != _RUNTIME:
            return f"the runner of phones runs .tflite files in {RUNTIMES.load(_RUNTIME).title} only, not {runtime}"
        return ""

    def connect(self, pool: WorkerPool, place: Place) -> None:
        phone = open_phone(pool, place.device)
        phone.facts()
        phone.runner()

    def identity(self, place: Place) -> str:
        phone = PHONES.load(place.device)
        if phone.runner is None:
            return f"{self.name} {phone.adb} {runner.DEFAULT_PATH}"
        file = Path(phone.runner)
        runner.elf_abi(file)  # raises the error of a file that is not there
        return f"{self.name} {phone.adb} {sha256_file(file)}"

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        """Send the model, the runner and the inputs of one inference to the phone.

        Args:
            session: The workers, whose end ends what runs on the phone, and the name of the step.
            model: The model.
            place: The phone.
            request: How to measure.

        Yields:
            The model on the phone.

        Raises:
            InputError: The phone is not connected or does not allow it, or the runner is built for another one.
            MissingDependency: There is no adb here, or no runner there.
            StepError: The phone does not answer, or has no space left.
        """
        self.check(model.runtime, place)
        phone = open_phone(session.pool, place.device)
        machine, known = phone.facts(session.step).machine, phone.runner(session.step)
        threads = request.threads_at(place)
        cpus, note = fastest_cpus(machine.cores, threads)
        notes = [text for text in (note, "" if known.writes_outputs else _UNCOMPARED) if text]
        real = samples.load(model.samples, "samples").inputs
        inputs = runner.pack_calls(raw_calls(model, _file_signature(session, model), real, limit=1))
        waiting = session.announce_wait(place.device)
        phone.send([model.path], step=session.step, timeout_s=request.timeout_s, waiting=waiting)
        yield _PhoneBench(
            phone,
            model,
            inputs,
            len(model.signature.inputs),
            request,
            min(threads, len(cpus)),
            cpus,
            session.step,
            tuple(notes),
            waiting,
        )

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run samples on the phone, each in a process of its own.

        Args:
            session: The workers, whose end ends what runs on the phone, and the name of the step.
            model: The model.
            place: The phone.
            request: The samples.

        Returns:
            Real values by output name.

        Raises:
            InputError: The phone is not connected or does not allow it, or the runner is built for another one.
            MissingDependency: There is no adb here, no runner there, or one that does not write outputs.
            StepError: The runner failed, or the phone does not answer or has no space left.
        """
        self.check(model.runtime, place)
        phone = open_phone(session.pool, place.device)
        if not phone.runner(session.step).writes_outputs:
            raise MissingDependency(f"{session.step}: {_UNCOMPARED}")
        signature = _file_signature(session, model)
        calls = raw_calls(model, signature, request.inputs, request.batch)
        written = phone.infer(
            model.path,
            runner.pack_calls(calls),
            [*runner.input_words(len(signature.inputs)), *runner.infer_words()],
            step=session.step,
            timeout_s=request.timeout_s or DEFAULT_TIMEOUT_S,
            waiting=session.announce_wait(place.device),
        )
        shapes = [_output_shapes(model, signature, call) for call in calls]
        outputs = runner.unpack_outputs(written, [spec.dtype for spec in signature.outputs], shapes)
        order = [[spec.name for spec in signature.outputs].index(spec.name) for spec in model.signature.outputs]
        joined = batching.concat_outputs(
            model.signature, request.inputs, [[call[index] for index in order] for call in outputs]
        )
        return InferResult({spec.name: from_tensor(joined[spec.name], spec) for spec in model.signature.outputs})


EXECUTOR = AdbExecutor()

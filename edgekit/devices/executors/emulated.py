"""Runs models on a device's core under QEMU: counts instructions and predicts the latency with a cost model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
from edgekit.devices.emulation import emulator, pins


@dataclass(frozen=True)
class _EmulatedBench(PreparedBench):
    """A bench on a device whose emulation is set up."""

    guest: emulator.Guest
    model: ModelFiles
    threads: int
    step: str
    timeout_s: float

    def run(self) -> BenchResult:
        emulated = emulator.emulate(self.guest, self.model, self.threads, self.step, self.timeout_s)
        return BenchResult(
            latency_ms=emulated.latency_ms,
            low_ms=emulated.low_ms,
            high_ms=emulated.high_ms,
            threads=self.threads,
            description=f"QEMU's {self.guest.spec.cpu}",
            peak_memory_run_bytes=emulated.peak_memory_bytes,
            emulated=emulated,
        )


class EmulatedExecutor(Executor):
    """Counts instructions and cache misses of the runtime under emulation; other load on this host has no influence."""

    name = "emulated"
    title = "the device's core under QEMU"
    tier = "emulated"
    exclusive = False

    def refusal(self, runtime: str, place: Place) -> str:
        if place.profile is None:
            return "the emulated tier needs a device"
        if place.profile.emulation is None:
            return f"{place.device} cannot be emulated: its profile has no [emulation] table"
        return "" if runtime in pins.RUNTIMES else f"the emulated core does not run {runtime}"

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        self.check(model.runtime, place)
        assert place.profile is not None  # `check` refuses a place without a profile
        guest = emulator.open_guest(place.device, place.profile)
        yield _EmulatedBench(guest, model, request.threads_at(place), session.step, request.timeout_s)

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        self.check(model.runtime, place)
        assert place.profile is not None  # `check` refuses a place without a profile
        guest = emulator.open_guest(place.device, place.profile)
        timeout_s = request.timeout_s or emulator.TIMEOUT_S
        return InferResult(emulator.infer(guest, model, request.inputs, session.step, timeout_s))


EXECUTOR = EmulatedExecutor()

"""This machine, with the threads and the memory limit of a device profile. Exact for this host only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from edgekit.contracts.runner import RUNNER_MODULE, measure_request, read_measurement, write_request
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.requirements import require
from edgekit.devices import host_machine
from edgekit.devices.host_machine import HostPlan
from edgekit.devices.infer_job import RunRequest, run_model
from edgekit.workers.environment import Environment
from edgekit.workers.gated_process import GatedProcess


@dataclass(frozen=True)
class _GatedBench(PreparedBench):
    """The runner in a process that has loaded the runtime's library and waits."""

    process: GatedProcess
    result: Path
    plan: HostPlan

    def run(self) -> BenchResult:
        self.process.release()
        measured: dict[str, Any] = json.loads(self.result.read_text())
        notes = (self.plan.note,) if self.plan.note else ()
        return read_measurement(measured, host_machine.description(), notes)


class Host(Executor):
    """Measures in a process of its own, pinned to cores; infers in a warm worker."""

    name = "host"
    title = "this machine"
    tier = "host"

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        """Start the measuring process, which loads the runtime's library and waits.

        The process gets its cores when it measures: others may prepare beside it before.
        """
        runtime = RUNTIMES.load(model.runtime)
        require(runtime.requires, f"the runtime {runtime.name}")
        plan = host_machine.plan(place.profile, request.threads)
        # OpenBLAS is numpy's, with which nothing is measured; its threads would keep the process from being copied.
        variables = {"OMP_NUM_THREADS": str(plan.threads), "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        settings = tuple(sorted({**variables, **runtime.variables}.items()))
        environment = Environment(settings, None, plan.memory_limit_bytes)
        with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
            request_file, result = Path(folder, "request.json"), Path(folder, "result.json")
            write_request(request_file, measure_request(model, request, plan.threads, plan.cpus))
            start = session.pool.fork_servers.start(RUNNER_MODULE, [model.runtime], environment, request.timeout_s)
            words = [str(request_file), str(result)]
            with GatedProcess(start, words, environment, step=session.step, timeout_s=request.timeout_s) as process:
                yield _GatedBench(process, result, plan)

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run samples in a warm worker: loading a runtime's library takes longer than most validations."""
        outputs = session.pool.call(
            run_model,
            RunRequest(model.runtime, str(model.path), model.signature, request.inputs, 1, request.batch),
            step=session.step,
            environment=Environment.of(RUNTIMES.load(model.runtime).variables),
            timeout_s=request.timeout_s,
        )
        return InferResult(outputs)


EXECUTOR = Host()

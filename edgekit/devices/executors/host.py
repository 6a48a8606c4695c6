"""Runs models on this machine, with the threads and the memory limit of a device profile."""

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
from edgekit.core.errors import InputError
from edgekit.devices import host_machine
from edgekit.devices.browsers.names import browser_only
from edgekit.devices.host_machine import HostPlan
from edgekit.devices.infer_job import RunRequest, run_model, run_model_in_both_ways
from edgekit.workers import scratch
from edgekit.workers.environment import Environment
from edgekit.workers.gated_process import GatedProcess


@dataclass(frozen=True)
class _GatedBench(PreparedBench):
    """A runner process that has loaded the runtime's library and waits for its start signal."""

    process: GatedProcess
    result: Path
    plan: HostPlan

    def run(self) -> BenchResult:
        self.process.release()
        measured: dict[str, Any] = json.loads(self.result.read_text())
        notes = (self.plan.note,) if self.plan.note else ()
        return read_measurement(measured, host_machine.description(), notes)


class HostExecutor(Executor):
    """Measures in a separate process that is pinned to cores; infers in a warm worker."""

    name = "host"
    title = "this machine"
    tier = "host"

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        """Start the runner process, which loads the runtime's library and waits.

        The process is pinned to its cores only when it measures, so that several can be prepared concurrently.

        Args:
            session: The workers and fork servers, and the name of the step.
            model: The model.
            place: This host, with a device profile or without.
            request: How to measure.

        Yields:
            The waiting process.

        Raises:
            InputError: The runtime runs in a browser.
            MissingDependency: The runtime is not installed.
            StepError: The process crashed, ran out of memory or exceeded the time limit.
        """
        runtime = RUNTIMES.load(model.runtime)
        if runtime.in_browser:
            raise InputError(browser_only(runtime.name))
        require(runtime.requires, f"the runtime {runtime.name}")
        plan = host_machine.plan(place.profile, request.threads)
        # Only numpy uses OpenBLAS, and no measured code uses numpy; a process with its threads could not be forked.
        variables = {"OMP_NUM_THREADS": str(plan.threads), "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        settings = tuple(sorted({**variables, **runtime.variables}.items()))
        with tempfile.TemporaryDirectory(prefix=scratch.prefix()) as folder:
            environment = Environment(
                settings, None, plan.memory_limit_bytes, confined=runtime.confined, writable=(folder,)
            )
            request_file, result = Path(folder, "request.json"), Path(folder, "result.json")
            write_request(request_file, measure_request(model, request, plan.threads, plan.cpus))
            start = session.pool.fork_servers.start(RUNNER_MODULE, [model.runtime], environment, request.timeout_s)
            words = [str(request_file), str(result)]
            with GatedProcess(start, words, environment, step=session.step, timeout_s=request.timeout_s) as process:
                yield _GatedBench(process, result, plan)

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run samples in a warm worker, since loading a runtime's library takes longer than most validations.

        Args:
            session: The workers and the name of the step.
            model: The model.
            place: This host, with a device profile or without; it has no influence on the outputs.
            request: The samples.

        Returns:
            Real values by output name; those by default as well, if requested.

        Raises:
            InputError: The runtime cannot load the model.
            StepError: The worker crashed, ran out of memory or exceeded the time limit.
        """
        runtime = RUNTIMES.load(model.runtime)
        run = RunRequest(
            model.runtime, str(model.path), model.signature, request.inputs, 1, request.batch, request.from_start
        )
        environment = Environment.of(runtime.variables, confined=runtime.confined)
        step, timeout_s = session.step, request.timeout_s
        if request.by_default:
            return session.pool.call(
                run_model_in_both_ways, run, step=step, environment=environment, timeout_s=timeout_s
            )
        outputs = session.pool.call(run_model, run, step=step, environment=environment, timeout_s=timeout_s)
        return InferResult(outputs)


EXECUTOR = HostExecutor()

"""The executor `command`: runs models through a command, such as `taskset -c 0` or `ssh board`.

The environment variable EDGEKIT_COMMAND holds the words before the name of the Python. The Python at the other end
needs edgekit and the runtime, and sees the same files.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
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
from edgekit.contracts.runner import (
    infer_request,
    measure_request,
    read_measurement,
    read_outputs,
    runner_arguments,
    write_request,
)
from edgekit.core.errors import StepFailed, StepTimedOut
from edgekit.core.records.samples import Samples

VARIABLE = "EDGEKIT_COMMAND"
DEFAULT_TIMEOUT_S = 600.0


def _words() -> list[str]:
    return shlex.split(os.environ.get(VARIABLE, ""))


def _run(request: dict[str, Any], folder: Path, step: str, timeout_s: float) -> dict[str, Any]:
    """Run the runner through the command, and return its result."""
    request_file, result_file = folder / "request.json", folder / "result.json"
    write_request(request_file, request)
    python = os.environ.get("EDGEKIT_COMMAND_PYTHON", sys.executable)
    command = [*_words(), python, "-P", *runner_arguments(request_file, result_file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise StepFailed(f"{step}: no such command: {command[0]}; see {VARIABLE}", step=step) from None
    except subprocess.TimeoutExpired:
        raise StepTimedOut(f"{step}: no answer after {timeout_s:g} s; it was stopped", step=step) from None
    if done.returncode != 0 or not result_file.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise StepFailed(f"{step}: {shlex.join(command[:1])}: {lines[-1]}", step=step, stderr_tail=done.stderr)
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


@dataclass(frozen=True)
class CommandBench(PreparedBench):
    """A request that waits to be run."""

    request: dict[str, Any]
    folder: Path
    step: str
    timeout_s: float

    def run(self) -> BenchResult:
        measured = _run(self.request, self.folder, self.step, self.timeout_s)
        return read_measurement(measured, f"command {shlex.join(_words())}")


class Command(Executor):
    """Runs models through the command of EDGEKIT_COMMAND."""

    name = "command"
    title = "a command, such as ssh board"
    tier = "device"

    def refusal(self, runtime: str, place: Place) -> str:
        return "" if _words() else f"set {VARIABLE}, for example to 'ssh board'"

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        self.check(model.runtime, place)
        threads = request.threads or (place.profile.run.threads if place.profile else 1)
        with tempfile.TemporaryDirectory(prefix="edgekit-command-") as folder:
            runner_request = measure_request(model, request, threads)
            yield CommandBench(runner_request, Path(folder), session.step, request.timeout_s)

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        self.check(model.runtime, place)
        with tempfile.TemporaryDirectory(prefix="edgekit-command-") as folder:
            samples, outputs = Path(folder, "samples.npz"), Path(folder, "outputs.npz")
            Samples(dict(request.inputs), {}).save(samples)
            timeout_s = request.timeout_s or DEFAULT_TIMEOUT_S
            _run(infer_request(model, samples, outputs), Path(folder), session.step, timeout_s)
            return InferResult(read_outputs(outputs))


EXECUTOR = Command()

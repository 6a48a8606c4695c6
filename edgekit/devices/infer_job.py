"""Running a model file on samples; runs inside a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.events import Listener
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class RunRequest:
    """Samples for a model file.

    Attributes:
        runtime: The runtime's name.
        path: The model file, absolute.
        signature: The file's inputs and outputs.
        inputs: Real values by input name, shape (N, ...).
        threads: The number of threads.
        batch: Samples a call, where the batch is symbolic.
    """

    runtime: str
    path: str
    signature: Signature
    inputs: Mapping[str, Array]
    threads: int = 1
    batch: int = 1


@worker_job
def run_model(request: RunRequest, _emit: Listener) -> dict[str, Array]:
    """Return the outputs by name as real values, shape (N, ...)."""
    runtime = RUNTIMES.load(request.runtime)
    session = runtime.open(Path(request.path), threads=request.threads, signature=request.signature)
    return session.infer(request.inputs, request.batch)

"""Worker job that runs a model file on samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.contracts.executor import InferResult
from edgekit.contracts.runtime import RUNTIMES, RuntimeSession
from edgekit.core.environment.instruction_set import instruction_set
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class RunRequest:
    """Request to run samples through a model file.

    Attributes:
        runtime: The runtime's name.
        path: The model file, absolute.
        signature: The file's inputs and outputs.
        inputs: Real values by input name, each of shape (N, ...).
        threads: The number of threads.
        batch: Samples per call, where the batch dimension is symbolic.
        from_start: Whether to open the file again for each sample, so that each is computed from the initial state.
    """

    runtime: str
    path: str
    signature: Signature
    inputs: Mapping[str, Array]
    threads: int = 1
    batch: int = 1
    from_start: bool = False


@dataclass(frozen=True)
class SignatureRequest:
    """Request to look at a model file.

    Attributes:
        runtime: The runtime's name.
        path: The model file, absolute.
        signature: The file's inputs and outputs, for formats that do not describe them.
    """

    runtime: str
    path: str
    signature: Signature


def _open(request: RunRequest) -> RuntimeSession:
    runtime = RUNTIMES.load(request.runtime)
    return runtime.open(Path(request.path), threads=request.threads, signature=request.signature)


@worker_job
def run_model(request: RunRequest, _emit: Listener) -> dict[str, Array]:
    """Run a model file on samples.

    Args:
        request: The file, its runtime and the samples.

    Returns:
        Real values by output name, each of shape (N, ...).

    Raises:
        InputError: The runtime cannot load the file, or the inputs do not match its signature.
    """
    return _infer(request, _open(request))


@worker_job
def run_model_in_both_ways(request: RunRequest, _emit: Listener) -> InferResult:
    """Run a model file on samples, and once more as an application does that sets no options of the runtime.

    Args:
        request: The file, its runtime and the samples.

    Returns:
        Real values by output name, each of shape (N, ...), and what computed them.

    Raises:
        InputError: The runtime cannot load the file, or the inputs do not match its signature.
    """
    session = _open(request)
    # A model with state has no second session: it would have to be opened again for each sample as well.
    default = None if request.from_start else session.by_default()
    return InferResult(
        _infer(request, session),
        ", ".join(part for part in (instruction_set(), session.arithmetic) if part),
        None if default is None else default.infer(request.inputs, request.batch),
    )


@worker_job
def read_signature(request: SignatureRequest, _emit: Listener) -> Signature:
    """Return the inputs and outputs of a model file in the order of the file, with the sizes of one sample.

    Args:
        request: The file and its runtime.

    Raises:
        InputError: The runtime cannot load the file.
    """
    runtime = RUNTIMES.load(request.runtime)
    return runtime.open(Path(request.path), threads=1, signature=request.signature).signature


def _infer(request: RunRequest, session: RuntimeSession) -> dict[str, Array]:
    """Run the samples in the session, or each in a session of its own, of which this is the first."""
    if not request.from_start:
        return session.infer(request.inputs, request.batch)
    count = batching.n_samples(request.signature, request.inputs)
    parts = [
        (_open(request) if index else session).infer(
            batching.select_samples(request.signature, request.inputs, index, index + 1), request.batch
        )
        for index in range(count)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

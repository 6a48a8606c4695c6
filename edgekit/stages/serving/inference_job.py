"""Worker job that computes requests in an opened model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekit.contracts.runtime import RUNTIMES, RuntimeSession
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import from_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature
from edgekit.workers.job import worker_job

# The open model of this process. A worker of the server has one model only.
_sessions: dict[OpenedModel, RuntimeSession] = {}

_MAX_REASON_CHARACTERS = 200


@dataclass(frozen=True)
class OpenedModel:
    """What a worker opens.

    Attributes:
        runtime: The name of the runtime.
        path: The main model file, absolute.
        signature: The inputs and outputs of the file.
        threads: The threads of one inference.
        from_start: Whether the file is opened again for each sample, because calls change the state of the model.
    """

    runtime: str
    path: str
    signature: Signature
    threads: int = 1
    from_start: bool = False

    def open(self) -> RuntimeSession:
        """Open the model file."""
        runtime = RUNTIMES.load(self.runtime)
        runtime.check(Path(self.path))
        return runtime.open(Path(self.path), threads=self.threads, signature=self.signature)


@dataclass(frozen=True)
class ServedInference:
    """Request to compute rows.

    Attributes:
        model: The model.
        inputs: Arrays by input name, whose first dimension is the rows; empty to only open the model.
        batch: The largest number of rows of one inference where the batch is symbolic.
        stored: Whether the outputs are returned in the types of the file, without dequantization.
    """

    model: OpenedModel
    inputs: Mapping[str, Array] = field(default_factory=dict)
    batch: int = 1
    stored: bool = False


@dataclass(frozen=True)
class ServedOutputs:
    """The outputs, or why the runtime returned none.

    Attributes:
        outputs: Arrays by output name.
        failure: The runtime's own words, one line; empty if it succeeded.
    """

    outputs: Mapping[str, Array] = field(default_factory=dict)
    failure: str = ""


@worker_job
def compute(request: ServedInference, _emit: Listener) -> ServedOutputs:
    """Compute rows in the model, which is opened by the first call.

    Args:
        request: The model and the rows.

    Returns:
        The outputs, or the reason for which the runtime rejected the values.

    Raises:
        InputError: The model file cannot be opened.
    """
    session = _sessions.get(request.model) or request.model.open()
    _sessions[request.model] = session
    if not request.inputs:
        return ServedOutputs()
    try:
        return ServedOutputs(_outputs(session, request))
    # The errors of runtimes have no common base class. As a value: an exception would be written to the worker's log
    # with its traceback, which a client could fill the disk with.
    except Exception as error:  # noqa: BLE001
        reason = next(iter(str(error).splitlines()), "")[:_MAX_REASON_CHARACTERS]
        return ServedOutputs(failure=reason or type(error).__name__)


def _outputs(session: RuntimeSession, request: ServedInference) -> dict[str, Array]:
    signature = session.signature
    if request.model.from_start:
        count = batching.n_samples(signature, request.inputs)
        samples = [batching.select_samples(signature, request.inputs, index, index + 1) for index in range(count)]
        del _sessions[request.model]  # its state is used up; the last session is opened for the next request
        parts = []
        for sample in samples:
            parts.append(session.infer_stored(sample))
            session = request.model.open()
        _sessions[request.model] = session
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    else:
        outputs = session.infer_stored(request.inputs, request.batch)
    if request.stored:
        return outputs
    return {spec.name: from_tensor(outputs[spec.name], spec) for spec in signature.outputs}

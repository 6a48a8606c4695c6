"""The worker job that computes the code size of operators: disassembling a library takes much memory."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.events import Listener
from edgekit.core.records.section_sizes import CodeSize
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class CodeSizeRequest:
    """A request for the code size of operators.

    Attributes:
        runtime: The name of the runtime.
        operators: The names of the operators, as in the model file.
    """

    runtime: str
    operators: tuple[str, ...]


@worker_job
def read_code_size(request: CodeSizeRequest, _emit: Listener) -> CodeSize:
    """Return the code size of the operators and of their interpreter.

    Args:
        request: The operators and their runtime.

    Returns:
        The code size in bytes, by section.
    """
    return RUNTIMES.load(request.runtime).code_size(request.operators)

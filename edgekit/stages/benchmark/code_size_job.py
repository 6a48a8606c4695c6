"""The code size of operators; runs inside a worker, since disassembling a library takes memory."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.events import Listener
from edgekit.core.records.section_sizes import CodeSize
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class CodeSizeRequest:
    """Operators by name, as the file calls them, and the runtime that runs them."""

    runtime: str
    operators: tuple[str, ...]


@worker_job
def read_code_size(request: CodeSizeRequest, _emit: Listener) -> CodeSize:
    """Return the code size of the operators and of the interpreter that runs them."""
    return RUNTIMES.load(request.runtime).code_size(request.operators)

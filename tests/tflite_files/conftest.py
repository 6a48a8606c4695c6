"""The fixture that runs frameworks in workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from _helpers.support import WORKER_PATH
from _helpers.worker_side.function_call import FunctionCall, call_function

from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool


@pytest.fixture(scope="session")
def in_worker(pool: WorkerPool) -> Callable[..., Any]:
    """Return a function: `in_worker("rewritten", form=…)` runs `tflite_models.rewritten` in a worker."""

    def run(name: str, /, **arguments: Any) -> Any:
        return pool.call(
            call_function,
            FunctionCall("tflite_models", name, arguments),
            step=f"do {name}",
            environment=Environment.of({"PYTHONPATH": WORKER_PATH}, confined=False),
        )

    return run

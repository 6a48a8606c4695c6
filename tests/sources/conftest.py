"""Fixtures that run frameworks in workers: the process of the tests imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _helpers.support import WORKER_PATH
from _helpers.worker_side.function_call import FunctionCall, call_function

from edgekit.core.environment import plugin_registry
from edgekit.core.errors import InputError
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

Work = Callable[..., Any]


@pytest.fixture(scope="session")
def work(pool: WorkerPool) -> Work:
    """Return a function: `work("torch", "program", path=…)` runs `model_files.program` in a worker of that kind.

    `module:function` names a function of another module beside `model_files`.
    """

    def run(kind: str, name: str, /, **arguments: Any) -> Any:
        module, _, function = name.rpartition(":")
        variables = plugin_registry.load("edgekit.sources", kind, "SOURCE").variables
        return pool.call(
            call_function,
            FunctionCall(
                module or "model_files",
                function,
                {key: str(v) if isinstance(v, Path) else v for key, v in arguments.items()},
            ),
            step=f"do {name}",
            # The checks are tested alone: confined workers would hide what a file gets past them.
            environment=Environment.of({**variables, "PYTHONPATH": WORKER_PATH}, confined=False),
        )

    return run


@pytest.fixture(scope="session")
def refusal(work: Work) -> Callable[..., str]:
    """Return a function like `work` that expects an InputError and returns its one-sentence message."""

    def run(kind: str, name: str, /, **arguments: Any) -> str:
        with pytest.raises(InputError) as caught:
            work(kind, name, **arguments)
        sentence = str(caught.value)
        assert len(sentence.splitlines()) == 1
        assert caught.value.exit_code == 2
        return sentence

    return run

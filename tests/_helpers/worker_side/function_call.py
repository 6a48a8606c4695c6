"""A job that calls any function by name: tests have many small ones."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.core.events import Listener
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class FunctionCall:
    """A function of a module that the worker can import, and its keyword arguments without `emit`."""

    module: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@worker_job
def call_function(request: FunctionCall, emit: Listener) -> Any:
    function = getattr(importlib.import_module(request.module), request.name)
    return function(**request.arguments, emit=emit)

"""The operators: a function each, found by domain and name, and the call that it is given."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.values import Constant, Host, to_host, to_tensor

Operator = Callable[["Call"], Any]
"""Gives the node's output, or a tuple of them where there are several."""

_OPERATORS: dict[tuple[str, str], Operator] = {}
_ON_HOST: dict[str, Operator] = {}
_CHECKS: dict[tuple[str, str], Callable[[Step], str | None]] = {}


@dataclass(frozen=True)
class Step:
    """A node of the graph. `version` is the opset of its domain; `last_use` are the values nobody reads after it."""

    name: str
    domain: str
    op_type: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    last_use: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.op_type} (node '{self.name}', {self.domain or 'ai.onnx'} opset {self.version})"


@dataclass(frozen=True)
class Call:
    """One run of a node: its attributes, and its inputs as the operator wants them, tensors or numbers."""

    step: Step
    values: tuple[Any, ...]
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.step.version)

    def attribute(self, name: str, default: Any = None) -> Any:
        """A number, a string, a list, or an array."""
        return self.step.attributes.get(name, default)

    @property
    def outputs(self) -> int:
        """How many outputs the node names; trailing ones may be left out."""
        return len(self.step.outputs)

    def wants(self, index: int) -> bool:
        """Whether somebody may read output `index`."""
        return index < self.outputs and bool(self.step.outputs[index])

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.values) and self.values[index] is not None

    def tensor(self, index: int) -> Any:
        """Input `index` as a tensor."""
        value = self.values[index]
        if isinstance(value, Constant):
            return value.tensor if value.tensor is not None else to_tensor(value.array)
        return to_tensor(value) if isinstance(value, np.ndarray) else value

    def maybe(self, index: int) -> Any:
        """Input `index` as a tensor, None where it is left out."""
        return self.tensor(index) if self.has(index) else None

    def tensors(self) -> list[Any]:
        """All inputs as tensors."""
        return [self.tensor(index) for index in range(len(self.values))]

    def host(self, index: int) -> Host | None:
        """Input `index` as an array if it is on the host, else None."""
        value = self.values[index] if self.has(index) else None
        value = value.array if isinstance(value, Constant) else value
        return value if isinstance(value, np.ndarray) else None

    def numbers(self, index: int) -> list[Any]:
        """Input `index` as a flat list of numbers; a tensor's data where it is none of the host's values."""
        array = self.host(index)
        if array is None:
            array = to_host(self.tensor(index))
        flat = array.reshape(-1)
        return [flat[i] for i in range(flat.size)] if array.dtype == object else flat.tolist()

    def number(self, index: int, default: Any = None) -> Any:
        """Input `index`, a scalar, as a number."""
        return self.numbers(index)[0] if self.has(index) else default

    def axes(self, index: int) -> list[int] | None:
        """Axes, an attribute until some opset made them input `index`; None where they are left out."""
        if self.has(index):
            return [int(axis) for axis in self.numbers(index)]
        found: list[int] | None = self.attribute("axes")
        return found


def operator(*op_types: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Registers the function for these operators."""

    def register(function: Operator) -> Operator:
        _OPERATORS.update({(domain, op_type): function for op_type in op_types})
        return function

    return register


def on_host(*op_types: str) -> Callable[[Operator], Operator]:
    """Registers the function for these operators where all inputs are on the host.

    It gives NotImplemented where the outcome would be data and no shape: the operator for tensors runs then.
    """

    def register(function: Operator) -> Operator:
        _ON_HOST.update(dict.fromkeys(op_types, function))
        return function

    return register


def refuses(*op_types: str) -> Callable[[Callable[[Step], str | None]], Callable[[Step], str | None]]:
    """Registers a look at a node before anything runs: it gives what is not supported about it, or None."""

    def register(function: Callable[[Step], str | None]) -> Callable[[Step], str | None]:
        _CHECKS.update({("", op_type): function for op_type in op_types})
        return function

    return register


def known() -> list[tuple[str, str]]:
    """Domain and name of every operator."""
    _load()
    return sorted(_OPERATORS)


def unsupported(step: Step) -> str | None:
    """Why the node cannot be run, or None."""
    _load()
    key = (step.domain, step.op_type)
    if key not in _OPERATORS:
        return str(step)
    reason = _CHECKS[key](step) if key in _CHECKS else None
    return f"{step} with {reason}" if reason else None


def run(step: Step, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The node's outputs."""
    call = Call(step, values)
    result = NotImplemented
    if step.op_type in _ON_HOST and not step.domain and _all_on_host(call):
        result = _ON_HOST[step.op_type](call)
    if result is NotImplemented:
        result = _OPERATORS[(step.domain, step.op_type)](call)
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _all_on_host(call: Call) -> bool:
    return all(call.host(index) is not None for index in range(len(call.values)) if call.has(index))


@functools.cache
def _load() -> None:
    """Imports the files beside this one that register operators."""
    for path in sorted(Path(__file__).parent.glob("operators_*.py")):
        importlib.import_module(f"{__package__}.{path.stem}")

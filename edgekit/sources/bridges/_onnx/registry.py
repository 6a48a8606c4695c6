"""The registry of operators, and the call object that each operator receives."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.values import Constant, Host, to_host, to_tensor

# Computes a node: returns its output, or a tuple if there are several.
Operator = Callable[["Call"], Any]

# By domain and operator name; the default domain of ONNX is the empty string.
_OPERATORS: dict[tuple[str, str], Operator] = {}
# Operators of the default domain for inputs that are all on the host; `values.py` says why shapes stay there.
_ON_HOST: dict[str, Operator] = {}
_CHECKS: dict[tuple[str, str], Callable[[GraphStep], str | None]] = {}


@dataclass(frozen=True)
class GraphStep:
    """A node of the graph, prepared for execution.

    Attributes:
        name: The node's name, or its first output's.
        domain: The operator's domain; empty for `ai.onnx`.
        op_type: The operator's name.
        version: The opset version of the domain that the model imports.
        inputs: The names of the inputs; an empty name is an omitted optional input.
        outputs: The names of the outputs; an empty name is an unused optional output.
        attributes: The attributes as Python values; tensors are numpy arrays.
        last_use: The names of the values that no later step reads.
    """

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
    """One execution of a step, with access to its attributes and to its inputs as tensors or numbers.

    Attributes:
        step: The step.
        values: The inputs: tensors, host arrays, constants, or None for omitted ones.
        version: The opset version of the step's domain.
    """

    step: GraphStep
    values: tuple[Any, ...]
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.step.version)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute.

        Args:
            name: The attribute's name.
            default: The value if the node omits the attribute.

        Returns:
            A number, string, list or array.
        """
        return self.step.attributes.get(name, default)

    @property
    def outputs(self) -> int:
        """The number of outputs that the node names; trailing optional outputs may be missing."""
        return len(self.step.outputs)

    def wants(self, index: int) -> bool:
        """Return whether the node names output `index`, so that another node may read it."""
        return index < self.outputs and bool(self.step.outputs[index])

    def has(self, index: int) -> bool:
        """Return whether input `index` is present."""
        return index < len(self.values) and self.values[index] is not None

    def tensor(self, index: int) -> Any:
        """Return input `index` as a tensor."""
        value = self.values[index]
        if isinstance(value, Constant):
            return value.tensor if value.tensor is not None else to_tensor(value.array)
        return to_tensor(value) if isinstance(value, np.ndarray) else value

    def maybe(self, index: int) -> Any:
        """Return input `index` as a tensor, None if it is omitted."""
        return self.tensor(index) if self.has(index) else None

    def tensors(self) -> list[Any]:
        """Return all inputs as tensors."""
        return [self.tensor(index) for index in range(len(self.values))]

    def host(self, index: int) -> Host | None:
        """Return input `index` as an array if it is on the host, else None."""
        value = self.values[index] if self.has(index) else None
        value = value.array if isinstance(value, Constant) else value
        return value if isinstance(value, np.ndarray) else None

    def numbers(self, index: int) -> list[Any]:
        """Return input `index` as a flat list of numbers.

        Args:
            index: The index of the input.

        Returns:
            Integers, floats or torch.SymInts.

        Raises:
            RuntimeError: The input is a tensor without data, because torch is tracing; torch raises the error.
        """
        array = self.host(index)
        if array is None:
            array = to_host(self.tensor(index))
        flat = array.reshape(-1)
        return [flat[i] for i in range(flat.size)] if array.dtype == object else flat.tolist()

    def number(self, index: int, default: Any = None) -> Any:
        """Return scalar input `index` as a number, `default` if it is omitted."""
        return self.numbers(index)[0] if self.has(index) else default

    def axes(self, index: int) -> list[int] | None:
        """Return the axes of input `index` or of the attribute `axes`; None if both are omitted.

        Squeeze, Unsqueeze and ReduceSum take the axes as an input since opset 13, the other reductions since 18.
        """
        if self.has(index):
            return [int(axis) for axis in self.numbers(index)]
        axes: list[int] | None = self.attribute("axes")
        return axes


def operator(*op_types: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Return a decorator that registers a function for operators.

    Args:
        *op_types: The names of the operators.
        domain: Their domain; empty for `ai.onnx`.

    Returns:
        The decorator.
    """

    def register(function: Operator) -> Operator:
        _OPERATORS.update({(domain, op_type): function for op_type in op_types})
        return function

    return register


def on_host(*op_types: str) -> Callable[[Operator], Operator]:
    """Return a decorator that registers a function for operators whose inputs are all on the host.

    The function returns NotImplemented if its result would be data rather than a shape; the tensor operator runs then.

    Args:
        *op_types: The names of the operators, in the domain `ai.onnx`.

    Returns:
        The decorator.
    """

    def register(function: Operator) -> Operator:
        _ON_HOST.update(dict.fromkeys(op_types, function))
        return function

    return register


def refuses(*op_types: str) -> Callable[[Callable[[GraphStep], str | None]], Callable[[GraphStep], str | None]]:
    """Return a decorator that registers a check of nodes, which runs before anything is computed.

    The check returns what is unsupported about the step, to be read after "with", or None.

    Args:
        *op_types: The names of the operators, in the domain `ai.onnx`.

    Returns:
        The decorator.
    """

    def register(function: Callable[[GraphStep], str | None]) -> Callable[[GraphStep], str | None]:
        _CHECKS.update({("", op_type): function for op_type in op_types})
        return function

    return register


def supported_operators() -> list[tuple[str, str]]:
    """Return the domain and name of every supported operator, sorted."""
    _load()
    return sorted(_OPERATORS)


def unsupported_reason(step: GraphStep) -> str | None:
    """Return a description of a step that cannot be executed, None for one that can.

    Args:
        step: The step.

    Returns:
        The step with its node, domain and opset, and what is unsupported about it.
    """
    _load()
    key = (step.domain, step.op_type)
    if key not in _OPERATORS:
        return str(step)
    reason = _CHECKS[key](step) if key in _CHECKS else None
    return f"{step} with {reason}" if reason else None


def run(step: GraphStep, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Execute a step.

    Args:
        step: The step.
        values: Its inputs: tensors, host arrays, constants, or None for omitted ones.

    Returns:
        The outputs, tensors or host arrays; there may be more of them than the node names.
    """
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
    """Import the modules beside this one that register operators."""
    for path in sorted(Path(__file__).parent.glob("operators_*.py")):
        importlib.import_module(f"{__package__}.{path.stem}")

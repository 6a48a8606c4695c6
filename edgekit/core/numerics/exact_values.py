"""Which operators an integer format keeps in float: those that decide by exact values, and those that mask.

A comparison such as `x != -1` must see the value that the application passed, and quantization moves it by up to half
a step. A mask that adds -1e9 stretches the range of a tensor until every other value is rounded to zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from edgekit.core.numerics.metrics import Array

# Constants from this size on hide what they are added to, or replace it. Half precision masks by -1e4, others by -1e9
# or the lowest float; scales and offsets of data stay below (65,535 of 16-bit images is divided by).
MASKING_FROM = 9e3

NOTE = "comparisons and masks stay in float, with what they read: integers would falsify them"


class Role(StrEnum):
    """What an operator does with exact values."""

    DECIDES = "decides"
    """Compares, rounds, or turns numbers into truth values or indices: a small error becomes a whole one."""
    FORWARDS = "forwards"
    """Moves values, or computes with them without products of many: its result is as exact as what it reads."""
    APPROXIMATES = "approximates"
    """Anything else, such as a convolution, whose integer result is an approximation already."""


@dataclass(frozen=True)
class GraphOperation:
    """An operator of a graph.

    Attributes:
        role: What it does with exact values.
        inputs: The names of what it reads, without constants.
        outputs: The names of what it writes.
        masks: Whether it adds, selects or multiplies by a constant that `is_mask` recognizes.
    """

    role: Role
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    masks: bool = False


@dataclass(frozen=True)
class ExactValues:
    """What stays in float.

    Attributes:
        operations: Indices of the operators that compute in float.
        tensors: Names of the tensors that these operators read unquantized; others they may read dequantized.
    """

    operations: frozenset[int] = field(default_factory=frozenset)
    tensors: frozenset[str] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        return bool(self.operations)


def is_mask(constant: Array) -> bool:
    """Return whether a constant hides what it is added to.

    Args:
        constant: A constant of floating-point type; others never do.

    Returns:
        Whether it contains values from `MASKING_FROM` on, or infinity.
    """
    return constant.dtype.kind == "f" and bool(np.abs(constant).max(initial=0.0) >= MASKING_FROM)


def exact_values(operations: Sequence[GraphOperation], inputs: Iterable[str]) -> ExactValues:
    """Find the operators whose values integers would falsify.

    These are comparisons and other decisions on values that derive from the inputs without an approximation, with all
    operators in between, and the operators between a masking constant and the first approximation behind it (such as
    a softmax), which is included. Decisions on approximations are not: their operands are rounded anyway.

    Args:
        operations: The operators in the order of execution.
        inputs: The names of the graph's inputs.

    Returns:
        The operators and the tensors.
    """
    decisive, exact = _towards_decisions(operations, set(inputs))
    hiding, masked = _behind_masks(operations)
    return ExactValues(frozenset(decisive | hiding), frozenset(exact | masked))


def _towards_decisions(operations: Sequence[GraphOperation], derived: set[str]) -> tuple[set[int], set[str]]:
    """Return the decisions on derived values with the operators before them, and the tensors that they read."""
    for operation in operations:
        if operation.role is not Role.APPROXIMATES and derived.issuperset(operation.inputs):
            derived.update(operation.outputs)
    needed: set[str] = set()
    kept: set[int] = set()
    for index in reversed(range(len(operations))):
        operation = operations[index]
        read = derived.intersection(operation.inputs)
        decides = operation.role is Role.DECIDES and read
        before = needed.intersection(operation.outputs) and derived.issuperset(operation.inputs)
        if decides or (before and operation.role is not Role.APPROXIMATES):
            kept.add(index)
            needed |= read
    return kept, needed


def _behind_masks(operations: Sequence[GraphOperation]) -> tuple[set[int], set[str]]:
    """Return the operators that write or read values beside which others vanish, and these tensors."""
    masked: set[str] = set()
    kept: set[int] = set()
    for index, operation in enumerate(operations):
        masks = operation.masks and operation.role is Role.FORWARDS
        if masks or masked.intersection(operation.inputs):
            kept.add(index)
            if operation.role is Role.FORWARDS:
                masked.update(operation.outputs)
    return kept, masked

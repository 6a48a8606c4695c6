"""Scales of channels that move from one layer into the next one without changing what a network computes.

A tensor's channels may be divided by positive factors if what writes them divides its weights, and what reads them
multiplies its own: cross-layer equalization (https://arxiv.org/abs/1906.04721) through ReLU, sums and pooling, and the
migration of outliers from a normalization into linear layers (SmoothQuant, https://arxiv.org/abs/2211.10438). Only
values of parameters change, so every format of the network profits. Factors are powers of two: in floating point the
products and sums stay the same to the last bit, but for what underflows.

Tensors that have to share their factors form a group. A group that is read by something whose result would change
(a sigmoid, ReLU6, the network's output) is fixed: its factors stay 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgekit.core.numerics.metrics import Array

# The largest factor between two channels of a tensor, as a power of two. Larger ones serve channels that are as good as
# dead, whose weights would make those of the others vanish.
_MAX_EXPONENT = 12
# A channel whose range or weights are smaller than this part of the largest ones counts as this large.
_FLOOR = 1e-4


@dataclass(frozen=True)
class Parameter:
    """An axis of a parameter that belongs to the channels of a tensor.

    Attributes:
        name: The parameter's name.
        axis: The axis, from the front.
    """

    name: str
    axis: int


@dataclass(frozen=True)
class Operation:
    """One operation of a network, reduced to what it does with factors of channels.

    `weights` reads channels through `reads` and writes new ones through `writes`; without `reads` its input is fixed,
    as that of a normalization. `same` keeps channels (ReLU, pooling, padding, dropout; `writes` are parameters that it
    adds). `sum` adds tensors of one shape. `gate` multiplies tensors. `reshape` keeps the order of elements, `permute`
    exchanges axes by `order`. Everything else is `opaque`.

    Attributes:
        kind: The kind of operation.
        inputs: The names of the tensors that it reads; parameters are not listed.
        output: The name of the tensor that it writes.
        input_shapes: The shapes of the inputs for one call.
        output_shape: The shape of the output.
        axis: For `weights` the axis of its output's channels; for `same` that which `writes` belong to.
        input_axis: The axis of its input's channels, for `weights`.
        reads: The parameters whose axis multiplies the input's channels.
        writes: The parameters whose axis makes the output's channels.
        order: For `permute`, the axis of the input for each axis of the output.
        repeats: How many neighbouring entries of `reads` belong to one input channel (a depthwise multiplier).
        reduced: For `same`, the axes of the input over which it reduces.
        keeps_axes: For `same`, whether reduced axes stay, with the size 1.
    """

    kind: Literal["weights", "same", "sum", "gate", "reshape", "permute", "opaque"]
    inputs: tuple[str, ...]
    output: str
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shape: tuple[int, ...] = ()
    axis: int = -1
    input_axis: int = -1
    reads: tuple[Parameter, ...] = ()
    writes: tuple[Parameter, ...] = ()
    order: tuple[int, ...] = ()
    repeats: int = 1
    reduced: tuple[int, ...] = ()
    keeps_axes: bool = False


@dataclass(frozen=True)
class _Channels:
    """Where the channels of a group lie in a tensor: entry (o * C + c) * inner + i of an axis belongs to channel c."""

    group: int
    axis: int
    inner: int = 1


@dataclass(frozen=True)
class _Use:
    """A parameter's axis that is multiplied (`power` 1) or divided (-1) by the factors of a group."""

    parameter: Parameter
    group: int
    power: int
    inner: int = 1


@dataclass
class ChannelGroups:
    """The groups of a network, and the parameters and tensors that belong to each.

    Attributes:
        sizes: The number of channels by group.
    """

    sizes: list[int] = field(default_factory=list)
    _parents: list[int] = field(default_factory=list)
    _fixed: set[int] = field(default_factory=set)
    _uses: list[_Use] = field(default_factory=list)
    _tensors: dict[str, _Channels] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)

    def _new(self, size: int) -> int:
        self.sizes.append(size)
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def _root(self, group: int) -> int:
        while self._parents[group] != group:
            group = self._parents[group]
        return group

    def _fix(self, channels: _Channels | None) -> None:
        if channels is not None:
            self._fixed.add(self._root(channels.group))

    def _join(self, first: _Channels, second: _Channels) -> None:
        one, other = self._root(first.group), self._root(second.group)
        self._parents[other] = one
        if other in self._fixed:
            self._fixed.add(one)

    @classmethod
    def of(cls, operations: Sequence[Operation], outputs: Iterable[str], shared: Iterable[str] = ()) -> ChannelGroups:
        """Find the groups of a network.

        Args:
            operations: The operations in the order of computation.
            outputs: The names of the network's output tensors, which are fixed.
            shared: The names of parameters that are used more than once, which are not changed.

        Returns:
            The groups.
        """
        groups = cls()
        unchangeable = set(shared)
        for operation in operations:
            before = [groups._tensors.get(name) for name in operation.inputs]
            after = _RULES[operation.kind](groups, operation, before)
            if after is None:
                for channels in before:
                    groups._fix(channels)
            else:
                groups._tensors[operation.output] = after
        for name in outputs:
            groups._fix(groups._tensors.get(name))
        for use in groups._uses:
            if use.parameter.name in unchangeable:
                groups._fixed.add(groups._root(use.group))
        return groups

    def _weights(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        for channels in before:
            if channels is None:
                continue
            if not operation.reads or channels.axis != operation.input_axis % len(operation.input_shapes[0]):
                self._fix(channels)
                continue
            self._read[operation.inputs[0]] = channels.axis
            for parameter in operation.reads:
                self._uses.append(_Use(parameter, channels.group, 1, channels.inner * operation.repeats))
        if not operation.writes:
            return None
        axis = operation.axis % len(operation.output_shape)
        group = self._new(operation.output_shape[axis])
        self._uses += [_Use(parameter, group, -1) for parameter in operation.writes]
        return _Channels(group, axis)

    def _same(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        channels = before[0]
        if channels is None or channels.axis in operation.reduced:
            return None
        if operation.writes and (channels.inner != 1 or operation.axis % len(operation.output_shape) != channels.axis):
            return None
        self._uses += [_Use(parameter, channels.group, -1) for parameter in operation.writes]
        gone = 0 if operation.keeps_axes else sum(axis < channels.axis for axis in operation.reduced)
        return _Channels(channels.group, channels.axis - gone, channels.inner)

    def _sum(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        first = before[0]
        alike = all(
            channels is not None
            and first is not None
            and (channels.axis, channels.inner) == (first.axis, first.inner)
            and self.sizes[channels.group] == self.sizes[first.group]
            and shape == operation.output_shape
            for channels, shape in zip(before, operation.input_shapes, strict=True)
        )
        if not alike or first is None:
            return None
        for channels in before[1:]:
            assert channels is not None  # all are alike
            self._join(first, channels)
        self._read[operation.output] = first.axis
        return first

    def _gate(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        # One factor passes unchanged through a product if the other operand has none.
        whole = [
            index
            for index, shape in enumerate(operation.input_shapes)
            if shape == operation.output_shape and before[index] is not None
        ]
        if not whole:
            return None
        for index, channels in enumerate(before):
            if index != whole[0]:
                self._fix(channels)
        kept = before[whole[0]]
        others = [before[index] for index in range(len(before)) if index != whole[0]]
        # A tensor that is multiplied by itself, or by one of its own group, would carry the square of its factors.
        if kept is not None and any(
            other is not None and self._root(other.group) == self._root(kept.group) for other in others
        ):
            return None
        return kept

    def _reshape(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        channels = before[0]
        if channels is None:
            return None
        shape, new = operation.input_shapes[0], operation.output_shape
        size = self.sizes[channels.group]
        outer, inner = math.prod(shape[: channels.axis]), math.prod(shape[channels.axis + 1 :]) * channels.inner
        outer *= shape[channels.axis] // (size * channels.inner)
        for axis in range(len(new)):
            before_axis, behind_axis = math.prod(new[:axis]), math.prod(new[axis + 1 :])
            if axis == 0 or outer % before_axis or inner % behind_axis:
                continue
            if outer // before_axis * size * (inner // behind_axis) == new[axis]:
                return _Channels(channels.group, axis, inner // behind_axis)
        return None

    def _permute(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        channels = before[0]
        if channels is None:
            return None
        return _Channels(channels.group, operation.order.index(channels.axis), channels.inner)

    def _opaque(self, operation: Operation, before: list[_Channels | None]) -> _Channels | None:
        return None

    @property
    def free(self) -> dict[int, tuple[str, ...]]:
        """The groups whose factors can be chosen, which have a writer and a reader, with the tensors to measure."""
        read: dict[int, list[str]] = {}
        for name in self._read:
            read.setdefault(self._root(self._tensors[name].group), []).append(name)
        written = {self._root(use.group) for use in self._uses if use.power < 0}
        consumed = {self._root(use.group) for use in self._uses if use.power > 0}
        return {
            group: tuple(names)
            for group, names in read.items()
            if group in written & consumed and group not in self._fixed
        }

    def axis(self, tensor: str) -> int:
        """Return the axis of a tensor that holds its channels.

        Args:
            tensor: The name of a tensor in `free`.

        Returns:
            The axis, from the front.
        """
        return self._tensors[tensor].axis

    def factors(
        self, ranges: Mapping[str, Array], parameters: Mapping[str, Array], migration: float = 0.5
    ) -> dict[int, Array]:
        """Choose the factors of each free group.

        A channel is divided by range^m / weight^(1 - m), where the range is the largest absolute value of the channel
        in any measured tensor of the group, and the weight the largest one that reads it, relative to the largest one
        of its own output channel (SmoothQuant, eq. 4).

        Args:
            ranges: The largest absolute value of each entry of a tensor's channel axis, by tensor.
            parameters: The parameters by name.
            migration: The exponent m: 1 makes all ranges equal, 0 all weights.

        Returns:
            Powers of two by group, with a geometric mean of about 1. Groups that need none are left out.
        """
        chosen = {}
        for group, tensors in self.free.items():
            size = self.sizes[group]
            measured = [self._fold(ranges[name], self._tensors[name].inner, size) for name in tensors if name in ranges]
            if not measured:
                continue
            activation = _floored(np.max(measured, axis=0))
            weight = _floored(self._largest_weights(group, parameters))
            exponents = migration * np.log2(activation) - (1 - migration) * np.log2(weight)
            exponents = np.rint(exponents - np.median(exponents)).clip(-_MAX_EXPONENT, _MAX_EXPONENT)
            if exponents.any():
                chosen[group] = np.exp2(exponents)
        return chosen

    def _largest_weights(self, group: int, parameters: Mapping[str, Array]) -> Array:
        """Return the largest weight that reads each channel, relative to the largest one of its output channel."""
        size, largest = self.sizes[group], np.zeros(self.sizes[group])
        for use in self._uses:
            if self._root(use.group) == group and use.power > 0:
                values = np.abs(parameters[use.parameter.name].astype(np.float64))
                rows = np.moveaxis(values, use.parameter.axis, 0).reshape(values.shape[use.parameter.axis], -1)
                largest = np.maximum(largest, self._fold(rows.max(axis=1), use.inner, size))
        return largest

    @staticmethod
    def _fold(values: Array, inner: int, size: int) -> Array:
        """Return the largest of the entries of an axis that belong to each channel."""
        largest: Array = values.reshape(-1, size, inner).max(axis=(0, 2))
        return largest

    def scaled(self, factors: Mapping[int, Array], parameters: Mapping[str, Array]) -> dict[str, Array]:
        """Return the parameters that factors change, with their new values.

        Args:
            factors: The factors by group.
            parameters: The parameters by name.

        Returns:
            New arrays by name; the network that has them computes the same.
        """
        changed: dict[str, Array] = {}
        for use in self._uses:
            factor = factors.get(self._root(use.group))
            if factor is None:
                continue
            name, axis = use.parameter.name, use.parameter.axis
            value = changed.get(name, parameters[name])
            along = np.repeat(factor, use.inner)
            along = np.tile(along, value.shape[axis] // len(along))
            shape = [-1 if index == axis else 1 for index in range(value.ndim)]
            along = along if use.power > 0 else np.reciprocal(along)
            changed[name] = np.multiply(value, along.reshape(shape)).astype(value.dtype)
        return changed


_RULES = {
    "weights": ChannelGroups._weights,
    "same": ChannelGroups._same,
    "sum": ChannelGroups._sum,
    "gate": ChannelGroups._gate,
    "reshape": ChannelGroups._reshape,
    "permute": ChannelGroups._permute,
    "opaque": ChannelGroups._opaque,
}


def _floored(values: Array) -> Array:
    largest = float(values.max()) if values.size else 0.0
    return np.maximum(values.astype(np.float64), _FLOOR * largest) if largest > 0 else np.ones(len(values))

"""Inputs of a model that are fixed to a value: they become constants, and the converted files do not have them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.core.values.typed_json import Count

# bool first: it is an int to Python, and JSON keeps them apart.
Number = bool | int | float

_WORDS = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?[0-9]+")
# The values of dtypes without a numpy type; the longest dtypes hold such integers too.
_LARGEST_INT = 2**63 - 1


@dataclass(frozen=True)
class FixedInput:
    """An input of the model that is fixed.

    Attributes:
        spec: The input as the model declares it; of its dimensions only the batch may be symbolic.
        position: Its place among all inputs of a call.
        value: The value of every element.
        as_number: Whether the model's code receives a Python number instead of a tensor.
    """

    spec: TensorSpec
    position: Count
    value: Number
    as_number: bool = False

    def array(self) -> npt.NDArray[np.generic]:
        """Return the value in the input's dtype and shape; a symbolic dimension has the size 1."""
        return np.full([dim if isinstance(dim, int) else 1 for dim in self.spec.shape], self.value, self.spec.dtype)


def parse_fixed(text: str) -> tuple[str, Number]:
    """Parse a fixed input, such as `sr=16000`, into its name and value.

    Args:
        text: `NAME=VALUE`; the value is a number, `true` or `false`.

    Raises:
        InputError: The text has another form.
    """
    name, equals, value = text.rpartition("=")
    if name and equals:
        if value.lower() in _WORDS:
            return name, _WORDS[value.lower()]
        if _INTEGER.fullmatch(value) and len(value) <= len(str(_LARGEST_INT)) + 1 and abs(int(value)) <= _LARGEST_INT:
            return name, int(value)
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if np.isfinite(number) and not _INTEGER.fullmatch(value):
            return name, number
    raise InputError(
        f"fixed input {text}: write NAME=VALUE with a number, true or false, such as sr=16000", parameters=("fixed",)
    )


def fix_inputs(signature: Signature, values: Mapping[str, Number], subject: str) -> tuple[FixedInput, ...]:
    """Return the fixed inputs of a model.

    Args:
        signature: The inputs of the model.
        values: The values by input name.
        subject: How error messages name the model, such as its path.

    Raises:
        InputError: The model has no such input, or no other one; the input's dtype does not hold the value; or a size
            is unknown.
    """
    positions = {spec.name: index for index, spec in enumerate(signature.inputs)}
    for name, value in values.items():
        if name not in positions:
            listed = "; ".join(map(str, signature.inputs))
            raise InputError(f"{subject} has no input {name} to fix; its inputs: {listed}", parameters=("fixed",))
        check_value(signature.inputs[positions[name]], value)
    if values and len(values) == len(positions):
        raise InputError(f"{subject}: all inputs are fixed; leave one that varies", parameters=("fixed",))
    return tuple(
        FixedInput(signature.inputs[position], position, values[name])
        for name, position in positions.items()
        if name in values
    )


def check_value(spec: TensorSpec, value: Number) -> None:
    """Raise InputError if an input cannot be fixed to the value.

    Args:
        spec: The input.
        value: The value.

    Raises:
        InputError: The dtype does not hold the value, or a size other than the batch is unknown.
    """
    unknown = [dim for dim in spec.shape[1:] if isinstance(dim, str)]
    if unknown:
        raise InputError(
            f"the input {spec} cannot be fixed while its size {unknown[0]} is unknown; declare the input with its size",
            parameters=("inputs",),
        )
    dtype = np.dtype(spec.dtype)
    if (dtype.kind == "b") != isinstance(value, bool):
        allowed = "true or false" if dtype.kind == "b" else "a number"
        raise InputError(f"the input {spec} is fixed to {value}; it takes {allowed}", parameters=("fixed",))
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits is not None and not (value == int(value) and limits.min <= value <= limits.max):
        raise InputError(
            f"the input {spec} is fixed to {value}; it takes integers from {limits.min} to {limits.max}",
            parameters=("fixed",),
        )


def all_inputs(signature: Signature, fixed: Sequence[FixedInput]) -> Signature:
    """Return the signature of the model's file or code: with the inputs that are fixed, at their places.

    Args:
        signature: The signature without them.
        fixed: The fixed inputs.
    """
    inputs = list(signature.inputs)
    for item in sorted(fixed, key=lambda item: item.position):
        inputs.insert(item.position, item.spec)
    return replace(signature, inputs=tuple(inputs))


def without_fixed(signature: Signature, fixed: Sequence[FixedInput]) -> Signature:
    """Return the signature without its fixed inputs, which it has at their places.

    Args:
        signature: The signature of the model's file or code.
        fixed: The fixed inputs.
    """
    positions = {item.position for item in fixed}
    kept = tuple(spec for index, spec in enumerate(signature.inputs) if index not in positions)
    return replace(signature, inputs=kept)

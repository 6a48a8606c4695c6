"""The form of a quantized file: types of inputs and outputs, granularity of weights, kind and ranges of activations.

A precision says how many bits there are; the form says what else an accelerator, a browser or a camera pipeline
requires of a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgekit.core.errors import InputError, unknown_name
from edgekit.core.values.deployment_presets import PRESETS, find_preset

# Types that inputs and outputs can have, by the names of numpy.
TENSOR_TYPES = ("float32", "int8", "uint8", "int16")
# Words of a variant's tag.
_TYPE_WORDS = frozenset(f"{side}-{tensor_type}" for side in ("in", "out") for tensor_type in TENSOR_TYPES)
_PER_TENSOR, _SYMMETRIC, _RANGES = "per-tensor", "symmetric", "ranges"


@dataclass(frozen=True)
class QuantizationForm:
    """What a quantized file has beside its precision. The default is the usual form of the target.

    Attributes:
        inference_input_type: Type of all floating-point inputs; None for the target's own.
        inference_output_type: Type of all floating-point outputs; None for the target's own.
        per_tensor: Whether each weight has one scale, instead of one for each output channel.
        symmetric_activations: Whether activations are quantized symmetrically: real 0 is integer 0, or 128 of uint8.
        ranges: The range of tensors by name, as (lowest, highest) real value, instead of what calibration samples show.
        preset: Name of the preset whose rules the file follows as well.

    Raises:
        InputError: A type or the preset is unknown, or a range is reversed, not finite, or without 0.
    """

    inference_input_type: str | None = None
    inference_output_type: str | None = None
    per_tensor: bool = False
    symmetric_activations: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    preset: str | None = None

    def __post_init__(self) -> None:
        for tensor_type in (self.inference_input_type, self.inference_output_type):
            if tensor_type is not None and tensor_type not in TENSOR_TYPES:
                raise unknown_name("tensor type", tensor_type, TENSOR_TYPES)
        for name, (low, high) in self.ranges.items():
            _check_range(name, low, high)
        if self.preset is not None:
            find_preset(self.preset)

    def __bool__(self) -> bool:
        """Whether anything differs from the target's usual form."""
        return bool(self.to_dict())

    @property
    def tag(self) -> str:
        """What distinguishes the variant: `ethos-u`, `in-uint8-per-tensor`; empty for the usual form."""
        words = (
            self.preset,
            self.inference_input_type and f"in-{self.inference_input_type}",
            self.inference_output_type and f"out-{self.inference_output_type}",
            self.per_tensor and _PER_TENSOR,
            self.symmetric_activations and _SYMMETRIC,
            self.ranges and _RANGES,
        )
        return "-".join(word for word in words if isinstance(word, str))

    def resolved(self) -> QuantizationForm:
        """Return the form with what the preset requires.

        Raises:
            InputError: An option contradicts the preset.
        """
        if self.preset is None:
            return self
        rules = find_preset(self.preset)
        for side, wanted in (("input", self.inference_input_type), ("output", self.inference_output_type)):
            allowed = rules.tensor_types
            if wanted is not None and allowed and wanted not in allowed:
                message = f"{self.preset} takes no {wanted} {side}s; it takes: {', '.join(allowed)}"
                raise InputError(message, parameters=(f"inference_{side}_type",))
        return replace(
            self,
            inference_input_type=self.inference_input_type or rules.input_type,
            inference_output_type=self.inference_output_type or rules.output_type,
            per_tensor=self.per_tensor or rules.per_tensor,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for the manifest."""
        fields = {key: value for key, value in asdict(self).items() if value not in (None, False, {})}
        return fields | ({"ranges": {name: list(pair) for name, pair in self.ranges.items()}} if self.ranges else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> QuantizationForm:
        """Rebuild a form from the result of `to_dict` after a JSON round trip.

        Args:
            data: The fields that are set.

        Returns:
            The form.

        Raises:
            InputError: A key is unknown, or a value is of another type.
        """
        for key, value in data.items():
            if key != "ranges" and not isinstance(value, _KINDS.get(key, ())):
                raise InputError(f"options.form.{key}: unknown key, or a value of another type")
        ranges = data.get("ranges", {})
        if not isinstance(ranges, Mapping) or not all(_is_pair(pair) for pair in ranges.values()):
            raise InputError("options.form.ranges: must be pairs of numbers by tensor name")
        return cls(**{**data, "ranges": {name: (float(low), float(high)) for name, (low, high) in ranges.items()}})


# What a target makes by default.
USUAL_FORM = QuantizationForm()
# What a target makes by default.
USUAL_FORM = QuantizationForm()
# Names of the options that are collected in a form, and their types; ranges have a syntax of their own.
_KINDS: Mapping[str, type] = {
    "inference_input_type": str,
    "inference_output_type": str,
    "per_tensor": bool,
    "symmetric_activations": bool,
    "preset": str,
}
FORM_OPTIONS = (*_KINDS, "ranges")


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in value)
    )


def _check_range(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"the range of {name} must be two finite numbers (got {low:g}..{high:g})")
    if low >= high:
        raise InputError(f"the range of {name} is reversed or empty ({low:g}..{high:g}); write it LOW..HIGH")
    if low > 0 or high < 0:
        # Padding and ReLU produce 0, which quantizers would silently widen the range to.
        raise InputError(
            f"the range of {name} must contain 0, which integers have to represent (got {low:g}..{high:g})"
        )


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """Parse `NAME=LOW..HIGH`.

    Args:
        text: The range as the user typed it, such as `image=0..1`.

    Returns:
        The tensor's name, and the lowest and highest real value.

    Raises:
        InputError: The text has another form.
    """
    name, _, ends = text.rpartition("=")
    low, dots, high = ends.partition("..")
    try:
        pair = float(low), float(high)
    except ValueError:
        pair = None
    if not name or not dots or pair is None:
        raise InputError(
            f"'{text}' is not a range; write NAME=LOW..HIGH, for example image=0..1", parameters=("ranges",)
        )
    return name, pair


def parse_ranges(texts: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Parse ranges of several tensors.

    Args:
        texts: The ranges as the user typed them.

    Returns:
        (lowest, highest) by tensor name.

    Raises:
        InputError: A text has another form, or two of them are about one tensor.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, pair = parse_range(text)
        if name in ranges:
            raise InputError(f"two ranges for {name}", parameters=("ranges",))
        ranges[name] = pair
    return ranges


def is_form_tag(text: str) -> bool:
    """Return whether a text is the tag of a form, as `QuantizationForm.tag` writes it.

    Args:
        text: The tag.

    Returns:
        True for known words only, each once.
    """
    words = [*PRESETS, *sorted(_TYPE_WORDS), _PER_TENSOR, _SYMMETRIC, _RANGES]
    rest = f"-{text}"
    for word in words:
        rest = rest.replace(f"-{word}-", "-", 1) if f"-{word}-" in rest else rest.removesuffix(f"-{word}")
    return bool(text) and rest in ("", "-")

"""Variants, tensors, signatures, routes and model descriptions as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgekit.core.errors import InputError
from edgekit.core.values.precisions import parse_precision
from edgekit.core.values.quantization_form import is_form_tag
from edgekit.core.values.typed_json import Count, Name, decode

# The device of a bench without a profile: this machine as it is.
HOST = "host"

# The kind of the source of a model file that a command was given without one.
FILE = "file"

# PyTorch's c10::ScalarType, the numbers of tensor types in ExecuTorch programs. 8 to 10 are complex types.
SCALAR_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"} | {
    11: "bool"
}

# A symbolic dimension is a string such as "batch".
Dim = int | str
# The same with what a file may hold.
_StoredDim = Count | Name

# Tag of a variant that was converted with a recipe, from `edgekit tune` or from a user.
TUNED = "tuned"


@dataclass(frozen=True, order=True)
class Variant:
    """One target at one precision, written `tflite:int8`.

    Attributes:
        target: Name of the target.
        precision: Name of the precision.
        tag: Marks a variant that was not converted with the default options: `tflite:int8-tuned`,
            `tflite:int8-in-uint8`, `tflite:int8-ethos-u-tuned`.
    """

    target: str
    precision: str
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Parse `target:precision` or `target:precision-tag`, as `str` writes a variant.

        Args:
            text: The variant as the user typed it.

        Returns:
            The variant; whether the target exists is not checked here.

        Raises:
            InputError: The target or the precision is missing, or the precision is unknown.
        """
        target, colon, precision = text.partition(":")
        if not colon or not target:
            raise InputError(f"'{text}' is not a variant; write it target:precision, for example tflite:int8")
        name, hyphen, tag = precision.partition("-")
        if hyphen and not _is_tag(tag):
            name, tag = precision, ""  # an unknown precision, which the message names as it was typed
        return cls(target, parse_precision(name), tag)

    @property
    def untagged(self) -> Variant:
        """The variant with the default options."""
        return replace(self, tag="")

    @property
    def is_tuned(self) -> bool:
        """Whether a recipe made it."""
        return self.tag == TUNED or self.tag.endswith(f"-{TUNED}")

    @property
    def slug(self) -> str:
        """The name of the artifact's folder: `tflite-int8`."""
        return str(self).replace(":", "-")

    def __str__(self) -> str:
        return f"{self.target}:{self.precision}" + (f"-{self.tag}" if self.tag else "")


def _is_tag(text: str) -> bool:
    return text == TUNED or is_form_tag(text.removesuffix(f"-{TUNED}"))


@dataclass(frozen=True)
class Quantization:
    """Parameters of affine quantization: real = scale * (integer - zero_point).

    Attributes:
        scale: One value for the tensor, or one for each index along `axis`.
        zero_point: The integers that stand for 0.0, as many as scales.
        axis: Dimension with its own parameters for each index; None for one pair for the whole tensor.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor of a model.

    Attributes:
        name: Name of the tensor.
        shape: Dimensions, the batch first; symbolic ones are strings.
        dtype: Name of the numpy type, for example `float32`.
        layout: `NHWC`, `NCHW` … for images, else None.
        quantization: Scale and zero point of an integer tensor that stands for real values, else None.
    """

    name: Name
    shape: tuple[_StoredDim, ...]
    dtype: Name
    layout: Name | None = None
    quantization: Quantization | None = None

    @property
    def fixed_batch(self) -> int | None:
        """The first dimension where it is a number, else None (any batch size is allowed)."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def sized(self, sizes: Mapping[str, int]) -> TensorSpec:
        """Return the same tensor with symbolic dimensions replaced by numbers.

        Args:
            sizes: Sizes by symbol; symbols that are missing stay symbolic.

        Returns:
            The changed copy.
        """
        shape = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in self.shape)
        return replace(self, shape=shape)

    def __str__(self) -> str:
        shape = "x".join(str(dim) for dim in self.shape) or "scalar"
        return f"{self.name} {shape} {self.dtype}"


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic dimensions of the inputs, each once, in order of first use."""
        return tuple(dict.fromkeys(dim for spec in self.inputs for dim in spec.shape if isinstance(dim, str)))

    @property
    def output_layouts(self) -> dict[str, str]:
        """The layout of each output that has one, by name."""
        return {spec.name: spec.layout for spec in self.outputs if spec.layout is not None}

    @property
    def batch(self) -> str | None:
        """The symbolic first dimension that all inputs share, or None."""
        first = {spec.shape[0] if spec.shape else None for spec in self.inputs}
        only = next(iter(first)) if len(first) == 1 else None
        return only if isinstance(only, str) else None

    def sized(self, sizes: Mapping[str, int]) -> Signature:
        """Return the same signature with symbolic dimensions replaced by numbers.

        Args:
            sizes: Sizes by symbol; symbols that are missing stay symbolic.

        Returns:
            The changed copy.
        """
        return Signature(
            tuple(spec.sized(sizes) for spec in self.inputs), tuple(spec.sized(sizes) for spec in self.outputs)
        )

    def ordered_as(self, other: Signature) -> Signature:
        """Return the same signature with inputs and outputs in the order of another one.

        Args:
            other: A signature of the same names, such as that of the file.

        Returns:
            The reordered copy; a side whose names differ keeps its order.
        """
        return Signature(_ordered_as(self.inputs, other.inputs), _ordered_as(self.outputs, other.outputs))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], origin: object = "signature") -> Signature:
        """Rebuild a signature from the result of `dataclasses.asdict` after a JSON round trip.

        Args:
            data: The fields of the signature.
            origin: The file that the data come from, for error messages.

        Returns:
            The signature.

        Raises:
            InputError: A key is missing or unknown, or a value is of another type.
        """
        return decode(cls, data, origin)


def _ordered_as(specs: tuple[TensorSpec, ...], others: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in specs}
    names = [other.name for other in others]
    return tuple(by_name[name] for name in names) if sorted(names) == sorted(spec.name for spec in specs) else specs


@dataclass(frozen=True)
class Route:
    """The way from a source to a target.

    Attributes:
        steps: Source kind, kinds that it is converted to on the way, target: `("keras", "torch", "executorch")` uses
            one bridge.
    """

    steps: tuple[str, ...]

    @property
    def source_kind(self) -> str:
        """The kind of the user's source model."""
        return self.steps[0]

    @property
    def converter_kind(self) -> str:
        """The kind of the model that the target converts, after all bridges."""
        return self.steps[-2]

    @property
    def bridges(self) -> tuple[tuple[str, str], ...]:
        """The conversions between source kinds in order: bridges, and targets that are source kinds too."""
        return tuple(zip(self.steps[:-2], self.steps[1:-1], strict=True))

    def __str__(self) -> str:
        return " -> ".join(self.steps)


@dataclass(frozen=True)
class OpCount:
    """The occurrences of one operator type in a graph.

    Attributes:
        name: Name of the operator type, for example `CONV_2D`.
        count: Number of operators of that type.
        macs: Their multiply-accumulates per inference; None where unknown.
    """

    name: str
    count: int
    macs: int | None = None


@dataclass(frozen=True)
class ModelDescription:
    """The contents of a model file, as `edgekit inspect` prints them.

    Attributes:
        format: Name of the file format.
        signature: Inputs and outputs.
        ops: Operator types with their counts.
        tensors: Number of tensors.
        parameters: Number of weights; None where unknown.
        weight_bytes: Size of the stored weights.
        macs: Multiply-accumulates per inference; None where unknown.
        activation_bytes: Size of all activations; None where unknown.
        quantized_tensors: Number of tensors with a scale.
        metadata: Producer, versions and other entries of the file.
        mac_outputs: Elements that the operators with weights write per inference; None where unknown.
    """

    format: str
    signature: Signature
    ops: tuple[OpCount, ...]
    tensors: int
    parameters: int | None
    weight_bytes: int
    macs: int | None
    activation_bytes: int | None
    quantized_tensors: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    mac_outputs: int | None = None

    def __post_init__(self) -> None:
        # The product of a shape with an unknown dimension is negative, and activations of 0 bytes are unmeasured ones.
        for name in ("macs", "mac_outputs", "activation_bytes"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (name == "activation_bytes" and value == 0 and self.ops)):
                object.__setattr__(self, name, None)

"""The words of the house as values: precision, variant, tensor, signature, route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgekit.core.errors import InputError, unknown_name

PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
"""float32, float16: what the weights are stored in. dynamic: int8 weights, float activations. int8: full integer.
int16x8: int16 activations, int8 weights. int4: int4 weights, float activations."""

FLOAT_PRECISIONS = ("float32", "float16")
"""Precisions that have no scales, and compute whatever comes in."""

SCALAR_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"} | {
    11: "bool"
}
"""PyTorch's ScalarType, as ExecuTorch programs number their tensors' types."""

Dim = int | str  # a symbolic dimension is a string such as "batch"


def parse_precision(text: str) -> str:
    """The precision, or an InputError that lists the known ones."""
    if text not in PRECISIONS:
        raise unknown_name("precision", text, PRECISIONS)
    return text


TUNED = "tuned"
"""What a variant is called beside its precision that a recipe made, of `edgekit tune` or a user's."""


@dataclass(frozen=True, order=True)
class Variant:
    """One target at one precision, written `tflite:int8`; `tag` marks one not made as usual: `tflite:int8-tuned`."""

    target: str
    precision: str
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Variant:
        """From `target:precision`. Raises InputError when the precision is missing or unknown."""
        target, colon, precision = text.partition(":")
        if not colon or not target:
            raise InputError(f"'{text}' is not a variant; write it target:precision, for example tflite:int8")
        return cls(target, parse_precision(precision))

    @property
    def slug(self) -> str:
        """The folder name: `tflite-int8`."""
        return str(self).replace(":", "-")

    def __str__(self) -> str:
        return f"{self.target}:{self.precision}" + (f"-{self.tag}" if self.tag else "")


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (integer - zero_point), per tensor or along `axis`."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` may hold symbolic dimensions; `layout` is NHWC, NCHW … or None."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    layout: str | None = None
    quantization: Quantization | None = None

    @property
    def fixed_batch(self) -> int | None:
        """The first dimension when it is a number, else None (any batch goes)."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def with_batch(self, batch: Dim) -> TensorSpec:
        """The same tensor with another first dimension."""
        return replace(self, shape=(batch, *self.shape[1:]))

    def sized(self, sizes: Mapping[str, int]) -> TensorSpec:
        """The same tensor with symbolic dimensions replaced by their sizes, where `sizes` has them."""
        shape = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in self.shape)
        return replace(self, shape=shape)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        raw = data.get("quantization")
        quantization = Quantization(tuple(raw["scale"]), tuple(raw["zero_point"]), raw.get("axis")) if raw else None
        return cls(data["name"], tuple(data["shape"]), data["dtype"], data.get("layout"), quantization)

    def __str__(self) -> str:
        shape = "x".join(str(dim) for dim in self.shape) or "scalar"
        return f"{self.name} {shape} {self.dtype}"


@dataclass(frozen=True)
class Signature:
    """What goes in and what comes out, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic dimensions of the inputs, each once, in the order in which they stand there."""
        return tuple(dict.fromkeys(dim for spec in self.inputs for dim in spec.shape if isinstance(dim, str)))

    @property
    def batch(self) -> str | None:
        """The symbol that every input has as its first dimension, or None."""
        first = {spec.shape[0] if spec.shape else None for spec in self.inputs}
        only = next(iter(first)) if len(first) == 1 else None
        return only if isinstance(only, str) else None

    def sized(self, sizes: Mapping[str, int]) -> Signature:
        """With symbolic dimensions replaced by their sizes, where `sizes` has them."""
        return Signature(
            tuple(spec.sized(sizes) for spec in self.inputs), tuple(spec.sized(sizes) for spec in self.outputs)
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signature:
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        return cls(
            tuple(TensorSpec.from_dict(item) for item in data["inputs"]),
            tuple(TensorSpec.from_dict(item) for item in data["outputs"]),
        )


@dataclass(frozen=True)
class Route:
    """How a source reaches a target: `("keras", "torch", "executorch")` goes over one bridge."""

    steps: tuple[str, ...]

    @property
    def source_kind(self) -> str:
        """The kind that the user's model is of."""
        return self.steps[0]

    @property
    def converter_kind(self) -> str:
        """The kind that the target's converter is handed, after the bridges."""
        return self.steps[-2]

    @property
    def bridges(self) -> tuple[tuple[str, str], ...]:
        """The bridges on the way, as (from, to)."""
        return tuple(zip(self.steps[:-2], self.steps[1:-1], strict=True))

    def __str__(self) -> str:
        return " -> ".join(self.steps)


@dataclass(frozen=True)
class OpCount:
    """One kind of operator in a graph: how often it stands there, and its multiply-accumulates an inference."""

    name: str
    count: int
    macs: int | None = None


@dataclass(frozen=True)
class ModelDescription:
    """What is in a model file, as `edgekit inspect` shows it.

    `mac_outputs` is how many elements the operators that multiply by weights write in one inference.
    """

    format: str
    signature: Signature
    ops: tuple[OpCount, ...]
    tensors: int
    parameters: int
    weight_bytes: int
    macs: int | None
    activation_bytes: int | None
    quantized_tensors: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    mac_outputs: int | None = None

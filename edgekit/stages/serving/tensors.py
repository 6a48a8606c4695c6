"""The tensors of a served model as clients see them, and the check of what clients send.

Clients exchange real values with quantized models: the server quantizes and dequantizes. A client that sends a
quantized input in the file's own integer type gets the outputs in theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.serving.refusal import bad_request

# The type of the real values that a quantized tensor stands for.
_REAL = "float32"


@dataclass(frozen=True)
class ServedTensor:
    """An input or output of a served model.

    Attributes:
        spec: The tensor of the model file.
        free_rows: Whether clients choose the size of the first dimension.
    """

    spec: TensorSpec
    free_rows: bool

    @property
    def name(self) -> str:
        """The name of the tensor."""
        return self.spec.name

    @property
    def dtype(self) -> str:
        """The numpy type of the values that clients see: real ones where the file is quantized."""
        return self.spec.dtype if self.spec.quantization is None else _REAL

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, with -1 for each dimension whose size clients choose."""
        dims = [-1 if isinstance(dim, str) else dim for dim in self.spec.shape]
        return (-1, *dims[1:]) if self.free_rows else tuple(dims)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of this shape is a value of the tensor."""
        return len(shape) == len(self.shape) and all(
            size > 0 and dim in (-1, size) for dim, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class ServedCall:
    """The checked inputs of one request.

    Attributes:
        inputs: Arrays by input name: real values, or integers in the type of the file.
        rows: The number of rows; 1 where the model takes its shapes as they are.
        stored: Whether the outputs are returned in the types of the file.
    """

    inputs: Mapping[str, Array]
    rows: int
    stored: bool

    @property
    def key(self) -> tuple[object, ...]:
        """What two requests must share to be computed together: everything but the number of rows."""
        return self.stored, tuple((array.dtype, array.shape[1:]) for array in self.inputs.values())


class ServedSignature:
    """The inputs and outputs of a served model.

    Attributes:
        inputs: The inputs in the order of the file.
        outputs: The outputs in the order of the file.
        free_rows: Whether a request may hold any number of rows. A file with a fixed batch of one computes them one
            after another.
    """

    def __init__(self, signature: Signature) -> None:
        """Create the signature that clients see.

        Args:
            signature: The inputs and outputs of the model file.
        """
        specs = (*signature.inputs, *signature.outputs)
        self.free_rows = batching.has_symbolic_batch(signature) or all(spec.fixed_batch == 1 for spec in specs)
        self.inputs = tuple(ServedTensor(spec, self.free_rows) for spec in signature.inputs)
        self.outputs = tuple(ServedTensor(spec, self.free_rows) for spec in signature.outputs)

    def input(self, name: str) -> ServedTensor:
        """Return an input.

        Raises:
            Refusal: The model has no such input.
        """
        return _find(self.inputs, name, "input")

    def output(self, name: str) -> ServedTensor:
        """Return an output.

        Raises:
            Refusal: The model has no such output.
        """
        return _find(self.outputs, name, "output")

    def call(self, arrays: Mapping[str, Array]) -> ServedCall:
        """Check the inputs of a request.

        Args:
            arrays: Arrays by input name; types were checked by `check_dtype`.

        Returns:
            The request.

        Raises:
            Refusal: An input is missing, or has another shape than the model takes.
        """
        missing = [tensor.name for tensor in self.inputs if tensor.name not in arrays]
        if missing:
            raise bad_request(f"the request has no input {', '.join(missing)}")
        inputs = {tensor.name: arrays[tensor.name] for tensor in self.inputs}
        sizes: dict[object, tuple[int, str]] = {}
        for tensor in self.inputs:
            shape = inputs[tensor.name].shape
            if not tensor.accepts(shape):
                raise bad_request(
                    f"input {tensor.name} has the shape {list(shape)} where the model takes {list(tensor.shape)}"
                )
            self._bind(sizes, tensor, shape)
        quantized = [tensor for tensor in self.inputs if tensor.spec.quantization is not None]
        stored = bool(quantized) and all(str(inputs[tensor.name].dtype) == tensor.spec.dtype for tensor in quantized)
        rows = len(inputs[self.inputs[0].name]) if self.free_rows else 1
        return ServedCall(inputs, rows, stored)

    @staticmethod
    def _bind(sizes: dict[object, tuple[int, str]], tensor: ServedTensor, shape: tuple[int, ...]) -> None:
        """Record the sizes of the free dimensions; dimensions of one symbol must have one size."""
        for index, (dim, size) in enumerate(zip(tensor.spec.shape, shape, strict=True)):
            symbol: object = 0 if index == 0 and tensor.free_rows else dim  # 0 stands for the rows
            if symbol != 0 and isinstance(dim, int):
                continue
            known, other = sizes.setdefault(symbol, (size, tensor.name))
            if known != size:
                raise bad_request(
                    f"input {tensor.name} has {size} in dimension {index} where input {other} has {known}"
                )


def _find(tensors: tuple[ServedTensor, ...], name: str, side: str) -> ServedTensor:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise bad_request(f"the model has no {side} {name!r}; its {side}s: {', '.join(tensor.name for tensor in tensors)}")


def check_dtype(tensor: ServedTensor, dtype: str, shown: Mapping[str, str]) -> None:
    """Check the type of an input that a client declares.

    Args:
        tensor: The input.
        dtype: The numpy type that the client sends.
        shown: The protocol's name of each numpy type, for the message.

    Raises:
        Refusal: The model takes another type.
    """
    taken = dict.fromkeys((tensor.dtype, tensor.spec.dtype))
    # Converters narrow int64 inputs such as token ids to int32, which clients of the source model do not know.
    if dtype in taken or (dtype == "int64" and tensor.spec.dtype == "int32" and tensor.spec.quantization is None):
        return
    names = " or ".join(shown.get(name, name) for name in taken)
    raise bad_request(f"input {tensor.name} has the type {shown.get(dtype, dtype)} where the model takes {names}")


def check_values(tensor: ServedTensor, array: Array) -> Array:
    """Check the values of an input that JSON or bytes held.

    Args:
        tensor: The input.
        array: Its values, in a type that `check_dtype` accepts.

    Returns:
        The array in a type that the runtime takes.

    Raises:
        Refusal: A value is out of the range of the type.
    """
    if array.dtype != tensor.spec.dtype and array.dtype.kind == "i":
        narrowed: Array = array.astype(tensor.spec.dtype)
        if not np.array_equal(narrowed, array):
            raise bad_request(f"input {tensor.name} has values that {tensor.spec.dtype} does not hold")
        return narrowed
    if tensor.spec.quantization is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        # The integers of a quantized tensor have no NaN, and quantizing it is undefined.
        raise bad_request(f"input {tensor.name} has values that are not finite, which a quantized model cannot take")
    return array


def from_json(tensor: ServedTensor, values: Any, dtype: str) -> Array:
    """Return the array of values that JSON held.

    Args:
        tensor: The input.
        values: Numbers in nested lists, or one number.
        dtype: The numpy type of the array.

    Returns:
        The array, with the shape of the lists.

    Raises:
        Refusal: The lists are ragged, or a value is no number or does not fit the type.
    """
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        raise bad_request(f"input {tensor.name}: its nested lists have unequal lengths") from None
    wanted = np.dtype(dtype)
    # A list without elements is an array of floats; its shape is refused by the caller.
    accepted = {"f": "iuf", "b": "b"}.get(wanted.kind, "iu")
    if array.dtype.kind not in accepted and array.size:
        what = {"f": "numbers", "b": "true or false"}.get(wanted.kind, "integers")
        raise bad_request(f"input {tensor.name}: its values must be {what}, in lists of equal length")
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise bad_request(f"input {tensor.name} has values that {dtype} does not hold")
    with np.errstate(over="ignore"):
        converted: Array = array.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(converted).all():
        raise bad_request(f"input {tensor.name} has values that {dtype} does not hold")
    return converted

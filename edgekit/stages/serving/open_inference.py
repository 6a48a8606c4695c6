"""The Open Inference Protocol, version 2, with Triton's extension for binary tensors.

https://kserve.github.io/website/latest/modelserving/data_plane/v2_protocol/ and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.stages.serving.json_body import dump, parse_object, to_lists
from edgekit.stages.serving.refusal import bad_request
from edgekit.stages.serving.tensors import (
    ServedCall,
    ServedSignature,
    ServedTensor,
    check_dtype,
    check_values,
    from_json,
)

# The length in bytes of the JSON in front of binary tensors.
HEADER_LENGTH = "Inference-Header-Content-Length"

DATATYPES = {
    "BOOL": "bool",
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the client asked for.

    Attributes:
        tensor: The output.
        binary: Whether it is returned as bytes behind the JSON.
    """

    tensor: ServedTensor
    binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """A decoded request.

    Attributes:
        call: The inputs.
        outputs: The outputs to return, in this order.
        id: The client's name of the request, which the answer repeats; None without one.
    """

    call: ServedCall
    outputs: tuple[RequestedOutput, ...]
    id: str | None


def tensor_metadata(tensor: ServedTensor) -> dict[str, Any]:
    """Return an input or output as the metadata of a model describe it.

    Args:
        tensor: The input or output.

    Returns:
        JSON values. A quantized tensor has its stored type, scales and zero points among its parameters.
    """
    data: dict[str, Any] = {
        "name": tensor.name,
        "datatype": _NAMES.get(tensor.dtype, tensor.dtype),
        "shape": list(tensor.shape),
    }
    quantization = tensor.spec.quantization
    if quantization is not None:
        data["parameters"] = {
            "stored_datatype": _NAMES.get(tensor.spec.dtype, tensor.spec.dtype),
            "scale": list(quantization.scale),
            "zero_point": list(quantization.zero_point),
        }
    return data


def decode(signature: ServedSignature, body: bytes, header_length: str | None) -> InferenceRequest:
    """Decode the body of an inference request.

    Args:
        signature: The inputs and outputs of the model.
        body: JSON, with the bytes of binary tensors behind it.
        header_length: The value of the header `HEADER_LENGTH`; None without one.

    Returns:
        The request.

    Raises:
        Refusal: The request does not fit the protocol or the model.
    """
    length = _length(header_length, len(body))
    view = memoryview(body)
    if header_length is not None and length == 0:
        return _raw_request(signature, view)
    request = parse_object(view[:length])
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(entry, dict) for entry in inputs):
        raise bad_request("the request has no list 'inputs' of objects with name, shape, datatype and data")
    arrays: dict[str, Array] = {}
    rest = view[length:]
    for entry in inputs:
        tensor = signature.input(_text(entry, "name", "an input"))
        if tensor.name in arrays:
            raise bad_request(f"the request has the input {tensor.name} twice")
        arrays[tensor.name], rest = _decode_input(tensor, entry, rest)
    if len(rest):
        raise bad_request(f"the request has {len(rest)} bytes behind its binary tensors")
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise bad_request("'id' must be a text")
    return InferenceRequest(signature.call(arrays), _requested_outputs(signature, request), identifier)


def _length(header: str | None, total: int) -> int:
    if header is None:
        return total
    if not header.isascii() or not header.isdigit() or len(header) > 18 or int(header) > total:
        raise bad_request(f"the header {HEADER_LENGTH} must be a number of bytes within the body")
    return int(header)


def _raw_request(signature: ServedSignature, content: memoryview) -> InferenceRequest:
    """Decode a body that holds the bytes of the only input and no JSON."""
    if len(signature.inputs) != 1 or any(dim < 0 for dim in signature.inputs[0].shape[1:]):
        raise bad_request("a body without JSON is for models with one input whose shape is known apart from its rows")
    tensor = signature.inputs[0]
    row = math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize
    rows = len(content) // row if tensor.free_rows and row else 1
    shape = (rows, *tensor.shape[1:]) if tensor.shape else ()
    array = _from_bytes(tensor, content, tensor.dtype, shape)
    outputs = tuple(RequestedOutput(output, True) for output in signature.outputs)
    return InferenceRequest(signature.call({tensor.name: check_values(tensor, array)}), outputs, None)


def _text(entry: Mapping[str, Any], key: str, what: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise bad_request(f"{what} has no text '{key}'")
    return value


def _parameters(entry: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    value = entry.get("parameters", {})
    if not isinstance(value, dict):
        raise bad_request(f"'parameters' of {what} must be an object")
    for key in value:
        if key.startswith("shared_memory") or key == "classification":
            raise bad_request(f"{what} has the parameter {key}, an extension that this server does not have")
    return value


def _decode_input(tensor: ServedTensor, entry: Mapping[str, Any], rest: memoryview) -> tuple[Array, memoryview]:
    """Return an input, and the bytes behind its own."""
    what = f"input {tensor.name}"
    datatype = _text(entry, "datatype", what)
    if datatype not in DATATYPES:
        raise bad_request(f"{what} has the datatype {datatype!r}; known are {', '.join(DATATYPES)}")
    dtype = DATATYPES[datatype]
    check_dtype(tensor, dtype, _NAMES)
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(dim) is int and 0 <= dim < 2**31 for dim in shape):
        raise bad_request(f"{what} has no list 'shape' of sizes")
    if not tensor.accepts(tuple(shape)):
        raise bad_request(f"{what} has the shape {shape} where the model takes {list(tensor.shape)}")
    size = _parameters(entry, what).get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise bad_request(f"{what} has no 'data'")
        array = from_json(tensor, entry["data"], dtype)
        if array.size != math.prod(shape):
            raise bad_request(f"{what} has {array.size} values where its shape {shape} has {math.prod(shape)}")
        return check_values(tensor, array.reshape(shape)), rest
    if "data" in entry or type(size) is not int or not 0 <= size <= len(rest):
        raise bad_request(f"{what}: 'binary_data_size' must be a number of bytes in the body, in place of 'data'")
    return check_values(tensor, _from_bytes(tensor, rest[:size], dtype, tuple(shape))), rest[size:]


def _from_bytes(tensor: ServedTensor, content: memoryview, dtype: str, shape: tuple[int, ...]) -> Array:
    wanted = np.dtype(dtype).newbyteorder("<")
    expected = math.prod(shape) * wanted.itemsize
    if len(content) != expected:
        raise bad_request(
            f"input {tensor.name} has {len(content)} bytes where its shape {list(shape)} and type {_NAMES[dtype]}"
            f" have {expected}"
        )
    if dtype == "bool":  # any other byte would be a boolean that numpy does not know
        return np.asarray(np.frombuffer(content, np.uint8).reshape(shape) != 0)
    return np.frombuffer(content, wanted).astype(dtype).reshape(shape)


def _requested_outputs(signature: ServedSignature, request: Mapping[str, Any]) -> tuple[RequestedOutput, ...]:
    binary = _parameters(request, "the request").get("binary_data_output", False)
    entries = request.get("outputs")
    if entries is None or entries == []:
        return tuple(RequestedOutput(output, binary is True) for output in signature.outputs)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise bad_request("'outputs' must be a list of objects with a name")
    outputs = []
    for entry in entries:
        tensor = signature.output(_text(entry, "name", "an output"))
        wanted = _parameters(entry, f"output {tensor.name}").get("binary_data", binary)
        outputs.append(RequestedOutput(tensor, wanted is True))
    if len({output.tensor.name for output in outputs}) != len(outputs):
        raise bad_request("'outputs' names an output twice")
    return tuple(outputs)


def encode(
    model: str, version: str, request: InferenceRequest, outputs: Mapping[str, Array]
) -> tuple[bytes, int | None]:
    """Encode the answer to a request.

    Args:
        model: The name of the model.
        version: Its version.
        request: The request.
        outputs: Arrays by output name.

    Returns:
        The body, and the length of its JSON if bytes of tensors follow, else None.

    Raises:
        Refusal: An output that is returned as JSON has values that JSON does not have.
    """
    parts: list[bytes] = []
    entries: list[dict[str, Any]] = []
    for requested in request.outputs:
        name = requested.tensor.name
        array = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": _NAMES[str(array.dtype)], "shape": list(array.shape)}
        if requested.binary:
            parts.append(np.ascontiguousarray(array, np.dtype(array.dtype).newbyteorder("<")).tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = to_lists(name, array, flat=True)
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if request.id is not None:
        answer["id"] = request.id
    text = dump(answer)
    return b"".join((text, *parts)), len(text) if parts else None

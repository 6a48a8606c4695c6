"""The REST form of TensorFlow Serving: rows (`instances`) or columns (`inputs`) of plain JSON numbers.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core.numerics.metrics import Array
from edgekit.stages.serving.json_body import dump, parse_object, to_lists
from edgekit.stages.serving.refusal import bad_request
from edgekit.stages.serving.tensors import ServedCall, ServedSignature, ServedTensor, check_values, from_json

SIGNATURE = "serving_default"

# The members of TensorFlow's enumeration DataType.
_DATA_TYPES = {
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "float16": "DT_HALF",
    "bool": "DT_BOOL",
    **{f"{kind}{bits}": f"DT_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class PredictRequest:
    """A decoded request.

    Attributes:
        call: The inputs.
        by_row: Whether the answer lists the rows (`predictions`) instead of the outputs (`outputs`).
    """

    call: ServedCall
    by_row: bool


def metadata(name: str, version: str, signature: ServedSignature) -> dict[str, Any]:
    """Return the metadata of a model.

    Args:
        name: The name of the model.
        version: Its version.
        signature: Its inputs and outputs.

    Returns:
        JSON values.
    """
    definition = {
        "inputs": {tensor.name: _tensor_info(tensor) for tensor in signature.inputs},
        "outputs": {tensor.name: _tensor_info(tensor) for tensor in signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: definition}}},
    }


def _tensor_info(tensor: ServedTensor) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in tensor.shape]
    return {
        "dtype": _DATA_TYPES.get(tensor.dtype, "DT_INVALID"),
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": tensor.name,
    }


def status(version: str, ready: bool) -> dict[str, Any]:
    """Return the status of a model.

    Args:
        version: Its version.
        ready: Whether it can compute.

    Returns:
        JSON values.
    """
    state = {"state": "AVAILABLE" if ready else "LOADING", "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [{"version": version, **state}]}


def decode(signature: ServedSignature, body: bytes) -> PredictRequest:
    """Decode the body of a predict request.

    Args:
        signature: The inputs and outputs of the model.
        body: A JSON object with `instances` or `inputs`.

    Returns:
        The request.

    Raises:
        Refusal: The request does not fit the protocol or the model.
    """
    request = parse_object(body)
    named = request.get("signature_name", SIGNATURE)
    if named not in (SIGNATURE, ""):
        raise bad_request(f"the model has no signature {named!r}; its signature is {SIGNATURE}")
    if ("instances" in request) == ("inputs" in request):
        raise bad_request("the request must have either 'instances', a list of rows, or 'inputs'")
    by_row = "instances" in request
    columns = _from_rows(signature, request["instances"]) if by_row else _from_columns(signature, request["inputs"])
    arrays = {}
    for name, values in columns.items():
        tensor = signature.input(name)
        arrays[name] = check_values(tensor, from_json(tensor, values, tensor.dtype))
    return PredictRequest(signature.call(arrays), by_row)


def _from_rows(signature: ServedSignature, rows: Any) -> dict[str, Any]:
    if not signature.free_rows:
        raise bad_request("this model does not take rows; send its whole inputs as 'inputs'")
    if not isinstance(rows, list) or not rows:
        raise bad_request("'instances' must be a list with at least one row")
    if not any(isinstance(row, dict) for row in rows):
        return {_only_input(signature): rows}
    names = {tensor.name for tensor in signature.inputs}
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != names:
            raise bad_request(f"row {index} of 'instances' must be an object with {', '.join(sorted(names))}")
    return {name: [row[name] for row in rows] for name in sorted(names)}


def _from_columns(signature: ServedSignature, inputs: Any) -> dict[str, Any]:
    return dict(inputs) if isinstance(inputs, dict) else {_only_input(signature): inputs}


def _only_input(signature: ServedSignature) -> str:
    if len(signature.inputs) != 1:
        names = ", ".join(tensor.name for tensor in signature.inputs)
        raise bad_request(f"the model has several inputs, which the request must name: {names}")
    return signature.inputs[0].name


def encode(signature: ServedSignature, request: PredictRequest, outputs: Mapping[str, Array]) -> bytes:
    """Encode the answer to a request.

    Args:
        signature: The inputs and outputs of the model.
        request: The request.
        outputs: Arrays by output name.

    Returns:
        The body: the only output by itself, several ones by name.

    Raises:
        Refusal: An output has values that JSON does not have.
    """
    columns = {tensor.name: to_lists(tensor.name, outputs[tensor.name], flat=False) for tensor in signature.outputs}
    only = next(iter(columns.values())) if len(columns) == 1 else None
    if not request.by_row:
        return dump({"outputs": columns if only is None else only})
    if only is not None:
        return dump({"predictions": only})
    rows = zip(*columns.values(), strict=True)
    return dump({"predictions": [dict(zip(columns, row, strict=True)) for row in rows]})

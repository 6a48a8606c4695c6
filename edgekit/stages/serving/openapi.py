"""The descriptions of requests and errors in the OpenAPI document, which the handlers decode themselves."""

from __future__ import annotations

from typing import Any

from edgekit.stages.serving.open_inference import DATATYPES, HEADER_LENGTH

_PARAMETERS = {"type": "object", "additionalProperties": True}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "parameters": _PARAMETERS,
        "data": {"type": "array", "items": {}, "description": "Row by row, flat or nested."},
    },
}
_INFERENCE = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
            },
        },
    },
}
_PREDICT = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string"},
        "instances": {"type": "array", "minItems": 1, "items": {}, "description": "One value or object a row."},
        "inputs": {"description": "The only input, or an object of inputs by name."},
    },
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
}

INFERENCE_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER_LENGTH,
            "in": "header",
            "required": False,
            "schema": {"type": "integer"},
            "description": "The length of the JSON where binary tensors follow it.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _INFERENCE},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _PREDICT}}},
}

_ERROR = {
    "application/json": {
        "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    }
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": _ERROR}
    for status, description in {
        400: "The request does not fit the protocol or the model.",
        404: "There is no such model or page.",
        408: "The body did not arrive in time.",
        413: "The request is too large.",
        500: "The runtime rejected the request.",
        503: "The queue is full, or the runtime crashed.",
        504: "The model had no answer in time.",
    }.items()
}

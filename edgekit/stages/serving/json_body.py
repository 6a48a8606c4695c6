"""Strict JSON of requests and answers: without NaN, which JSON does not have, and without keys given twice."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.stages.serving.refusal import Refusal, bad_request


def _no_constant(name: str) -> Any:
    raise bad_request(f"the request contains {name}, which JSON does not have; send such values as binary tensors")


def parse_object(body: bytes | memoryview) -> dict[str, Any]:
    """Parse the JSON object of a request.

    Args:
        body: UTF-8 text.

    Returns:
        The object.

    Raises:
        Refusal: The text is no JSON, no object, or contains NaN or Infinity.
    """
    try:
        value = json.loads(bytes(body).decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise bad_request("the request is not text in UTF-8") from None
    except RecursionError:
        raise bad_request("the request is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise bad_request(f"the request is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # an integer of more than 4,300 digits
        raise bad_request("the request contains a number with too many digits") from None
    if not isinstance(value, dict):
        raise bad_request("the request must be a JSON object")
    return value


def to_lists(name: str, array: Array, *, flat: bool) -> Any:
    """Return an output as JSON values.

    Args:
        name: The name of the output, for the message.
        array: Its values.
        flat: Whether the result is one list instead of nested ones.

    Returns:
        Numbers in lists; one number for a scalar that is not flat.

    Raises:
        Refusal: A value is NaN or infinite.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"the output {name} has values that are NaN or infinite, which JSON does not have;"
            " the Open Inference Protocol returns them as binary tensors",
        )
    return (array.ravel() if flat else array).tolist()


def dump(value: Any) -> bytes:
    """Return JSON without spaces, in UTF-8."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()

"""Answers of workers: every value that jobs send survives, and nothing else is decoded."""

from __future__ import annotations

import collections
import functools
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from edgekit.core.errors import StepFailed
from edgekit.core.events import ProgressEvent
from edgekit.core.values.specs import Signature, TensorSpec, Variant
from edgekit.workers.answers import loads

SIGNATURE = Signature((TensorSpec("x", ("batch", 3), "float32"),), ())


@pytest.mark.parametrize(
    "value",
    [
        ("value", {"a": [1, 2.5, None, True, b"x", 1 + 2j, {3}, frozenset({4})]}),
        ProgressEvent("step", 1, 2),
        SIGNATURE,
        Variant("tflite", "int8"),
        (Path("a/b"), collections.OrderedDict(a=1), bytearray(b"y")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_survives(value: object) -> None:
    assert loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("protocol", range(pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, "<U3", ml_dtypes.bfloat16, ml_dtypes.int4])
def test_arrays_survive(dtype: object, protocol: int) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    for value in (array, array.T, array[0, 0], np.asfortranarray(array)):
        answer = loads(pickle.dumps(value, protocol))
        assert answer.dtype == value.dtype
        np.testing.assert_array_equal(answer, value)


@dataclass
class Foreign:
    """A data class of another package."""

    number: int = 1


class _Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        _Calls(os.system, "true"),
        _Calls(eval, "1"),
        _Calls(getattr, SIGNATURE, "inputs"),
        _Calls(functools.partial, print),
        _Calls(os.mkdir, "x"),
        Foreign(),
        print,
        InterruptedError("x"),
    ],
    ids=lambda value: str(getattr(value, "call", (value,))[0]),
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(pickle.dumps(value))


@pytest.mark.parametrize(
    "name",
    [
        "cedgekit.core.environment.user_code\nload_function\n.",
        "cedgekit.core.environment.user_code\nimportlib.import_module\n.",
        "cedgekit.core.errors\nInputError\n.",
        "cedgekit.nothing\nNothing\n.",
        "cnumpy\nload\n.",
        "cml_dtypes\n_finfo.np\n.",
    ],
)
def test_functions_and_modules_are_not_reached(name: str) -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(name.encode())


@pytest.mark.parametrize("message", [b"", b"x", pickle.dumps([1, 2])[:-1], b"\x80\x05\x8c\xff"])
def test_damage_is_refused(message: bytes) -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(message)

"""Answers of workers: every value that jobs send survives, and nothing else is decoded."""

from __future__ import annotations

import collections
import functools
import os
import pickle
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgekit.core.errors import StepFailed
from edgekit.core.events import ProgressEvent
from edgekit.core.values.specs import Signature, TensorSpec, Variant
from edgekit.workers import answers
from edgekit.workers.answers import dumps, loads

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
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.int64, np.bool_, "<U3", "S2", "M8[s]", np.complex64, ">f8", ml_dtypes.bfloat16, ml_dtypes.int4],
)
def test_arrays_survive(dtype: Any) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    for value in (array, array.T, array[0, 0], np.asfortranarray(array), array[::2, 1:], array[:0], array[0, 0, ...]):
        answer = loads(dumps(value))
        assert type(answer) is type(value)
        assert answer.dtype == value.dtype
        np.testing.assert_array_equal(answer, value)


def test_arrays_of_texts_and_memory_maps_survive(tmp_path: Path) -> None:
    array = np.array([["a", None], [1, "bcd"]], dtype=object)
    np.testing.assert_array_equal(loads(dumps(array)), array)
    np.save(tmp_path / "x.npy", np.arange(5.0))
    np.testing.assert_array_equal(loads(dumps(np.load(tmp_path / "x.npy", mmap_mode="r"))), np.arange(5.0))


def test_an_array_that_can_be_changed_stays_so() -> None:
    answer = loads(dumps(np.arange(3)))
    answer[0] = 7
    assert answer[0] == 7


@pytest.mark.parametrize(
    "value",
    [np.arange(3), np.float32(1), np.dtype("f4"), np.zeros(2, "i4,f8")],
    ids=["array", "scalar", "type", "records"],
)
def test_what_numpy_pickles_itself_is_refused(value: object) -> None:
    """Its types may have any flags and sizes: an array of such a type reads and writes foreign memory."""
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(pickle.dumps(value))


@pytest.mark.parametrize("name", ["O", "V8", "f4,f8", "object", "np", "finfo", "|O8", ("f4", 3), "<f4\n", "<f3"])
def test_other_types_of_elements_are_refused(name: object) -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(pickle.dumps(_Calls(answers._array, name, (1,), "C", b"\0" * 8)))


def test_the_bytes_of_an_array_are_as_many_as_it_has() -> None:
    for shape in ((2,), (4,), (1 << 40,), (-1, 2)):
        with pytest.raises(StepFailed, match="cannot be read"):
            loads(pickle.dumps(_Calls(answers._array, "<f4", shape, "C", b"\0" * 12)))


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


def test_memory_for_what_a_message_does_not_hold_is_not_taken() -> None:
    """C's reader has taken 11 GB for the number 680,820,116, with which nothing was stored."""
    message = (
        pickle.PROTO + b"\x05" + pickle.NONE + pickle.LONG_BINPUT + (680_820_116).to_bytes(4, "little") + pickle.STOP
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(message)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("message", [b"", b"x", pickle.dumps([1, 2])[:-1], b"\x80\x05\x8c\xff"])
def test_damage_is_refused(message: bytes) -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        loads(message)

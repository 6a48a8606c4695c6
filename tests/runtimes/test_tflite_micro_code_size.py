"""The code that a model's operators take, by the library of the wheel."""

import platform
import re

import pytest

from edgekit.core.errors import InputError
from edgekit.runtimes import _tflite_micro_code_size
from edgekit.runtimes._tflite_micro_code_size import code_size
from edgekit.targets._tflite.c_array import _method

pytest.importorskip("tflite_micro")
pytest.importorskip("elftools")
pytest.importorskip("capstone")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheel's code is read for x86-64")

SMALL = ("CONV_2D", "FULLY_CONNECTED", "SOFTMAX", "RESHAPE", "MAX_POOL_2D")


def test_the_interpreter_and_each_operator_have_a_size_that_kernels_have():
    found = code_size(SMALL)
    alone = dict(found.operators)
    assert set(alone) == set(SMALL)
    assert found.missing == ()
    assert 15_000 < found.interpreter.instructions < 40_000
    assert all(1_000 < piece.instructions < 25_000 for piece in alone.values())
    assert alone["CONV_2D"].instructions > alone["RESHAPE"].instructions
    assert [piece.instructions for _, piece in found.operators] == sorted(
        (piece.instructions for piece in alone.values()), reverse=True
    )


def test_what_operators_share_is_counted_once():
    found = code_size(SMALL)
    added = sum(piece.instructions for _, piece in found.operators)
    assert found.interpreter.instructions < found.together.instructions < found.interpreter.instructions + added
    twice = code_size((*SMALL, "AVERAGE_POOL_2D"))
    share = dict(twice.operators)["AVERAGE_POOL_2D"].instructions
    assert 0 < twice.together.instructions - found.together.instructions < share


def test_no_operators_are_the_interpreter():
    found = code_size(())
    assert found.together == found.interpreter


def test_operators_that_it_does_not_have_are_named():
    found = code_size(("RELU", "MyOwnOperator"))
    assert found.missing == ("MyOwnOperator",)
    assert [name for name, _ in found.operators] == ["RELU"]


def test_each_operator_that_the_interpreter_takes_has_code_and_most_a_parser():
    library = _tflite_micro_code_size._read(_tflite_micro_code_size._library())
    found = _tflite_micro_code_size._registered(library)
    assert len(found) > 100
    names = {address: name for name, address in library.addresses.items()}
    parsers = {name: names[roots[1]] for name, roots in found.items() if len(roots) > 1}
    own = [name for name, parser in parsers.items() if re.search(rf"Parse{_method(name)}E", parser)]
    assert len(parsers) > 90
    assert len(own) > 85  # some share one: pools, L2 norms
    assert "ParsePool" in parsers["MAX_POOL_2D"]


def test_weights_that_may_be_compressed_are_not_in_it():
    """The wheel's interpreter can, that of a microcontroller by default cannot: it would be twice the size."""
    library = _tflite_micro_code_size._read(_tflite_micro_code_size._library())
    roots = [address for name, address in library.addresses.items() if _tflite_micro_code_size._INTERPRETER.match(name)]
    everything = library.measured(library.reached(roots, frozenset()))
    assert everything.instructions > 1.5 * code_size(()).interpreter.instructions


def test_a_wheel_that_has_changed_is_one_sentence(monkeypatch):
    monkeypatch.setattr(_tflite_micro_code_size, "_INTERPRETER", re.compile("nothing is called so"))
    with pytest.raises(InputError, match="not where they were"):
        code_size(SMALL)

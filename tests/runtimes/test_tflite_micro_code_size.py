"""The code size of operators, measured in the library of the wheel."""

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


@pytest.mark.slow
def test_the_interpreter_and_each_operator_have_a_plausible_size():
    sizes = code_size(SMALL)
    alone = dict(sizes.operators)
    assert set(alone) == set(SMALL)
    assert sizes.missing == ()
    assert 15_000 < sizes.interpreter.instructions < 40_000
    assert all(1_000 < piece.instructions < 25_000 for piece in alone.values())
    assert alone["CONV_2D"].instructions > alone["RESHAPE"].instructions
    assert [piece.instructions for _, piece in sizes.operators] == sorted(
        (piece.instructions for piece in alone.values()), reverse=True
    )


def test_what_operators_share_is_counted_once():
    sizes = code_size(SMALL)
    added = sum(piece.instructions for _, piece in sizes.operators)
    assert sizes.interpreter.instructions < sizes.together.instructions < sizes.interpreter.instructions + added
    twice = code_size((*SMALL, "AVERAGE_POOL_2D"))
    share = dict(twice.operators)["AVERAGE_POOL_2D"].instructions
    assert 0 < twice.together.instructions - sizes.together.instructions < share


def test_without_operators_the_size_is_that_of_the_interpreter():
    sizes = code_size(())
    assert sizes.together == sizes.interpreter


def test_unknown_operators_are_listed():
    sizes = code_size(("RELU", "MyOwnOperator"))
    assert sizes.missing == ("MyOwnOperator",)
    assert [name for name, _ in sizes.operators] == ["RELU"]


def test_each_operator_of_the_interpreter_has_code_and_most_have_a_parser():
    library = _tflite_micro_code_size._read(_tflite_micro_code_size._library())
    registrations = _tflite_micro_code_size._registrations(library)
    assert len(registrations) > 100
    names = {address: name for name, address in library.addresses.items()}
    parsers = {name: names[roots[1]] for name, roots in registrations.items() if len(roots) > 1}
    matching = [name for name, parser in parsers.items() if re.search(rf"Parse{_method(name)}E", parser)]
    assert len(parsers) > 90
    assert len(matching) > 85  # some share one: pools, L2 norms
    assert "ParsePool" in parsers["MAX_POOL_2D"]


def test_support_for_compressed_weights_is_not_counted():
    """The wheel supports them, a microcontroller build by default does not: the size would double."""
    library = _tflite_micro_code_size._read(_tflite_micro_code_size._library())
    roots = [address for name, address in library.addresses.items() if _tflite_micro_code_size._INTERPRETER.match(name)]
    everything = library.measured(library.reached(roots, frozenset()))
    assert everything.instructions > 1.5 * code_size(()).interpreter.instructions


def test_an_unknown_structure_of_the_library_is_reported(monkeypatch):
    monkeypatch.setattr(_tflite_micro_code_size, "_INTERPRETER", re.compile("nothing is called so"))
    with pytest.raises(InputError, match="cannot find the interpreter or the operators"):
        code_size(SMALL)

"""The error tree: exit codes, sentences, and the trip across a process boundary."""

import json
import pickle

import pytest

from edgekit.core import errors
from edgekit.core.errors import (
    DiskFull,
    EdgekitError,
    InputError,
    Interrupted,
    MissingDependency,
    StepCrashed,
    StepError,
    StepFailed,
    StepOutOfMemory,
    StepTimedOut,
)

STEP_ERRORS = (StepFailed, StepCrashed, StepOutOfMemory, StepTimedOut, DiskFull)


def through_json(error):
    return errors.from_dict(json.loads(json.dumps(error.to_dict())))


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(InputError, 2), (MissingDependency, 3), *((step, 4) for step in STEP_ERRORS), (StepError, 4), (EdgekitError, 4)],
)
def test_each_kind_of_error_has_its_exit_code(error, exit_code):
    assert error("what happened").exit_code == exit_code


def test_an_interrupt_exits_with_130_and_is_not_eaten_by_except_exception():
    assert Interrupted().exit_code == 130
    assert not issubclass(Interrupted, Exception)
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_a_failed_check_and_success_have_the_documented_exit_codes():
    assert (errors.EXIT_OK, errors.EXIT_CHECK_FAILED) == (0, 1)


def test_every_error_but_the_interrupt_is_an_edgekit_error():
    assert all(issubclass(cls, EdgekitError) for cls in (InputError, MissingDependency, *STEP_ERRORS))
    assert all(issubclass(cls, StepError) for cls in STEP_ERRORS)


@pytest.mark.parametrize("error", [InputError("no such file"), StepFailed("no such file", step="export")])
def test_an_error_prints_as_its_sentence_alone(error):
    assert str(error) == "no such file"


@pytest.mark.parametrize("cls", [InputError, MissingDependency])
def test_plain_errors_survive_the_trip_through_json(cls):
    back = through_json(cls("a sentence"))
    assert type(back) is cls
    assert str(back) == "a sentence"


@pytest.mark.parametrize("cls", STEP_ERRORS)
def test_step_errors_keep_step_and_stderr_through_json(cls):
    back = through_json(cls("it broke", step="export tflite", stderr_tail="last words"))
    assert type(back) is cls
    assert (str(back), back.step, back.stderr_tail) == ("it broke", "export tflite", "last words")


def test_a_crash_keeps_its_signal_through_json():
    back = through_json(StepCrashed("it died", step="export", signal="SIGSEGV"))
    assert isinstance(back, StepCrashed)
    assert back.signal == "SIGSEGV"


@pytest.mark.parametrize("cls", STEP_ERRORS)
def test_step_errors_survive_pickling(cls):
    back = pickle.loads(pickle.dumps(cls("it broke", step="export", stderr_tail="tail")))
    assert (type(back), str(back), back.step, back.stderr_tail) == (cls, "it broke", "export", "tail")


@pytest.mark.parametrize("data", [{"type": "ValueError", "message": "odd", "extra": 1}, {"message": "odd"}])
def test_an_unknown_type_becomes_a_step_failure_with_the_same_sentence(data):
    back = errors.from_dict(data)
    assert type(back) is StepFailed
    assert str(back) == "odd"


def test_an_error_without_a_message_can_still_be_rebuilt():
    assert str(errors.from_dict({"type": "InputError"})) == ""


def test_an_unknown_name_lists_the_known_ones_sorted_and_guesses_nothing():
    error = errors.unknown_name("target", "tflit", ["tflite", "onnx"])
    assert str(error) == "unknown target 'tflit'; known: onnx, tflite"
    assert error.exit_code == 2


def test_an_unknown_name_among_none_says_so():
    assert str(errors.unknown_name("model", "x", [])) == "unknown model 'x'; known: none"

"""The error tree: exit codes, messages, and the round trip across a process boundary."""

import json
import pickle

import pytest

from edgekit.cli._session import option_hint
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


def test_an_interrupt_exits_with_130_and_is_not_swallowed_by_except_exception():
    assert Interrupted().exit_code == 130
    assert not issubclass(Interrupted, Exception)
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_a_failed_check_and_success_have_the_documented_exit_codes():
    assert (errors.EXIT_OK, errors.EXIT_CHECK_FAILED) == (0, 1)


def test_every_error_but_the_interrupt_is_an_edgekit_error():
    assert all(issubclass(cls, EdgekitError) for cls in (InputError, MissingDependency, *STEP_ERRORS))
    assert all(issubclass(cls, StepError) for cls in STEP_ERRORS)


@pytest.mark.parametrize("error", [InputError("no such file"), StepFailed("no such file", step="export")])
def test_an_error_prints_as_its_message_alone(error):
    assert str(error) == "no such file"


def test_an_error_names_arguments_and_a_command_its_options():
    error = through_json(InputError("this model has no sample", parameters=("sample", "dims", "calibration_samples")))
    assert str(error) == "this model has no sample"
    assert error.parameters == ("sample", "dims", "calibration_samples")
    assert option_hint(error.parameters) == " (see --sample, --dim, --calibration-samples)"
    assert option_hint(()) == ""
    assert "parameters" not in InputError("no such file").to_dict()


@pytest.mark.parametrize("cls", [InputError, MissingDependency])
def test_plain_errors_survive_a_json_round_trip(cls):
    rebuilt = through_json(cls("a sentence"))
    assert type(rebuilt) is cls
    assert str(rebuilt) == "a sentence"


@pytest.mark.parametrize("cls", STEP_ERRORS)
def test_step_errors_keep_step_and_stderr_in_a_json_round_trip(cls):
    rebuilt = through_json(cls("it broke", step="export tflite", stderr_tail="last words"))
    assert type(rebuilt) is cls
    assert (str(rebuilt), rebuilt.step, rebuilt.stderr_tail) == ("it broke", "export tflite", "last words")


def test_a_crash_keeps_its_signal_in_a_json_round_trip():
    rebuilt = through_json(StepCrashed("it died", step="export", signal="SIGSEGV"))
    assert isinstance(rebuilt, StepCrashed)
    assert rebuilt.signal == "SIGSEGV"


@pytest.mark.parametrize("cls", STEP_ERRORS)
def test_step_errors_survive_pickling(cls):
    rebuilt = pickle.loads(pickle.dumps(cls("it broke", step="export", stderr_tail="tail")))
    assert (type(rebuilt), str(rebuilt), rebuilt.step, rebuilt.stderr_tail) == (cls, "it broke", "export", "tail")


@pytest.mark.parametrize("data", [{"type": "ValueError", "message": "odd", "extra": 1}, {"message": "odd"}])
def test_an_unknown_type_becomes_a_step_failure_with_the_same_message(data):
    rebuilt = errors.from_dict(data)
    assert type(rebuilt) is StepFailed
    assert str(rebuilt) == "odd"


def test_an_error_without_a_message_is_rebuilt_with_an_empty_one():
    assert str(errors.from_dict({"type": "InputError"})) == ""


def test_an_unknown_name_lists_the_known_names_sorted_without_a_suggestion():
    error = errors.unknown_name("target", "tflit", ["tflite", "onnx"])
    assert str(error) == "unknown target 'tflit'; known: onnx, tflite"
    assert error.exit_code == 2


def test_an_unknown_name_without_known_names_lists_none():
    assert str(errors.unknown_name("model", "x", [])) == "unknown model 'x'; known: none"

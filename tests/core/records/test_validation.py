"""The record validation.json, and the statistics of the drift."""

from dataclasses import asdict, replace

import pytest

from edgekit.core.environment.atomic_files import write_json
from edgekit.core.errors import InputError
from edgekit.core.numerics.output_comparison import Comparison, Figure
from edgekit.core.numerics.statistics import ClassDrift, Interval
from edgekit.core.records.validation import Drift, Validation, load_validation


def drift(**changes):
    base = {
        "metric": "accuracy",
        "source": 0.96,
        "artifact": 0.95,
        "drop": 0.01,
        "samples": 1000,
        "top1_agreement": 0.98,
        "min_top1_agreement": 0.9,
        "interval": Interval(0.002, 0.018),
        "variance": 0.018,
        "lost": 14,
        "won": 4,
        "p_value": 0.031,
        "classes": (ClassDrift(3, 100, 0.97, 0.9), ClassDrift(1, 100, 0.95, 0.95)),
    }
    return Drift(**{**base, **changes})


def validation(drift):
    return Validation("net", "torch", "tflite", "int8", "0" * 64, "litert", (Comparison("y", 64, 3, ()),), drift)


def with_stress(drift):
    return replace(validation(drift), stress=(Comparison("y", 2, 1, ()),), stress_cases=("zeros", "denormals"))


def test_a_record_is_unchanged_by_the_round_trip(tmp_path):
    whole = validation(drift())
    write_json(tmp_path / "validation.json", {**asdict(whole), "passed": True})
    assert load_validation(tmp_path / "validation.json") == whole


def test_stress_cases_are_unchanged_by_the_round_trip(tmp_path):
    write_json(tmp_path / "validation.json", {**asdict(with_stress(drift())), "passed": True})
    loaded = load_validation(tmp_path / "validation.json")
    assert loaded == with_stress(drift())
    assert loaded.stress_case(loaded.stress[0]) == "denormals"


def test_a_file_of_version_2_is_read(tmp_path):
    """Version 2 had other names for three keys."""
    data = {**asdict(with_stress(None)), "passed": True, "schema_version": 2}
    for old, new in (("how", "tag"), ("hard", "stress"), ("hard_cases", "stress_cases")):
        data[old] = data.pop(new)
    write_json(tmp_path / "validation.json", data)
    assert load_validation(tmp_path / "validation.json") == with_stress(None)


def test_a_file_of_an_unreadable_version_asks_to_validate_again(tmp_path):
    write_json(tmp_path / "validation.json", {**asdict(validation(None)), "schema_version": 1})
    with pytest.raises(InputError, match="validate again"):
        load_validation(tmp_path / "validation.json")


@pytest.mark.parametrize(
    ("limit", "decided"), [(0.02, True), (0.018, True), (0.01, False), (0.002, False), (0.001, True)]
)
def test_a_limit_inside_the_interval_is_undecided(limit, decided):
    assert drift().decided(limit) is decided


def test_a_limit_nearer_to_the_drop_needs_more_samples():
    assert drift().needed(0.011) > drift().needed(0.02) > 0


def test_without_a_variance_there_is_no_detectable_drop_and_no_sample_count():
    plain = drift(variance=None, interval=None)
    assert plain.detectable is None
    assert plain.needed(0.02) is None
    assert plain.decided(0.01)


def test_a_thousand_samples_do_not_detect_a_drop_of_half_a_point():
    assert 0.005 < drift().detectable < 0.02


def test_a_larger_error_by_default_is_told_and_does_not_fail(tmp_path):
    own, default = (
        Comparison("y", 64, 3, (Figure("sqnr_db", value, limit),)) for value, limit in ((41.0, 20.0), (16.1, None))
    )
    record = replace(
        validation(None), comparisons=(own,), arithmetic="x86_64 AVX2, int8 weights as uint8", by_default=(default,)
    )
    write_json(tmp_path / "validation.json", {**asdict(record), "passed": True})
    loaded = load_validation(tmp_path / "validation.json")
    assert loaded == record
    assert loaded.passed
    assert loaded.processor_note == (
        "litert without options has an SQNR of 16.1 dB on this processor (x86_64 AVX2, int8 weights as uint8), the file"
        " itself 41 dB"
    )


def judged(precision, *outputs):
    comparisons = tuple(
        Comparison(f"y{index}", 64, 0, (Figure("sqnr_db", value, 20.0),), evidence=evidence)
        for index, (value, evidence) in enumerate(outputs)
    )
    return Validation("net", "torch", "tflite", precision, "0" * 64, "litert", comparisons, None)


def test_a_constant_output_beside_others_is_fine_and_alone_is_no_evidence():
    assert judged("int8", (40.0, True), (None, False)).passed
    assert judged("int8", (None, False)).failures == (
        "the source returns the same outputs for all 64 samples, which is no evidence of equality",
    )


@pytest.mark.parametrize(
    ("precision", "value", "unquantized", "passed"),
    [
        ("int8", None, True, False),
        ("int8", 128.0, True, False),
        ("int8", 40.0, False, True),
        ("int16x8", 96.0, False, True),
        ("dynamic", None, True, True),  # a converter may leave small layers alone; that is said
        ("float16", None, False, True),
    ],
)
def test_a_quantized_file_without_quantization_noise_is_found(precision, value, unquantized, passed):
    result = judged(precision, (value, True))
    assert (result.unquantized, result.passed) == (unquantized, passed)

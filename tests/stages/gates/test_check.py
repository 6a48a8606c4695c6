"""Gates on emulated latencies: by the prediction, and by the upper end of its interval."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from _helpers.sample_reports import EMULATED, artifact, measurement

from edgekit.core.environment.atomic_files import write_json
from edgekit.core.environment.project import open_project
from edgekit.core.records.emulated_measurement import UNCALIBRATED
from edgekit.core.records.measurement import bench_file
from edgekit.core.values.budgets import COMMAND_LINE, Budget
from edgekit.stages.context import Context
from edgekit.stages.gates.check import check_one

LIMITS = (Budget("latency_ms.emulated", 3.3, COMMAND_LINE),)


@pytest.fixture
def verdict(tmp_path):
    """Judges an artifact whose latency is predicted as 3.21 ms, between 3 and 3.4 ms, by a limit of 3.3 ms."""

    def judge(confidence, **changes):
        entry = replace(artifact("tflite:int8", "tiny"), folder=tmp_path)
        bench = measurement(
            "raspberry-pi-4b",
            latency_ms={"host": 1.2, "emulated": 3.21},
            emulated=replace(EMULATED, latency_ms=3.21, **changes),
        )
        write_json(tmp_path / bench_file("raspberry-pi-4b"), asdict(bench))
        context = Context(open_project(tmp_path), None, lambda event: None)
        verdicts = check_one(context, entry, LIMITS, confidence=confidence)
        return next(item for item in verdicts if item.rule == "latency_ms.emulated")

    return judge


def test_without_confidence_the_prediction_is_judged(verdict):
    assert (verdict(False).passed, verdict(False).figure) == (True, 3.21)


def test_with_confidence_the_upper_end_is_judged(verdict):
    judged = verdict(True)
    assert (judged.passed, judged.figure) == (False, 3.4)
    assert judged.sentence.endswith("set on the command line; upper end of the interval; predicted 3.21 ms")


def test_the_verdict_says_in_what_a_network_is_unlike_those_fitted(verdict):
    judged = verdict(True, high_ms=3.25, unlike=("3 times the most instructions",))
    assert judged.passed
    assert judged.sentence.endswith("unlike the fitted networks: 3 times the most instructions")


def test_a_figure_without_an_interval_does_not_pass_with_confidence(verdict):
    judged = verdict(True, low_ms=None, high_ms=None, calibration=UNCALIBRATED)
    assert not judged.passed
    assert judged.sentence.endswith("latency_ms.emulated: no interval: uncalibrated")

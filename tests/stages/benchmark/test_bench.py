"""Tests of the warnings about quantized artifacts that are larger or slower than their float32 counterpart."""

from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.sample_reports import measurement

from edgekit.core.environment.project import Project
from edgekit.stages.benchmark.bench import _warn_of_losses
from edgekit.stages.context import Context

FLOAT = replace(measurement("host", latency_ms={"host": 1.0}), precision="float32", size_bytes=1000)


def warnings(*measurements):
    events = []
    _warn_of_losses(Context(Project(Path()), None, events.append), measurements)
    return [event.detail for event in events]


@pytest.mark.parametrize(("latency_ms", "warned"), [(1.1, False), (1.101, True)])
def test_a_quantized_artifact_is_slower_only_beyond_the_noise_of_the_host(latency_ms, warned):
    quantized = replace(FLOAT, precision="int8", latency_ms={"host": latency_ms})
    assert bool(warnings(FLOAT, quantized)) == warned


def test_a_tuned_float_artifact_is_not_the_reference():
    quantized = replace(FLOAT, precision="int8", size_bytes=1500)
    tuned = replace(FLOAT, tag="tuned", size_bytes=2000)
    expected = ["larger (1.5 KB against 1 KB) than tflite:float32"]
    assert warnings(FLOAT, tuned, quantized) == expected
    assert warnings(tuned, FLOAT, quantized) == expected
    assert warnings(tuned, quantized) == []


def test_float16_is_not_compared():
    assert warnings(FLOAT, replace(FLOAT, precision="float16", size_bytes=1500)) == []

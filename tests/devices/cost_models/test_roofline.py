"""The roofline."""

from dataclasses import replace

import pytest

from edgekit.config.device_profile import Core, DeviceProfile, MemorySpec
from edgekit.core.values.precisions import precision_names
from edgekit.devices.cost_models.roofline import Roofline, roofline

BIG = Core("big", 4, 1000, macs_per_cycle={"float32": 4.0, "int8": 16.0})
LITTLE = Core("little", 4, 100, macs_per_cycle={"float32": 1.0, "int8": 1.0})
PROFILE = DeviceProfile("Tiny", "board", "T1", "armv8-a", (BIG, LITTLE), MemorySpec(2**30, bandwidth_gb_per_s=2.0))


def bound(precision="float32", profile=PROFILE, macs=8_000_000, weight_bytes=1000, threads=1):
    return roofline(profile, precision, macs=macs, weight_bytes=weight_bytes, threads=threads)


def test_much_work_on_few_bytes_is_bound_by_compute():
    # 8e6 MACs / (4 a cycle * 1e9 cycles a second) = 2 ms
    assert bound() == Roofline(pytest.approx(2.0), "compute")


def test_many_bytes_with_little_work_are_bound_by_memory():
    # 10e6 bytes / (2e9 bytes a second) = 5 ms
    assert bound(weight_bytes=10_000_000) == Roofline(pytest.approx(5.0), "memory")


def test_more_threads_share_the_compute_but_not_the_memory():
    assert bound(threads=4).latency_ms == pytest.approx(0.5)
    assert bound(threads=4, weight_bytes=10_000_000).latency_ms == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("precision", "rate"), [("float32", 4), ("float16", 4), ("dynamic", 16), ("int8", 16), ("int4", 16)]
)
def test_each_precision_computes_at_the_rate_of_its_arithmetic(precision, rate):
    assert bound(precision).latency_ms == pytest.approx(8 / rate)


def test_without_a_bandwidth_the_bound_is_the_compute_s():
    profile = replace(PROFILE, memory=MemorySpec(2**30))
    assert bound(profile=profile, weight_bytes=10**9) == Roofline(pytest.approx(2.0), "compute")


def test_without_macs_there_is_no_bound_and_a_reason():
    assert bound(macs=None) == Roofline(None, None, "the multiply-accumulates of the model are unknown")


@pytest.mark.parametrize(
    "precision", sorted(set(precision_names()) - {"float32", "float16", "dynamic", "int8", "int4"})
)
def test_a_precision_without_a_rate_has_no_bound_and_a_reason(precision):
    assert bound(precision) == Roofline(None, None, f"the profile has no {precision} rate for the core big")


def test_a_core_without_rates_has_no_bound_even_when_another_cluster_has_some():
    profile = replace(PROFILE, cores=(replace(BIG, macs_per_cycle={"int8": 16.0}), LITTLE))
    assert bound(profile=profile) == Roofline(None, None, "the profile has no float32 rate for the core big")
    assert bound("int8", profile).latency_ms == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("features", "precision", "rate"),
    [
        (("neon",), "float32", 4),
        (("neon",), "int8", 8),
        (("neon", "dotprod"), "int8", 16),
        (("neon",), "int16x8", 4),
        (("dsp", "fpv4-sp"), "int8", 2),
        (("dsp",), "int16x8", 2),
    ],
)
def test_a_core_without_a_published_rate_gets_that_of_its_instruction_set_marked_as_assumed(features, precision, rate):
    core = replace(BIG, macs_per_cycle={}, features=features)
    result = bound(precision, replace(PROFILE, cores=(core,)))
    assert result == Roofline(pytest.approx(8 / rate), "compute", assumed=True)


def test_a_published_rate_comes_before_the_instruction_set_s():
    core = replace(BIG, features=("neon", "dotprod"), macs_per_cycle={"int8": 32.0})
    result = bound("int8", replace(PROFILE, cores=(core,)))
    assert (result.latency_ms, result.assumed) == (pytest.approx(8 / 32), False)

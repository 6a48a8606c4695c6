"""Lifetimes of tensors, their peak, and the smallest arena."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.records.memory_plan import TensorLifetime, bisect_minimum, memory_peak, render_timeline

LIFETIMES = (
    TensorLifetime("input", 100, 0, 0),
    TensorLifetime("wide", 400, 0, 1),
    TensorLifetime("narrow", 50, 1, 2),
    TensorLifetime("skipped", 300, 0, 2),
)


def test_the_peak_is_the_largest_sum_of_tensor_sizes():
    peak = memory_peak(LIFETIMES)
    assert (peak.operator, peak.size_bytes) == (0, 800)
    assert [tensor.name for tensor in peak.tensors] == ["wide", "skipped", "input"]


def test_the_timeline_has_a_line_of_the_same_width_for_every_tensor():
    lines = render_timeline(LIFETIMES, width=12)
    assert [len(line) for line in lines] == [12] * 4
    assert lines[0].rstrip() == lines[0][:4]  # the lifetime of the input is a third
    assert lines[3].strip() == lines[3]  # the skip connection's is the whole inference
    assert render_timeline([]) == []


@given(st.integers(1, 1 << 20))
def test_bisection_finds_the_exact_byte(need):
    tried = []

    def runs(size):
        tried.append(size)
        return size >= need

    assert bisect_minimum(runs, 1 << 20) == need
    assert len(tried) < 45


def test_a_model_that_never_runs_has_no_smallest_arena():
    assert bisect_minimum(lambda _size: False, 1 << 20) is None


@pytest.mark.parametrize("need", [1, 1024, 1025, 1 << 20])
def test_bisection_finds_the_ends_of_the_range(need):
    assert bisect_minimum(lambda size: size >= need, 1 << 20) == need

"""The order in which samples are dealt out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.numerics.sample_order import split_order


@pytest.mark.parametrize("labels", [None, np.arange(50) % 7, np.linspace(0, 1, 50), np.zeros((50, 2), np.int64)])
def test_it_is_a_permutation_that_the_seed_determines(labels):
    order = split_order(50, labels, 0)
    assert sorted(order) == list(range(50))
    assert list(order) != list(range(50))
    np.testing.assert_array_equal(order, split_order(50, labels, 0))
    assert list(order) != list(split_order(50, labels, 1))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**31), st.data())
def test_every_part_of_sorted_data_has_each_class_in_its_share(sizes, seed, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    start = data.draw(st.integers(0, len(labels)))
    stop = data.draw(st.integers(start, len(labels)))
    part = labels[split_order(len(labels), labels, seed)[start:stop]]
    for label, size in enumerate(sizes):
        # Two classes at the same position may change places at both ends of the part.
        assert abs((part == label).sum() - size * len(part) / len(labels)) <= 2


def test_none_of_nothing():
    assert len(split_order(0, None, 0)) == 0

"""Splitting data into disjoint sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.training.datasets.splits import digest, split_indices

SEEDED = settings(derandomize=True, max_examples=80)

sizes_of_three = st.tuples(*[st.integers(0, 30)] * 3)
seeds = st.integers(0, 2**32 - 1)


@SEEDED
@given(sizes_of_three, st.integers(1, 50), seeds, st.booleans())
def test_the_parts_are_disjoint_and_cover_all_samples(sizes, rest, seed, with_labels):
    count = sum(sizes) + rest
    labels = np.arange(count) % 3 if with_labels else None
    parts = split_indices(count, sizes, seed, labels)
    assert [len(part) for part in parts] == [*sizes, rest]
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))


@SEEDED
@given(sizes_of_three, st.integers(1, 50), seeds)
def test_the_same_seed_gives_the_same_parts(sizes, rest, seed):
    count = sum(sizes) + rest
    for first, second in zip(split_indices(count, sizes, seed), split_indices(count, sizes, seed), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("labels", [None, np.arange(1000) % 10])
def test_another_seed_gives_other_parts(labels):
    first, second = (split_indices(1000, (100,), seed, labels)[0] for seed in (1, 2))
    assert set(first) != set(second)


@pytest.mark.parametrize("labels", [None, np.repeat(np.arange(10), 100)])
def test_parts_are_shuffled(labels):
    parts = split_indices(1000, (100, 100), 0, labels)
    assert all(part.max() > 900 and part.min() < 100 for part in parts)


@SEEDED
@given(st.integers(2, 10), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), seeds)
def test_whole_multiples_of_equally_frequent_classes_are_split_exactly(classes, first, second, rest, seed):
    per_class = first + second + rest
    labels = np.repeat(np.arange(classes), per_class)
    parts = split_indices(len(labels), (first * classes, second * classes), seed, labels)
    for part, expected in zip(parts, (first, second, rest), strict=True):
        assert np.bincount(labels[part], minlength=classes).tolist() == [expected] * classes


@SEEDED
@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_a_rare_class_keeps_its_share_in_every_part(frequent, rare, data):
    labels = np.repeat([0, 1], [frequent, rare])
    first = data.draw(st.integers(0, len(labels) - 1))
    second = data.draw(st.integers(0, len(labels) - 1 - first))
    for part in split_indices(len(labels), (first, second), 0, labels):
        share = len(part) * rare / len(labels)
        assert abs(int((labels[part] == 1).sum()) - share) <= 3


@pytest.mark.parametrize("sizes", [(10,), (5, 5), (11,), (4, 4, 4)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(sizes):
    with pytest.raises(InputError) as caught:
        split_indices(10, sizes, 0)
    held_out = sum(sizes)
    expected = f"the data has 10 samples, of which {held_out} are held out: none is left to train on"
    assert str(caught.value) == expected
    assert caught.value.exit_code == 2


def test_one_sample_may_be_left():
    assert [len(part) for part in split_indices(10, (9,), 0)] == [9, 1]


def test_the_digest_does_not_depend_on_memory_layout():
    array = np.arange(6.0).reshape(2, 3)
    assert digest(array) == digest(np.asfortranarray(array)) == digest(array.copy())


@pytest.mark.parametrize(
    "other",
    [np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.eye(2, 3), np.zeros(6)],
    ids=["shape", "dtype", "value", "rank"],
)
def test_the_digest_distinguishes_different_arrays(other):
    assert digest(other) != digest(np.zeros((2, 3)))


def test_the_digest_depends_on_the_order_of_the_arrays():
    inputs, labels = np.zeros(3), np.ones(3)
    assert digest(inputs, labels) != digest(labels, inputs)
    assert digest(inputs) != digest(inputs, labels)

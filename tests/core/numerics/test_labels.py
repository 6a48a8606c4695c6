"""Labels as people save them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.numerics.labels import read_labels

CLASSES = np.array([2, 0, 1, 2, 0])
ONE_HOT = np.eye(3)[CLASSES]


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (CLASSES, ""),
        (CLASSES.astype(np.uint8), ""),
        (CLASSES[:, None], "of shape (5, 1) are read as one class index per sample"),
        (CLASSES[None], "of shape (1, 5) are read as one class index per sample"),
        (CLASSES.astype(np.float32), "of type float32 are read as one class index per sample"),
        (CLASSES[:, None] * 1.0, "of shape (5, 1) and of type float64 are read"),
        (ONE_HOT, "one-hot rows of 3 classes"),
        (ONE_HOT.astype(bool), "one-hot rows of 3 classes"),
        (ONE_HOT.astype(np.int64), "one-hot rows of 3 classes"),
        (0.7 * ONE_HOT + 0.1, "probabilities, whose largest is the class, of 3 classes"),
    ],
)
def test_every_usual_form_of_classes_becomes_class_indices(labels, note):
    read = read_labels(labels, 5, "p", (3,))
    np.testing.assert_array_equal(read.values, CLASSES)
    assert (read.values.dtype, read.metric) == (np.int64, "accuracy")
    assert note in read.note
    assert bool(note) == bool(read.note)


@pytest.mark.parametrize(
    ("labels", "shape"),
    [
        (np.linspace(0, 1, 5), ()),
        (np.linspace(0, 1, 5), (1,)),
        (np.linspace(0, 1, 5)[:, None], (1,)),
        (np.linspace(0, 1, 5)[None], (1,)),
        (np.arange(5), (1,)),
        (np.linspace(-1, 1, 15).reshape(5, 3), (3,)),
        (np.zeros((5, 4, 4, 2), np.uint8), (4, 4, 2)),
        (np.zeros((5, 32), np.float16), (4, 4, 2)),
    ],
)
def test_what_has_the_shape_of_the_output_is_a_target(labels, shape):
    read = read_labels(labels, 5, "y", shape)
    assert read.values.shape == (5, *shape)
    assert read.values.dtype in (np.float32, np.float64)
    assert (read.metric, read.note) == ("mae", "labels are read as targets of the output y")
    np.testing.assert_array_equal(read.values.reshape(-1), labels.reshape(-1))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            np.array(["cat", "dog", "cat", "cow", "cow"]),
            "labels are texts; write the classes as numbers, counted from 0",
        ),
        (np.array([1 + 1j] * 5), "labels are of type complex128"),
        (np.array([0, 1, np.nan, 1, 2]), "labels contain NaN"),
        (np.array([0, 1, np.inf, 1, 2]), "labels contain infinity"),
        (np.array([0.0, 1.0, 0.25, 1.0, 2.0]), "labels contain 0.25, but p has 3 classes: a class is a whole number"),
        (np.array([1, 2, 3, 1, 2]), "labels run from 1 to 3, but p has 3 classes, counted from 0 to 2"),
        (np.array([-1, 2, 0, 1, 2]), "labels run from -1 to 2"),
        (CLASSES[:4], "4 labels for 5 samples; there must be one label per sample"),
        (ONE_HOT[:4], "4 labels for 5 samples"),
        (np.array(3), "1 labels for 5 samples"),
        (np.eye(4)[CLASSES], "labels of shape (5, 4) and type float64 do not fit the output p of shape Nx3"),
        (np.ones((5, 3), np.int64), "labels of shape (5, 3) and type int64 do not fit"),
        (np.zeros((5, 0)), "do not fit"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(labels, sentence):
    with pytest.raises(InputError) as raised:
        read_labels(labels, 5, "p", (3,))
    assert sentence in str(raised.value)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(2, 7))
def test_one_hot_rows_and_indices_mean_the_same(classes, most):
    array = np.array(classes) % most
    rows = read_labels(np.eye(most)[array], len(array), "p", (most,))
    np.testing.assert_array_equal(rows.values, read_labels(array, len(array), "p", (most,)).values)

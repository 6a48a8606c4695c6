"""The data sets of the reference models, shared by both frameworks: disjoint, balanced, seeded."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest
from _helpers.reference_pairs import MODELS, NAMES

from edgekit.config.model import load_model_spec
from edgekit.core.environment.user_code import load_function
from edgekit.core.errors import InputError
from edgekit.training.datasets import watch

PARTS = ("train", "calibration", "golden", "test")
DIGITS = [name for name in NAMES if load_model_spec(MODELS / name).data.default == "mnist-5k"]
ENLARGED = [name for name in DIGITS if name != "simple_cnn"]


def spec_of(name):
    return load_model_spec(MODELS / name)


def load(name, data=None, spec=None):
    spec = spec or spec_of(name)
    return load_function(MODELS / name / "data.py", "load")(data or spec.data.default, spec)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(name):
    """Return the splits of one model at a time: images of 96x96 take half a gigabyte."""
    return load(name)


def inputs(splits, part):
    return getattr(splits, f"{part}_inputs")


def labels(splits, part):
    return getattr(splits, f"{part}_labels")


def rows(array):
    """Return the set of hashes of the samples."""
    return {hashlib.blake2b(np.ascontiguousarray(row), digest_size=16).digest() for row in array}


@pytest.mark.slow
def test_the_parts_are_disjoint(loaded):
    previous = set()
    for part in PARTS:
        samples = rows(inputs(loaded, part))
        assert previous.isdisjoint(samples), part
        previous |= samples


def test_the_parts_have_the_sizes_of_model_toml(loaded, name):
    spec = spec_of(name).data
    for part in ("calibration", "golden", "test"):
        assert len(inputs(loaded, part)) == getattr(spec, part)
    assert len(inputs(loaded, "train")) > spec.test


def test_every_input_has_its_label(loaded):
    for part in PARTS:
        assert labels(loaded, part).shape == (len(inputs(loaded, part)),)


def test_inputs_have_the_shape_dtype_and_range_of_model_toml(loaded, name):
    spec = spec_of(name).input
    low, high = spec.range or (-np.inf, np.inf)
    for part in PARTS:
        array = inputs(loaded, part)
        assert array.shape[1:] == spec.shape
        assert array.dtype == spec.dtype
        assert array.min() >= low
        assert array.max() <= high


def test_calibration_spans_the_range_that_quantization_must_cover(loaded, name):
    low, high = spec_of(name).input.range or (np.inf, -np.inf)
    array = inputs(loaded, "calibration")
    assert array.min() <= low + 0.05 * (high - low)
    assert array.max() >= high - 0.05 * (high - low)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_splits(loaded, name):
    again = load(name)
    for field in fields(again):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(loaded, field.name))


def test_name_licence_and_digest_identify_the_data(loaded, name):
    splits, spec = loaded, spec_of(name)
    assert len(splits.sha256) == 64
    assert (splits.name, splits.licence) == (spec.data.default, spec.data.licence)


def test_unknown_data_is_refused(name):
    with pytest.raises(InputError) as caught:
        load(name, "no-such-data")
    assert str(caught.value).startswith("unknown data 'no-such-data'; known: ")


def test_every_class_is_in_every_part(loaded, name):
    spec = spec_of(name)
    if spec.task != "classification":
        return
    for part in PARTS:
        assert np.unique(labels(loaded, part)).tolist() == list(range(len(spec.output.classes)))


@pytest.fixture(scope="module")
def digits():
    return load("simple_cnn")


@pytest.mark.parametrize("part", ["golden", "calibration", "test"])
def test_digits_are_class_balanced(digits, part):
    counts = np.bincount(labels(digits, part), minlength=10)
    assert counts.max() - counts.min() <= 1


def test_training_digits_are_augmented_by_shifted_copies_with_their_labels(digits):
    images, classes = digits.train_inputs, digits.train_labels
    count = len(images) // 5
    assert count == 5000 - 64 - 256 - 1000
    np.testing.assert_array_equal(classes, np.tile(classes[:count], 5))
    np.testing.assert_array_equal(images[count : 2 * count, 1:], images[:count, :-1])


@pytest.mark.parametrize("name", ENLARGED, indirect=True)
def test_digits_instead_of_photographs_have_three_equal_channels(loaded, name):
    for part in ("calibration", "golden"):
        array = inputs(loaded, part)
        np.testing.assert_array_equal(array[..., 0], array[..., 1])
        np.testing.assert_array_equal(array[..., 0], array[..., 2])
    assert "MNIST" in spec_of(name).data.description


def test_points_lie_on_the_line():
    splits = load("linear")
    for part in PARTS:
        residual = labels(splits, part) - (3 * inputs(splits, part)[:, 0] + 1)
        assert abs(residual.mean()) < 0.05
        assert 0.05 < residual.std() < 0.15


def test_another_seed_draws_other_points():
    spec = spec_of("linear")
    other = load("linear", spec=replace(spec, training=replace(spec.training, seed=spec.training.seed + 1)))
    assert other.sha256 != load("linear").sha256


@pytest.mark.slow
def test_parts_share_no_sample_of_a_signal():
    """Windows overlap, but a sample of the signal, six channels, is in windows of one part only."""
    splits = load("ds_cnn")
    samples = {part: rows(inputs(splits, part).reshape(-1, 6)) for part in PARTS}
    for part in PARTS:
        for other in PARTS:
            assert part == other or samples[part].isdisjoint(samples[other])


@pytest.mark.parametrize("name", ["ds_cnn", "autoencoder"], indirect=True)
def test_people_of_the_test_set_are_in_no_other_part(loaded, name):
    """Every sample comes from a recording of its part, and no recording of a test person is in another part."""
    code = load_function(MODELS / name / "data.py", "load").__globals__
    anomaly = name == "autoencoder"
    recordings = watch.load("watch")
    recordings = recordings if anomaly else watch.halve_rate(recordings)
    normal = [recording for recording in recordings if not anomaly or recording.exercise == code["NORMAL"]]
    parts = watch.split_recordings(normal, code["TEST_PEOPLE"], code["HELD_OUT"])
    previous = set()
    for part in PARTS:
        part_recordings = getattr(parts, part)
        if anomaly and part == "test":
            part_recordings = [recording for recording in recordings if recording.person in code["TEST_PEOPLE"]]
        stride = code["TRAIN_STRIDE" if part == "train" else "STRIDE"]
        windows, _ = watch.windows(part_recordings, code["LENGTH"], stride)
        expected = code["features"](windows) if anomaly else windows[..., None]
        samples = inputs(loaded, part)
        if part == "train":
            samples = samples[: len(expected)]  # mirrored and rotated copies of these follow
        assert rows(samples) <= rows(expected)
        assert {recording.person in code["TEST_PEOPLE"] for recording in part_recordings} == {part == "test"}
        assert previous.isdisjoint(map(id, part_recordings))
        previous |= set(map(id, part_recordings))


def test_only_the_test_set_has_anomalies():
    splits = load("autoencoder")
    assert [np.unique(labels(splits, part)).tolist() for part in PARTS] == [[0], [0], [0], [0, 1]]


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\x00\x00\x08" + bytes([array.ndim]) + sizes + array.tobytes()


def idx_folder(folder, images, classes, held_out=50):
    parts = {"train": slice(None, -held_out), "t10k": slice(-held_out, None)}
    for part, indices in parts.items():
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images[indices]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(classes[indices]))
    return str(folder)


def random_images(side=28, count=500):
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


def test_a_user_s_idx_files_are_tested_on_their_own_test_part(tmp_path):
    images, classes = random_images(), (np.arange(500) % 10).astype(np.uint8)
    splits = load("simple_cnn", idx_folder(tmp_path, images, classes))
    np.testing.assert_array_equal(splits.test_labels, classes[-50:])
    expected = rows((images[-50:, ..., None] / np.float32(255)).astype(np.float32))
    assert rows(splits.test_inputs) == expected
    assert all(expected.isdisjoint(rows(inputs(splits, part))) for part in ("train", "calibration", "golden"))


def test_too_few_samples_are_refused(tmp_path):
    data = idx_folder(tmp_path, random_images(count=300), np.zeros(300, np.uint8))
    with pytest.raises(InputError, match="the data has 250 samples, of which 320 are held out"):
        load("simple_cnn", data)


def test_images_of_another_size_are_refused(tmp_path):
    data = idx_folder(tmp_path, random_images(side=32), np.zeros(500, np.uint8))
    with pytest.raises(InputError) as caught:
        load("simple_cnn", data)
    assert str(caught.value) == f"{data}: images have shape (32, 32, 1), but the model expects (28, 28, 1)"


def test_labels_of_more_classes_than_the_model_has_are_refused(tmp_path):
    data = idx_folder(tmp_path, random_images(), (np.arange(500) % 26).astype(np.uint8))
    with pytest.raises(InputError, match=r"labels are 0\.\.25, but the model has 10 classes"):
        load("simple_cnn", data)

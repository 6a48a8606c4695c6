"""Data sets in the folders of installed packages: the smartwatch recordings and the Japanese vowels."""

import importlib.util
import sys

import numpy as np
import pytest

from edgekit.core.environment import requirements
from edgekit.core.errors import InputError, MissingDependency
from edgekit.training.datasets import vowels, watch

SETS = {"watch": watch, "japanese-vowels": vowels}


@pytest.fixture(scope="module")
def recordings():
    return watch.load("watch")


@pytest.mark.parametrize("data", SETS)
def test_an_unknown_name_is_refused_and_the_known_one_listed(data):
    with pytest.raises(InputError) as caught:
        SETS[data].load("nope")
    assert str(caught.value) == f"unknown data 'nope'; known: {data}"


@pytest.mark.parametrize("data", SETS)
def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, data):
    monkeypatch.setattr(requirements.Requirement, "installed", lambda self: False)
    with pytest.raises(MissingDependency) as caught:
        SETS[data].load(data)
    assert str(caught.value).startswith(f"the data {data} needs ")
    assert str(caught.value).endswith("install it with: pip install 'edgekit[data]'")


@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("content", [None, b"", b"\x80\x04cos\nsystem\n"], ids=["absent", "empty", "different"])
def test_a_file_with_a_different_hash_is_refused_and_never_parsed(monkeypatch, tmp_path, data, content):
    """The recordings are a pickle, so only a file with the expected hash may reach the unpickler."""

    class Spec:
        origin = str(tmp_path / "__init__.py")

    def fail_to_parse(*args, **kwargs):
        raise AssertionError("the file was parsed")

    files = {"watch": "data/watch_dataset.npy", "japanese-vowels": f"{vowels._FOLDER}/JapaneseVowels_eq_TRAIN.ts"}
    path = tmp_path / files[data]
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec)
    monkeypatch.setattr(np, "load", fail_to_parse)
    with pytest.raises(InputError) as caught:
        SETS[data].load(data)
    assert str(caught.value).startswith(f"{path}: this is not the ")
    assert "(its sha256 differs); install " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_does_not_import_the_packages(recordings):
    vowels.load("japanese-vowels")
    assert not {"seglearn", "aeon"} & set(sys.modules)


def test_the_recordings_cover_ten_people_seven_exercises_and_both_arms(recordings):
    assert len(recordings) == 140
    assert {(recording.person, recording.exercise) for recording in recordings} == {
        (p, e) for p in range(1, 11) for e in range(7)
    }
    assert all(recording.signal.shape[1] == 6 and recording.signal.dtype == np.float32 for recording in recordings)
    assert sum(len(recording.signal) for recording in recordings) == 244_102
    assert len(watch.EXERCISES) == 7


def test_parts_are_split_by_person_and_by_recording(recordings):
    parts = watch.split_recordings(recordings, (8, 9, 10), 1)
    assert {recording.person for recording in parts.test} == {8, 9, 10}
    assert sorted(recording.exercise for recording in parts.golden) == list(range(7))
    assert sorted(recording.exercise for recording in parts.calibration) == list(range(7))
    distributed = [*parts.train, *parts.calibration, *parts.golden, *parts.test]
    assert len(distributed) == len({id(recording) for recording in distributed}) == 140


def test_windows_are_sections_of_the_standardised_signal(recordings):
    recording = recordings[5]
    windows, exercises = watch.windows([recording], 100, 20)
    assert windows.shape == ((len(recording.signal) - 100) // 20 + 1, 100, 6)
    np.testing.assert_array_equal(windows[3], watch.standardise(recording.signal)[60:160])
    assert set(exercises.tolist()) == {recording.exercise}
    np.testing.assert_array_equal(watch.standardise(np.array([[1, 1, 1, 1, 5, 99]], np.float32)), [[1, 2, 2, 1, 2, 4]])


def test_at_half_the_rate_each_sample_is_the_mean_of_two(recordings):
    (half,) = watch.halve_rate(recordings[:1])
    assert half.signal.shape == (len(recordings[0].signal) // 2, 6)
    np.testing.assert_allclose(half.signal[7], recordings[0].signal[14:16].mean(axis=0), rtol=1e-6)


def test_a_mirrored_left_arm_measures_gravity_like_a_right_arm(recordings):
    """In the exercise TRAP the arm hangs down: gravity is along the x axis, its sign distinguishes left and right."""
    hanging = [recording for recording in recordings if watch.EXERCISES[recording.exercise] == "TRAP"]
    before = np.array([recording.signal.mean(axis=0) for recording in hanging])
    after = np.array([recording.signal.mean(axis=0) for recording in watch.mirror(hanging)])
    assert sorted(np.sign(before[:, 0])) == [-1.0] * 10 + [1.0] * 10
    np.testing.assert_allclose(after, before * [-1, 1, 1, 1, -1, -1], rtol=1e-4, atol=1e-6)


def test_rotated_copies_keep_the_lengths_of_vectors_up_to_their_scale(recordings):
    copies = watch.rotate(recordings[:3], seed=0)
    for before, after in zip(recordings, copies, strict=False):
        assert (after.exercise, after.person) == (before.exercise, before.person)
        for part in (slice(0, 3), slice(3, 6)):
            lengths = [np.linalg.norm(recording.signal[:, part], axis=1) for recording in (before, after)]
            ratio = lengths[1] / lengths[0]
            assert ratio.std() < 1e-4
            assert 0.85 <= ratio.mean() <= 1.15
        assert abs(after.signal - before.signal).max() > 0.1
    again = watch.rotate(recordings[:3], seed=0)
    assert all(np.array_equal(first.signal, second.signal) for first, second in zip(copies, again, strict=True))


def test_balanced_samples_keep_the_shares_of_their_classes():
    inputs, labels = np.arange(100), np.repeat([0, 1], [80, 20])
    drawn, classes = watch.draw_balanced(inputs, labels, 10)
    assert len(set(drawn.tolist())) == 10
    assert np.bincount(classes).tolist() == [8, 2]
    np.testing.assert_array_equal(classes, labels[drawn])


def test_the_vowels_are_thirty_utterances_of_nine_men_and_a_test_part():
    utterances = vowels.load("japanese-vowels")
    assert (utterances.frames.shape, utterances.frames.dtype, utterances.test_from) == ((640, 25, 12), np.float32, 270)
    assert np.bincount(utterances.speakers[:270]).tolist() == [30] * 9
    assert np.bincount(utterances.speakers[270:]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert utterances.frames[0, :3, 0].tolist() == pytest.approx([1.860936, 1.906684, 1.919277])
    assert utterances.frames[0, 0, 1] == pytest.approx(-0.207383)


def test_standardised_vowels_have_unit_deviation_and_fixed_limits():
    utterances = vowels.load("japanese-vowels")
    scaled = vowels.standardise(utterances.frames[:270])
    assert abs(scaled.mean(axis=(0, 1))).max() < 0.1
    assert abs(scaled.std(axis=(0, 1)) - 1).max() < 0.1
    assert abs(scaled).max() == 3.0


def test_the_own_test_part_of_the_vowels_is_split_into_golden_calibration_and_test():
    splits = vowels.load_splits("japanese-vowels", 64, 96)
    assert [len(x) for x in (splits.train_inputs, splits.golden_inputs, splits.calibration_inputs)] == [270, 64, 96]
    assert len(splits.test_inputs) == 370 - 64 - 96

"""Checks of calibration samples: each mistake is found, good samples have no findings."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.numerics.calibration_lint import lint, lint_outputs

RNG = np.random.default_rng(0)
DATA = RNG.random((100, 8, 8, 1), dtype=np.float32)
LABELS = np.arange(100) % 10


def names(array: np.ndarray, **labels: np.ndarray) -> list[str]:
    return [finding.name for finding in lint({"image": array}, {"image": DATA}, **labels)]


def test_good_samples_have_no_findings() -> None:
    assert names(DATA[:64], labels=LABELS[:64], known_labels=LABELS) == []


@pytest.mark.parametrize(
    ("array", "name", "figure"),
    [
        (DATA[:31], "few-samples", "31 samples"),
        (np.repeat(DATA[:1], 50, axis=0), "duplicates", "49 of 50"),
        (np.where(np.arange(64)[:, None, None, None] < 3, np.float32(0.5), DATA[:64]), "constant", "3 of 64"),
        (DATA[:64] * 255, "not-normalised", "probably not normalised"),
        (DATA[:64] * 3, "range", "has the range"),
        (DATA[:64] - 2, "range", "has the range"),
        (DATA[:64] * 0.3, "range", "has the range"),
        (DATA[:64].transpose(0, 3, 1, 2), "layout", "another order"),
        (DATA[:64, :4], "layout", "another shape"),
    ],
)
def test_each_mistake_is_reported_by_name_with_its_figure(array: np.ndarray, name: str, figure: str) -> None:
    (finding,) = lint({"image": array}, {"image": DATA})
    assert finding.name == name
    assert figure in finding.sentence
    assert str(finding) == f"{name}: {finding.sentence}"


@pytest.mark.parametrize("statistic", ["mean", "standard deviation"])
def test_samples_of_another_distribution_within_the_same_range_are_reported(statistic: str) -> None:
    steps = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    # Darker images, or flatter ones; two samples keep the whole range.
    other = RNG.permuted(np.repeat(steps, 64, axis=0).reshape(64, -1), axis=1).reshape(64, 8, 8, 1)
    other[2:] = other[2:] ** 2 if statistic == "mean" else (other[2:] - 0.5) * 0.4 + 0.5
    (finding,) = lint({"image": other}, {"image": DATA})
    assert finding.name == "distribution"
    assert f"the {statistic} of a sample of image is distributed otherwise" in finding.sentence


def test_parts_of_one_data_set_are_rarely_reported() -> None:
    for seed in range(200):
        data = np.random.default_rng(seed).gamma(2.0, size=(264, 6)).astype(np.float32)
        assert "distribution" not in [finding.name for finding in lint({"x": data[:200]}, {"x": data[200:]})]


def test_classes_without_a_sample_are_listed() -> None:
    few = LABELS < 7
    (finding,) = lint({"image": DATA[few]}, {"image": DATA}, labels=LABELS[few], known_labels=LABELS)
    assert str(finding) == "labels: 3 classes have no calibration sample: 7, 8, 9"


def test_targets_of_a_regression_are_not_checked_as_classes() -> None:
    targets = LABELS.astype(np.float32)
    assert names(DATA[:64], labels=targets[:1], known_labels=targets) == []


def test_a_sample_of_one_element_is_not_reported_as_constant() -> None:
    x = RNG.random((50, 1), dtype=np.float32)
    assert lint({"x": x}, {"x": x}) == ()


def test_outputs_that_one_int8_scale_cannot_keep_are_found():
    rng = np.random.default_rng(0)
    boxes, scores = 640 * rng.random((32, 4)), 0.02 + 0.05 * rng.random((32, 2))
    outputs = np.concatenate([boxes, scores], axis=1).astype(np.float32)
    (finding,) = lint_outputs({"pred": outputs, "boxes": boxes.astype(np.float32)})
    assert finding.name == "unlike-channels"
    assert "keeps steps of 2.5: the channels 4, 5 are lost" in finding.sentence

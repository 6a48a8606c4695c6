"""Training through the command line: its results, and the data that it accepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _helpers.few_digits import write_few_digits
from _helpers.support import call

from edgekit.core.records import samples

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["keras", "torch"])
def test_linear_finds_w_3_and_b_1(tmp_path: Path, kind: str) -> None:
    answer = call("train", "linear", "--framework", kind, "--root", tmp_path)
    assert answer.code == 0, answer.err
    golden = samples.load(tmp_path / "build/linear" / kind / "source/golden.npz", "golden samples")
    slope, intercept = np.polyfit(golden.inputs["x"][:, 0], golden.outputs["y"][:, 0], 1)
    assert abs(slope - 3) < 0.05
    assert abs(intercept - 1) < 0.05


def test_a_folder_of_idx_files_is_trained_on_and_its_test_part_kept_separate(tmp_path: Path) -> None:
    digits = write_few_digits(tmp_path, 1500, 400)
    options = ("--framework", "torch", "--epochs", "1", "--data", tmp_path, "--root", tmp_path)
    answer = call("train", "simple_cnn", *options)
    assert answer.code == 0, answer.err
    folder = tmp_path / "build/simple_cnn/torch/source"
    record = json.loads((folder / "source.json").read_text())
    assert record["data"]["name"] == tmp_path.name
    assert record["data"]["test"] == 400
    kept = samples.load(folder / "test.npz", "test samples")
    expected = digits.astype(np.float32).transpose(0, 3, 1, 2) / 255
    np.testing.assert_array_equal(kept.inputs["image"], expected)
    assert record["metric_value"] > 0.5


def test_the_hyperparameters_of_the_command_line_are_recorded(tmp_path: Path) -> None:
    options = ("--epochs", "2", "--batch-size", "50", "--learning-rate", "0.01", "--seed", "3")
    call("train", "linear", "--framework", "torch", *options, "--root", tmp_path)
    record = json.loads((tmp_path / "build/linear/torch/source/source.json").read_text())
    expected = {"epochs": 2, "batch_size": 50, "learning_rate": 0.01, "seed": 3}
    assert {key: record["training"][key] for key in expected} == expected
    assert len(record["history"]["loss"]) == 2

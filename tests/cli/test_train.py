"""Options of `edgekit train`, and its messages about invalid data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from _helpers.support import call

from edgekit.core.environment import requirements


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--schedule", "linear"), "unknown schedule 'linear'; known: constant, cosine, step"),
        (("--time-limit", "soon"), "--time-limit: 'soon' is not a duration; write a number and one of ms, s, m, h"),
        (("--time-limit", "0s"), "--time-limit: must be more than 0 s"),
        (("--tensorboard", "linear"), "--tensorboard linear: this is a model; write --tensorboard after the models"),
    ],
)
def test_a_wrong_option_is_exit_2_and_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    answer = call("train", *arguments, "--root", tmp_path)
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_without_the_package_is_exit_3_with_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements.Requirement, "installed", lambda self: self.module != "tensorboard")
    answer = call("train", "linear", "--root", tmp_path, "--tensorboard")
    assert answer.code == 3
    assert "--tensorboard needs tensorboard; install it with: pip install 'edgekit[tensorboard]'" in answer.err
    assert not (tmp_path / "build").exists()


def test_qat_without_its_packages_is_exit_3_with_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements.Requirement, "installed", lambda self: self.module != "executorch")
    answer = call("train", "linear", "--framework", "torch", "--qat", "--root", tmp_path)
    assert answer.code == 3
    assert (
        "quantization-aware training needs executorch; install it with: pip install 'edgekit[executorch]'" in answer.err
    )


@pytest.mark.slow
def test_the_options_reach_the_training_and_its_record(tmp_path: Path) -> None:
    options = ("--schedule", "step", "--early-stopping", "9", "--time-limit", "10m", "--tensorboard", "--epochs", "2")
    answer = call("train", "linear", "--framework", "torch", *options, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    (source,) = answer.data["trained"]
    assert (source["training"]["schedule"], source["training"]["early_stopping"]) == ("step", 9)
    assert source["training"]["seconds"] > 0
    assert source["data"]["validation"] == 200
    assert list((tmp_path / "build/linear/torch/tensorboard").glob("events.out.tfevents.*"))
    assert not (tmp_path / "build/linear/torch/.checkpoint").exists()


def idx(path: Path, sizes: tuple[int, ...], content: bytes) -> None:
    path.write_bytes(bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes) + content)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Return a folder of valid IDX files, which tests may damage."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for part, count in (("train", 500), ("t10k", 50)):
        idx(folder / f"{part}-images-idx3-ubyte", (count, 28, 28), bytes(count * 784))
        idx(folder / f"{part}-labels-idx1-ubyte", (count,), bytes(index % 10 for index in range(count)))
    return folder


def break_it(folder: Path, trouble: str) -> None:
    path = folder / "train-images-idx3-ubyte"
    if trouble == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif trouble == "no idx":
        path.write_bytes(b"PK\x03\x04 a zip file")
    elif trouble == "damaged gzip":
        path.write_bytes(gzip.compress(path.read_bytes())[:-20])
    elif trouble == "a folder":
        path.unlink()
        path.mkdir()
    elif trouble == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("truncated", "train-images-idx3-ubyte: this idx file does not match its header: shape (500, 28, 28)"),
        ("no idx", "train-images-idx3-ubyte: this is not an idx file of unsigned bytes"),
        ("damaged gzip", "train-images-idx3-ubyte: this gzip file is truncated, damaged or larger than 1 GB"),
        ("a folder", "this folder contains neither train-images-idx3-ubyte"),
        ("missing", "this folder contains neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
    ],
)
def test_data_that_cannot_be_read_is_exit_2_and_one_sentence(
    tmp_path: Path, digits: Path, trouble: str, sentence: str
) -> None:
    break_it(digits, trouble)
    answer = call("train", "simple_cnn", "--framework", "torch", "--data", digits, "--root", tmp_path)
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "build/simple_cnn/torch/source").exists()


def test_unknown_data_is_exit_2(tmp_path: Path) -> None:
    answer = call("train", "simple_cnn", "--framework", "torch", "--data", "mnist", "--root", tmp_path, "--json")
    assert answer.code == 2
    assert "unknown data 'mnist'; known: mnist-5k" in answer.err
    assert json.loads(answer.out)["trained"] == []

"""Samples that an import synthesizes from a network: what they are, what is recorded, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _helpers.norm_networks import norm_network

from edgekit.core.errors import InputError
from edgekit.core.events import ignore
from edgekit.core.records import samples
from edgekit.core.records.source import SourceModel, load_source
from edgekit.stages.models.import_job import ImportRequest, import_user_model

WORTH = "what is measured on them says nothing of real inputs"


def imported(folder: Path, model: Any, **options: Any) -> SourceModel:
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "net.onnx")
    (folder / "source").mkdir()
    options = {"calibration": "synthetic", "folder": str(folder / "source"), **options}
    return import_user_model(ImportRequest("net", "onnx", str(folder), str(folder / "net.onnx"), **options), ignore)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an import without a sample."""
    folder = tmp_path_factory.mktemp("imported")
    imported(folder, norm_network())
    return folder / "source"


@pytest.mark.slow
def test_the_statistics_in_the_network_approach_those_of_its_training(synthetic: Path) -> None:
    record = load_source(synthetic).data["synthetic"]
    assert record["norms"] == 2
    assert record["loss"] < 0.05 * record["noise_loss"]
    # What enters the first norm is the input itself, whose training data had the mean 3 and the deviation 2.
    inputs = samples.load(synthetic / "calibration.npz", "samples").inputs["x"]
    assert np.allclose(inputs.mean((0, 2, 3)), 3, atol=0.5)
    assert np.allclose(inputs.std((0, 2, 3)), 2, atol=0.5)


def test_calibration_and_golden_samples_are_synthetic_and_disjoint(synthetic: Path) -> None:
    source = load_source(synthetic)
    assert (source.data["calibration"], source.data["golden"]) == (80, 16)
    assert (source.has_synthetic_calibration, source.has_synthetic_golden, source.has_real_samples) == (
        True,
        True,
        False,
    )
    calibration, golden = (samples.load(synthetic / f"{part}.npz", part) for part in ("calibration", "golden"))
    rows = np.concatenate([calibration.inputs["x"], golden.inputs["x"]])
    assert len(np.unique(rows, axis=0)) == 96
    assert set(golden.outputs) == {"y"}


def test_the_source_says_what_they_are(synthetic: Path) -> None:
    (note,) = load_source(synthetic).notes
    assert note.startswith("calibration and golden samples are synthetic, made from the statistics of 2 batch norms")
    assert note.endswith(WORTH)


@pytest.mark.slow
def test_a_second_import_gives_the_same_bytes(synthetic: Path, tmp_path: Path) -> None:
    imported(tmp_path, norm_network())
    for file in ("calibration.npz", "golden.npz", "source.json"):
        assert (tmp_path / "source" / file).read_bytes() == (synthetic / file).read_bytes()


@pytest.mark.slow
def test_real_samples_stay_the_golden_ones(tmp_path: Path) -> None:
    real = np.random.default_rng(0).normal(3, 2, (8, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "real.npz", x=real)
    source = imported(tmp_path, norm_network(), sample=str(tmp_path / "real.npz"))
    assert (source.has_synthetic_calibration, source.has_synthetic_golden, source.has_real_samples) == (
        True,
        False,
        True,
    )
    assert (source.data["calibration"], source.data["golden"]) == (80, 8)
    assert source.notes[0].startswith("calibration samples are synthetic")


def test_a_symbolic_size_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the dimension side of x has no size; set it") as caught:
        imported(tmp_path, norm_network(side="side"))
    assert caught.value.parameters == ("dims", "sample")


@pytest.mark.slow
def test_a_size_of_the_users_is_taken(tmp_path: Path) -> None:
    imported(tmp_path, norm_network(side="side"), sizes={"side": 4})
    assert samples.load(tmp_path / "source" / "golden.npz", "samples").inputs["x"].shape == (16, 3, 4, 4)


@pytest.mark.slow
def test_a_large_input_gets_fewer_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.stages.models.synthetic_samples._LARGE", 3 * 6 * 6 - 1)
    source = imported(tmp_path, norm_network())
    assert (source.data["calibration"], source.data["golden"], source.data["synthetic"]["steps"]) == (32, 8, 40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norms": False}, "the network has no batch norm that keeps the statistics of its training"),
        ({"dtype": onnx.TensorProto.INT32}, "the input x, which is int32 and not floating-point"),
        ({"scale": 1e38}, "the statistics in the network are not finite"),
    ],
)  # fmt: skip
def test_a_network_that_gives_no_samples_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"samples cannot be synthesized.*{message}.*; pass real inputs") as caught:
        imported(tmp_path, norm_network(**changes))
    assert caught.value.parameters == ("sample", "calibration")

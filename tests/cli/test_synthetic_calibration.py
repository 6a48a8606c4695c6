"""`--calibration synthetic`: an export without data, and the words that stand beside its figures."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from _helpers.norm_networks import norm_network
from _helpers.support import Answer, call

import edgekit
from edgekit.core.records.artifact import load_artifact

WORTH = "what is measured on them says nothing of real inputs"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A project with an int8 and a float export without data, and what the command answered."""
    root = tmp_path_factory.mktemp("project")
    onnx.save(norm_network(), root / "net.onnx")
    targets = ("--target", "onnx:int8", "--target", "onnx:float32")
    return root, call("export", root / "net.onnx", "--calibration", "synthetic", *targets, "--sbom", "--root", root)


@pytest.mark.slow
def test_an_export_needs_no_data(exported: tuple[Path, Answer]) -> None:
    root, answer = exported
    assert answer.code == 0
    assert "calibration and golden samples are synthetic, made from the statistics of 2 batch norms" in answer.err
    manifests = [load_artifact(root / "build/net/onnx" / slug).manifest for slug in ("onnx-int8", "onnx-float32")]
    assert [manifest.synthetic for manifest in manifests] == ["calibrated and compared", "compared"]
    assert manifests[0].calibration is not None
    assert (manifests[0].calibration["samples"], manifests[0].calibration["synthetic"]) == (80, True)
    assert all(any(WORTH in note for note in manifest.notes) for manifest in manifests)
    sbom = json.loads((root / "build/net/onnx/onnx-int8/sbom.cdx.json").read_text())
    data = [component for component in sbom["components"] if component["type"] == "data"]
    assert len(data) == 2
    assert all({"name": "edgekit:synthetic", "value": "True"} in component["properties"] for component in data)


def test_validations_and_reports_say_so(exported: tuple[Path, Answer]) -> None:
    root, _ = exported
    validated = call("validate", "net", "--root", root)
    assert validated.code == 0
    assert validated.err.count(f"compared on synthetic samples: {WORTH}") == 2
    sentences = (
        f"calibrated and compared on synthetic samples ({WORTH}): net/onnx onnx:int8",
        f"compared on synthetic samples ({WORTH}): net/onnx onnx:float32",
    )
    for name in ("console", "markdown", "html"):
        answer = call("report", "net", "--format", name, "--root", root)
        assert answer.code == 0
        text = answer.out.replace("\\", "")
        assert all(sentence in text for sentence in sentences), name


def test_a_search_says_so_too(exported: tuple[Path, Answer]) -> None:
    root, _ = exported
    answer = call("tune", "net", "--target", "onnx", "--root", root)
    assert answer.code == 0
    assert f"on 16 golden samples that are synthetic ({WORTH})" in answer.out


@pytest.mark.slow
def test_a_file_of_that_name_is_named_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(norm_network(norms=False), "net.onnx")
    with Path("synthetic").open("wb") as file:
        np.save(file, np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32))
    assert call("export", "net.onnx", "--calibration", "./synthetic", "--target", "onnx:int8").code == 0
    (artifact,) = edgekit.export("net.onnx", calibration=Path("synthetic"), target="onnx:int8")
    assert artifact.manifest.synthetic == ""
    assert artifact.manifest.calibration is not None
    assert artifact.manifest.calibration["samples"] == 40


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"norms": False}, "the network has no batch norm that keeps the statistics of its training"),
        ({"dtype": onnx.TensorProto.INT32}, "the input x, which is int32 and not floating-point"),
    ],
)
def test_a_network_that_gives_no_samples_is_bad_input(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    onnx.save(norm_network(**changes), tmp_path / "net.onnx")
    target = ("--target", "onnx:int8")
    answer = call("export", tmp_path / "net.onnx", "--calibration", "synthetic", *target, "--root", tmp_path)
    assert answer.code == 2
    assert answer.err.startswith("Error: samples cannot be synthesized")
    assert reason in answer.err
    assert answer.err.endswith("pass real inputs (see --sample, --calibration)\n")
    assert not list(tmp_path.glob("build/net/*/source"))


def test_a_reference_model_has_data(tmp_path: Path) -> None:
    answer = call("export", "linear", "--calibration", "synthetic", "--target", "onnx:int8", "--root", tmp_path)
    assert answer.code == 2
    assert "describe one model of your own" in answer.err


@pytest.mark.slow
def test_a_pipeline_takes_the_word(tmp_path: Path) -> None:
    onnx.save(norm_network(), tmp_path / "net.onnx")
    (tmp_path / "edgekit.toml").write_text(
        textwrap.dedent("""
            variants = ["onnx:int8"]

            [[models]]
            path = "net.onnx"
            calibration = "synthetic"
        """)
    )
    assert call("run", "--root", tmp_path).code == 0
    assert load_artifact(tmp_path / "build/net/onnx/onnx-int8").manifest.synthetic == "calibrated and compared"
    # The word is no file that a change is looked for in.
    again = call("run", "--root", tmp_path)
    assert again.code == 0
    assert "done" not in again.err

"""`edgekit diff` on correct artifacts, on broken ones and across formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from _helpers.planted_faults import FLOAT, QUANTIZED, nearest, planted
from _helpers.support import call


@pytest.mark.parametrize(
    "variant", ["keras/tflite-float32", "keras/onnx-float32", "torch/tflite-float32", "torch/torchscript-float32"]
)
def test_a_correct_artifact_has_no_divergence(project: Path, variant):
    answer = call("diff", project / "build/simple_cnn" / variant, "--root", project, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["first"] is None
    assert len(answer.data["tensors"]) >= 4
    assert all(item["sqnr_db"] is None or item["sqnr_db"] > 90 for item in answer.data["tensors"])


def test_tensors_of_quantized_torchscript_are_compared(project: Path):
    answer = call("diff", project / "build/simple_cnn/torch/torchscript-int8", "--root", project, "--json")
    assert answer.code == 0, answer.err
    sqnr_db = {tensor["reference"]: tensor["sqnr_db"] for tensor in answer.data["tensors"]}
    assert {"relu", "head.linear"} <= set(sqnr_db)
    assert 15 < sqnr_db["relu"] < 60
    assert "quantize_per_tensor" in answer.data["only_actual"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["keras", "torch"])
@pytest.mark.parametrize("fault", [*FLOAT, *QUANTIZED])
def test_an_injected_fault_is_located(project: Path, tmp_path: Path, kind, fault):
    folder = project / "build/simple_cnn" / kind
    plants, whole = (FLOAT, folder / "onnx-float32") if fault in FLOAT else (QUANTIZED, folder / "onnx-int8")
    # A quantized model is compared with its intact copy: against the source, its quantization noise would come first.
    reference = folder / "source" if fault in FLOAT else whole
    for _, tensors, broken in planted(whole / "model.onnx", {fault: plants[fault]}, tmp_path):
        answer = call("diff", reference, broken, "--root", project, "--json")
        assert answer.code == 0, answer.err
        first = next(item for item in answer.data["tensors"] if item["reference"] == answer.data["first"])
        assert first["actual"] in nearest(broken, tensors, {item["actual"] for item in answer.data["tensors"]})
        shown = call("diff", reference, broken, "--root", project).out
        assert shown.splitlines()[-1] == f"first divergence: {first['reference']}"


def test_a_replaced_file_is_read_again(project: Path, tmp_path: Path):
    folder = project / "build/simple_cnn/torch"
    model = onnx.load(folder / "onnx-float32/model.onnx")
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    assert call("diff", folder / "source", path, "--root", project, "--json").data["first"] is None
    next(iter(planted(path, {"weight": FLOAT["weight"]}, tmp_path)))
    (tmp_path / "weight.onnx").replace(path)
    assert call("diff", folder / "source", path, "--root", project, "--json").data["first"] is not None


@pytest.fixture
def copied_project(project: Path, tmp_path: Path) -> Path:
    """Return a project with a copy of one model's folder, which tests may change."""
    names = ("source", "onnx-float32", "onnx-int8")
    for name in names:
        shutil.copytree(project / "build/linear/keras" / name, tmp_path / "own/build/linear/keras" / name)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("reference", "called"), [([], "source"), (["source"], "source"), (["onnx-float32"], "onnx:float32")]
)
def test_the_result_for_an_artifact_is_stored_and_reported(copied_project: Path, reference, called):
    folder = copied_project / "build/linear/keras"
    kept = folder / "onnx-int8/layers.json"
    kept.unlink(missing_ok=True)
    operands = [*(folder / name for name in reference), folder / "onnx-int8"]
    answer = call("diff", *operands, "--root", copied_project, "--json")
    assert (answer.code, answer.data["kept"]) == (0, str(kept)), answer.err
    data = json.loads(kept.read_text())
    assert (data["reference"], data["tensors"]) == (called, answer.data["tensors"])
    assert call("verify", "--root", copied_project).code == 0
    assert (
        f"| linear/keras | onnx:int8 | {called} |"
        in call("report", "--format", "markdown", "--root", copied_project).out
    )


def test_a_result_for_another_file_is_not_reported(copied_project: Path):
    folder = copied_project / "build/linear/keras"
    assert call("diff", folder / "onnx-float32", folder / "onnx-int8", "--root", copied_project).code == 0
    shown = call("report", "--format", "json", "--root", copied_project).data["artifacts"]
    assert [item["layers"] is None for item in shown] == [True, False]
    data = json.loads((folder / "onnx-float32/manifest.json").read_text())
    files = [{**data["files"][0], "sha256": "0" * 64}]
    (folder / "onnx-float32/manifest.json").write_text(json.dumps({**data, "sha256": "0" * 64, "files": files}))
    shown = call("report", "--format", "json", "--root", copied_project).data["artifacts"]
    assert [item["layers"] for item in shown] == [None, None]
    assert (
        "layers.json: it is about another reference; run: edgekit diff" in call("verify", "--root", copied_project).out
    )


def test_a_result_for_other_samples_or_models_is_not_stored(copied_project: Path, tmp_path: Path):
    folder = copied_project / "build/linear/keras"
    (folder / "onnx-int8/layers.json").unlink(missing_ok=True)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((3, 1), np.float32))
    samples = ("--samples", tmp_path / "x.npz")
    elsewhere = shutil.copytree(folder / "onnx-int8", tmp_path / "elsewhere")
    for operands in (
        (folder / "source", folder / "onnx-int8", *samples),
        (folder / "onnx-int8", folder / "onnx-float32"),  # the quantized one is no reference
        (folder / "source", elsewhere),
    ):
        answer = call("diff", *operands, "--root", copied_project, "--json")
        assert (answer.code, answer.data["kept"]) == (0, None), answer.err
    assert not list(tmp_path.rglob("layers.json"))


def test_samples_may_be_a_file(project: Path, tmp_path: Path):
    images = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    artifact = project / "build/simple_cnn/torch/onnx-float32"
    answer = call("diff", artifact, "--samples", tmp_path / "images.npz", "--root", project, "--json")
    assert answer.code == 0, answer.err


@pytest.mark.exhaustive
def test_layers_are_ranked_by_the_gain_of_keeping_them_in_float(project: Path):
    artifact = project / "build/simple_cnn/keras/onnx-int8"
    answer = call("diff", artifact, "--sensitivity", "--root", project, "--json")
    assert answer.code == 0, answer.err
    gains = [item["gain_db"] for item in answer.data["sensitivities"]]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0
    assert any("dense" in name for item in answer.data["sensitivities"] for name in item["unit"]["names"])
    assert "layers kept in float" in call("diff", artifact, "--sensitivity", "--root", project).out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("torch/executorch-float32",), "ExecuTorch does not expose intermediate tensors"),
        (("torch/lite-interpreter-float32",), "does not expose intermediate tensors"),
        (
            ("torch/onnx-float32/model.onnx", "torch/onnx-float32", "torch/onnx-float32"),
            "expected one artifact or two models",
        ),
        (("torch/missing",), "missing"),
        (("torch/source",), "not an artifact"),
        (("torch/torchscript-int8", "--sensitivity"), "keeps single layers in float at no precision"),
    ],
)
def test_a_model_that_cannot_be_compared_is_one_sentence(project: Path, arguments, sentence):
    words = [text if text.startswith("--") else project / "build/simple_cnn" / text for text in arguments]
    answer = call("diff", *words, "--root", project)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err

"""Model cards."""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.support import call

from edgekit.core.records.source import SourceModel
from edgekit.core.values.specs import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", ("batch", 1), "float32"),), (TensorSpec("y", ("batch", 1), "float32"),))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Return a project with the files of a PyTorch training of linear."""
    source = SourceModel(
        name="linear",
        kind="torch",
        file="weights.pt",
        sha256="a" * 64,
        signature=SIGNATURE,
        task="regression",
        metric="mae",
        metric_value=0.0812,
        parameters=2,
        data={"name": "line", "sha256": "b" * 64, "train": 2000, "test": 1000},
        training={"epochs": 30, "epochs_done": 12, "stopped": "time limit", "seconds": 125.0, "seed": 7},
        history={"loss": [1.0]},
        versions={"torch": "2.13"},
    )
    folder = tmp_path / "build/linear/torch/source"
    folder.mkdir(parents=True)
    source.save(folder)
    return tmp_path


def test_a_card_has_the_settings_of_model_toml_and_the_results(trained: Path) -> None:
    answer = call("models", "card", "linear", "--root", trained)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == "# linear"
    for line in (
        "| task | regression, evaluated by mae |",
        "| input range | -1 to 1 |",
        "| data licence | made by the model's own data.py |",
        f"| data sha256 | {'b' * 64} (line) |",
        "| learning rate | 0.02, cosine to 0.0005 |",
        "|  | torch |",
        "| result | mae 0.0812 on 1000 unseen samples |",
        "| parameters | 2 |",
        "| multiply-accumulates | unknown until exported |",
        "| epochs | 12 of 30, stopped by time limit |",
        "| training time | 2 m 5 s |",
        "| seed | 7 |",
        "| versions | torch 2.13 |",
        "keras: not trained yet; run: edgekit train linear --framework keras",
        "| tflite:\\* | size_bytes &lt;= 4 KB |",
        "- Inputs outside -1..1 were never seen; in integer formats they saturate.",
    ):
        assert line in lines
    for part in ("Intended use", "Limitations", "Model and data", "Results", "Tolerances", "Budgets"):
        assert f"## {part}" in lines


def test_show_and_card_agree_as_text_and_as_json(trained: Path) -> None:
    shown = call("models", "show", "linear", "--root", trained)
    assert shown.code == 0
    assert "result                mae 0.0812 on 1000 unseen samples" in shown.out
    assert "not trained yet; run: edgekit train linear --framework keras" in shown.out
    data = call("models", "show", "linear", "--root", trained, "--json").data
    assert data == call("models", "card", "linear", "--root", trained, "--json").data
    assert data["trained"]["torch"]["value"] == 0.0812
    assert data["trained"]["torch"]["macs"] is None
    assert data["spec"]["tolerances"]["int8"]["min_sqnr_db"] == 30.0
    assert data["spec"]["card"]["intended_use"]


def test_a_card_is_written_to_a_file(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "CARD.md"
    answer = call("models", "card", "linear", "--output", path, "--root", trained)
    assert (answer.code, answer.out) == (0, f"{path}\n")
    assert path.read_text() == call("models", "card", "linear", "--root", trained).out


def test_a_model_that_is_not_trained_has_a_card_that_says_so(tmp_path: Path) -> None:
    answer = call("models", "card", "simple_cnn", "--root", tmp_path)
    assert answer.code == 0
    assert "keras: not trained yet; run: edgekit train simple_cnn --framework keras" in answer.out
    assert "torch: not trained yet" in answer.out
    assert "grey values 0..255 divided by 255" in answer.out


def test_an_unknown_model_and_a_damaged_source_are_one_sentence(trained: Path) -> None:
    assert call("models", "card", "nope", "--root", trained).code == 2
    (trained / "build/linear/torch/source/source.json").write_text("{")
    answer = call("models", "card", "linear", "--root", trained)
    assert answer.code == 2
    assert "source.json: this source model description is not valid JSON" in answer.err


@pytest.mark.slow
def test_multiply_accumulates_come_from_an_artifact(project: Path) -> None:
    data = call("models", "card", "simple_cnn", "--root", project, "--json").data
    assert {kind: result["macs"] for kind, result in data["trained"].items()} == {"keras": 541440, "torch": 541440}
    assert all(result["training"]["seconds"] > 0 for result in data["trained"].values())

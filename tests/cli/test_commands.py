"""The commands of the README, on the shared project."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from _helpers.support import REPOSITORY, call, spawn

from edgekit.core.environment.atomic_files import sha256_file

pytestmark = pytest.mark.slow


def test_train_writes_metric_history_and_hashes_beside_the_weights(project: Path) -> None:
    for kind, file in (("keras", "model.keras"), ("torch", "weights.pt")):
        folder = project / "build/simple_cnn" / kind / "source"
        record = json.loads((folder / "source.json").read_text())
        assert record["sha256"] == sha256_file(folder / file)
        assert record["metric"] == "accuracy"
        assert record["metric_value"] > 0.85
        assert len(record["history"]["loss"]) == len(record["history"]["accuracy"]) == 1
        assert len(record["data"]["sha256"]) == 64
        assert record["data"]["test"] == 1000
        assert record["parameters"] == 347146


def test_export_of_one_variant_prints_its_folder(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "build/linear/torch/source", tmp_path / "build/linear/torch/source")
    answer = call(
        "export", "linear", "--framework", "torch", "--target", "onnx", "--precision", "int8", "--root", tmp_path
    )
    assert answer.code == 0
    folder = tmp_path / "build/linear/torch/onnx-int8"
    assert answer.out == f"{folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["golden.npz", "manifest.json", "model.onnx"]
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_export_trains_missing_sources_and_converts_only_the_selected_variants(tmp_path: Path) -> None:
    chosen = ("--framework", "torch", "--target", "torchscript:int8", "--target", "lite-interpreter")
    answer = call("export", "linear", *chosen, "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert "train linear/torch: mae" in answer.err
    made = [item["manifest"] for item in answer.data["artifacts"]]
    assert {(item["target"], item["precision"]) for item in made} == {
        ("torchscript", "int8"),
        ("lite-interpreter", "float32"),
        ("lite-interpreter", "int8"),
    }
    assert not (tmp_path / "build/linear/keras").exists()


def test_validate_prints_each_figure_beside_its_tolerance(project: Path) -> None:
    answer = call("validate", "simple_cnn", "--target", "tflite:float32", "--root", project)
    assert answer.code == 0
    line = next(line for line in answer.out.splitlines() if "max_abs_error" in line)
    assert re.search(r"  <= \d", line)
    assert line.endswith("passed")


def test_validate_explains_each_tolerance(project: Path) -> None:
    chosen = ("--target", "tflite:float32", "--target", "onnx:int8", "--framework", "keras")
    answer = call("validate", "simple_cnn", *chosen, "--explain", "--root", project)
    assert answer.code == 0
    assert "differs by up to" in next(
        line for line in answer.out.splitlines() if "max_abs_error" in line and "float64" in line
    )
    assert "set by the model's model.toml" in answer.out  # the agreement of int8
    data = call("validate", "simple_cnn", *chosen, "--explain", "--root", project, "--json").data
    reasons = data["reasons"]["simple_cnn/keras tflite:float32"]["probabilities"]
    assert set(reasons) == set(data["tolerances"]["simple_cnn/keras tflite:float32"]["probabilities"])


def test_validate_supports_stress_inputs(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "build/simple_cnn/torch", tmp_path / "build/simple_cnn/torch")
    chosen = ("--target", "tflite:float32", "--target", "onnx:int8")
    answer = call("validate", "simple_cnn", *chosen, "--stress", "--root", tmp_path, "--json")
    validations = {validation["target"]: validation for validation in answer.data["validations"]}
    tflite, onnx = validations["tflite"], validations["onnx"]
    assert tflite["passed"]
    assert "denormals" in tflite["stress_cases"]
    assert tflite["stress"][0]["figures"][0]["limit"] is not None
    assert "denormals" not in onnx["stress_cases"]
    assert onnx["stress"][0]["figures"][0]["limit"] is None  # it was calibrated on other inputs
    # The .tflite file has a fixed batch of 1; the ONNX file takes any batch, with the same tolerances.
    assert tflite["batches"] == []
    assert [validation["output"] for validation in onnx["batches"]] == [
        f"probabilities in batches of {size}" for size in (2, 7)
    ]
    assert all(figure["limit"] is not None for validation in onnx["batches"] for figure in validation["figures"][-1:])
    shutil.rmtree(tmp_path / "build/simple_cnn/torch/source")
    answer = call("validate", "simple_cnn", *chosen, "--stress", "--root", tmp_path)
    assert answer.code == 2
    assert "its source is not in" in answer.err


def test_validate_takes_the_folder_of_an_artifact_that_was_moved(project: Path, tmp_path: Path) -> None:
    """Golden samples and the runtime suffice; neither the source nor its framework is needed."""
    folder = shutil.copytree(project / "build/simple_cnn/keras/tflite-float32", tmp_path / "elsewhere")
    answer = call("validate", folder, "--root", tmp_path, "--json")
    assert answer.code == 0
    assert answer.data["validations"][0]["passed"] is True
    assert answer.data["validations"][0]["drift"] is None


def test_an_artifact_that_computes_something_else_is_exit_1_with_the_figures(project: Path, tmp_path: Path) -> None:
    """Use the weights of another training with the golden samples of this artifact."""
    folder = Path(shutil.copytree(project / "build/simple_cnn/torch/onnx-float32", tmp_path / "impostor"))
    shutil.copy(project / "build/simple_cnn/keras/onnx-float32/golden.npz", folder / "golden.npz")
    from edgekit.core.records import samples

    golden = samples.load(folder / "golden.npz", "golden samples")
    inputs = {"image": golden.inputs["image"].transpose(0, 3, 1, 2).copy()}
    samples.Samples(inputs, golden.outputs, golden.labels).save(folder / "golden.npz")
    answer = call("validate", folder, "--root", tmp_path)
    assert answer.code == 1
    assert "NOT EQUIVALENT" in answer.err
    assert re.search(r"max_abs_error [\d.]+, tolerance <= \d", answer.err)
    assert "FAILED" in answer.out


@pytest.fixture
def small(project: Path, tmp_path: Path) -> Path:
    """Return a project with one validated artifact."""
    for name in ("source", "tflite-int8"):
        shutil.copytree(project / "build/linear/keras" / name, tmp_path / "build/linear/keras" / name)
    return tmp_path


BENCH = ("bench", "linear", "--min-duration", "0", "--min-runs", "20")


def test_bench_labels_every_figure_with_its_tier(small: Path) -> None:
    answer = call(*BENCH, "--device", "raspberry-pi-4b", "--root", small, "--json")
    assert answer.code == 0
    (measured,) = answer.data["measurements"]
    assert set(measured["latency_ms"]) == {"host", "analytic"}
    assert measured["latency_ms"]["host"] == measured["wall"]["p50_ms"]
    assert measured["wall"]["p50_ms"] <= measured["wall"]["p90_ms"] <= measured["wall"]["p99_ms"]
    assert measured["wall"]["count"] >= 20
    assert measured["peak_memory_run_bytes"] > 0
    assert measured["size_bytes"] == (small / "build/linear/keras/tflite-int8/model.tflite").stat().st_size
    assert 0 < measured["compressed_bytes"] < measured["size_bytes"]
    text = call("report", "--root", small).out
    assert "host p50" in text
    assert "not a prediction" in text


def test_artifacts_that_a_device_cannot_run_are_skipped(small: Path, project: Path) -> None:
    shutil.copytree(project / "build/linear/torch/onnx-int8", small / "build/linear/torch/onnx-int8")
    answer = call(*BENCH, "--device", "stm32l4r5-nucleo", "--root", small, "--json")
    assert answer.code == 0
    assert [item["target"] for item in answer.data["measurements"]] == ["tflite"]
    assert "bench linear/torch onnx:int8 on stm32l4r5-nucleo: skipped: stm32l4r5-nucleo runs tflite only" in answer.err
    only = call(*BENCH, "--target", "onnx", "--device", "stm32l4r5-nucleo", "--root", small)
    assert only.code == 2
    assert "none of these artifacts runs on stm32l4r5-nucleo" in only.err


def test_check_passes_and_fails_with_rule_figure_limit_and_origin(small: Path) -> None:
    assert call("validate", "--root", small).code == 0
    assert call("check", "--root", small).code == 0
    strict = call("check", "--max-size", "1 KB", "--root", small)
    assert strict.code == 1
    assert "linear/keras tflite:int8: size_bytes" in strict.out
    assert "exceeds the limit 1 KB, set on the command line" in strict.out
    loose = call("check", "--max-size", "1 GB", "-v", "--root", small)
    assert loose.code == 0
    assert "is within the limit 4 KB, set in edgekit's models/linear/model.toml" in loose.out


def test_a_budget_without_a_measurement_fails(small: Path) -> None:
    (small / "build/linear/keras/tflite-int8/validation.json").unlink(missing_ok=True)
    answer = call("check", "--max-latency", "host=1000", "--root", small)
    assert answer.code == 1
    assert "equivalence: not validated; run: edgekit validate" in answer.out
    assert "latency_ms.host: not measured; run: edgekit bench" in answer.out


def test_a_latency_budget_is_checked_per_tier(small: Path) -> None:
    assert call("validate", "--root", small).code == 0
    assert call(*BENCH, "--root", small).code == 0
    assert call("check", "--max-latency", "host=1000", "--root", small).code == 0
    assert call("check", "--max-latency", "host=0.000001", "--root", small).code == 1
    missing = call("check", "--max-latency", "emulated=1000", "--root", small)
    assert missing.code == 1
    assert "latency_ms.emulated: tier emulated was not measured" in missing.out


def test_a_second_export_discards_the_results_of_the_first(small: Path) -> None:
    assert call("validate", "--root", small).code == 0
    folder = small / "build/linear/keras/tflite-int8"
    assert (folder / "validation.json").exists()
    assert call("export", "linear", "--target", "tflite:int8", "--root", small).code == 0
    assert not (folder / "validation.json").exists()


def test_report_formats_and_output_file(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    answer = call("report", "--format", "json", "--output", path, "--root", project)
    assert (answer.code, answer.out) == (0, f"{path}\n")
    report = json.loads(path.read_text())
    assert report["schema_version"] == 1
    assert len(report["artifacts"]) == len(list(project.glob("build/*/*/*/manifest.json")))
    text = call("report", "--root", project).out
    assert max(map(len, text.splitlines())) <= 100
    assert call("report", "--format", "markdown", "--root", project).out.startswith("# edgekit report\n")
    full = call("report", "--output", tmp_path / "no" / "x.md" / ".." / ".." / "report.json" / "x", "--root", project)
    assert full.code == 2
    assert "cannot write" in full.err


def test_inspect_of_a_folder_and_of_each_bare_file(project: Path) -> None:
    folder = call("inspect", project / "build/simple_cnn/keras/tflite-int8")
    assert folder.code == 0
    for part in ("CONV_2D", "194,688", "541,440", "347,146", "scale 0.0039", "zero point -128", "keras -> tflite"):
        assert part in folder.out
    for name in (
        "keras/onnx-int8/model.onnx",
        "torch/torchscript-int8/model.pt",
        "torch/lite-interpreter-int8/model.ptl",
    ):
        described = call("inspect", project / "build/simple_cnn" / name, "--json").data["description"]
        assert described["macs"] == 541440
        assert described["quantized_tensors"] > 0
        assert [spec["name"] for spec in described["signature"]["inputs"]] == ["image"]


def test_lists_of_models_targets_devices_and_packages(project: Path) -> None:
    models = {item["name"]: item for item in call("models", "--json", "--root", project).data["models"]}
    assert set(models) == {path.parent.name for path in REPOSITORY.glob("models/*/model.toml")}
    assert set(models["linear"]["trained"]) == {"keras", "torch"}
    targets = call("targets", "--json").data["targets"]
    routes = {(item["target"], item["source"]): item["routes"] for item in targets}
    requested = {(item["target"], item["source"]): item["on_request"] for item in targets}
    assert (requested["onnx", "torch"], requested["tflite", "keras"]) == (["int16x8", "int4"], [])
    assert requested["executorch", "onnx"] == ["dynamic"]
    assert list(routes["tflite", "keras"]) == ["float32", "float16", "dynamic", "int8", "int16x8", "int4"]
    assert list(routes["onnx", "torch"])[-2:] == ["int16x8", "int4"]
    assert routes["onnx", "torch"]["int8"] == ["torch", "onnx"]
    assert routes["executorch", "keras"]["int8"] == ["keras", "torch", "executorch"]
    assert routes["onnx", "onnx"]["int8"] == ["onnx", "onnx"]
    assert routes["executorch", "saved-model"]["float32"] == ["saved-model", "onnx", "torch", "executorch"]
    assert ("executorch", "executorch") not in routes
    assert len(call("devices", "--json").data["devices"]) >= 7
    assert "Cortex-A72" in call("devices", "show", "raspberry-pi-4b").out
    assert call("doctor").out.rstrip().endswith("nothing is missing")


def test_the_shipped_folders_are_found_from_anywhere(tmp_path: Path) -> None:
    child = spawn("models", "--json", cwd=tmp_path)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    folders = [model["folder"] for model in json.loads(out)["models"]]
    assert str(REPOSITORY / "models/linear") in folders


@pytest.mark.exhaustive
def test_training_and_exporting_again_gives_the_same_weights_and_bytes(project: Path, tmp_path: Path) -> None:
    for kind, variant in (("keras", "tflite"), ("torch", "torchscript")):
        call("train", "linear", "--framework", kind, "--epochs", "1", "--root", tmp_path)
        call("export", "linear", "--framework", kind, "--target", variant, "--root", tmp_path)
    compared = 0
    for path in sorted(tmp_path.glob("build/linear/*/*/manifest.json")):
        again, before = (json.loads(item.read_text()) for item in (path, project / path.relative_to(tmp_path)))
        assert again["source"]["weights_sha256"] == before["source"]["weights_sha256"]
        assert again["sha256"] == before["sha256"], again["target"]
        assert again["reproducible"] is True
        compared += 1
    assert compared == 8


def test_explain_prints_every_route_and_converts_nothing(tmp_path: Path) -> None:
    chosen = ("--framework", "keras", "--target", "tflite:int8", "--root", tmp_path)
    answer = call("export", "linear", *chosen, "--explain", "--json")
    assert answer.code == 0
    routes = [["keras", "tflite"], ["keras", "torch", "tflite"], ["keras", "onnx", "torch", "tflite"]]
    assert answer.data["plans"][0]["routes"] == routes
    assert not (tmp_path / "build").exists()


def test_a_pinned_route_is_used_and_recorded(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "build/linear/keras/source", tmp_path / "build/linear/keras/source")
    chosen = ("--framework", "keras", "--target", "tflite:int4", "--route", "keras,torch,tflite", "--root", tmp_path)
    answer = call("export", "linear", *chosen, "--json")
    assert answer.code == 0, answer.err
    (made,) = answer.data["artifacts"]
    assert made["manifest"]["route"] == ["keras", "torch", "tflite"]
    assert made["manifest"]["options"]["converter"] == "litert-torch"


@pytest.mark.exhaustive
def test_the_matrix_has_a_cell_for_every_source_and_variant(project: Path, tmp_path: Path) -> None:
    for kind in ("keras", "torch"):
        shutil.copytree(project / f"build/linear/{kind}/source", tmp_path / f"build/linear/{kind}/source")
    answer = call("matrix", "linear", "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    cells = {(cell["kind"], cell["variant"]): cell for cell in answer.data["cells"]}
    assert len(cells) == len(answer.data["cells"]) == 32
    assert {cell["state"] for cell in cells.values()} == {"equal"}
    assert cells["keras", "executorch:int8"]["route"] == ["keras", "torch", "executorch"]
    assert all(cell["size_bytes"] > 0 and cell["max_abs_error"] is not None for cell in cells.values())


def test_calibration_samples_that_are_too_few_or_miss_classes_are_warned_about(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "build/simple_cnn/torch/source", tmp_path / "build/simple_cnn/torch/source")
    chosen = ("--framework", "torch", "--target", "onnx:int8", "--calibration-samples", "8", "--root", tmp_path)
    answer = call("export", "simple_cnn", *chosen)
    assert answer.code == 0
    assert "calibration samples: few-samples: image has 8 samples" in answer.err
    assert "calibration samples: labels: " in answer.err


def test_code_that_changed_since_the_training_is_not_run(project: Path, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "models/linear", tmp_path / "models/linear")
    shutil.copytree(project / "build/linear/torch/source", tmp_path / "build/linear/torch/source")
    with (tmp_path / "models/linear/torch_model.py").open("a") as code:
        code.write("from pathlib import Path\nPath(__file__).with_name('canary').touch()\n")
    answer = call("export", "linear", "--framework", "torch", "--target", "torchscript", "--root", tmp_path)
    assert answer.code == 2
    assert (
        "linear: torch_model.py has changed since these weights were trained; run: edgekit train linear" in answer.err
    )
    assert not (tmp_path / "models/linear/canary").exists()

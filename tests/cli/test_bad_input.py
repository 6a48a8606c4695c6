"""Invalid input: one message on stderr, the right exit code, no traceback (`call` checks for one)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from _helpers.support import call

TFLITE = "build/simple_cnn/keras/tflite-int8/model.tflite"
ONNX = "build/simple_cnn/torch/onnx-float32/model.onnx"
TORCHSCRIPT = "build/simple_cnn/torch/torchscript-float32/model.pt"
PTL = "build/simple_cnn/torch/lite-interpreter-float32/model.ptl"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "nope"), "Error: unknown model 'nope'; known: autoencoder, ds_cnn, gru"),
        (("train", "linear", "--all"), "Error: --all and linear contradict each other"),
        (("train", "linear", "--framework", "jax"), "Error: unknown framework 'jax'; known: both, keras, torch"),
        (("export", "nope"), "Error: unknown model 'nope'; known: autoencoder, ds_cnn, gru"),
        (
            ("export", "--target", "tflit"),
            "unknown target 'tflit'; known: executorch, lite-interpreter, onnx, saved-model, tflite",
        ),
        (("export", "--target", "tflite:int9"), "unknown precision 'int9'; known: dynamic, float16, float32"),
        (("export", "--precision", "int9"), "unknown precision 'int9'"),
        (
            ("export", "--target", "torchscript:float16"),
            "Error: target torchscript has no precision float16; it has: float32, int8",
        ),
        (("export", "--target", "tflite:int8", "--precision", "float32"), "contradict each other"),
        (
            ("export", "linear", "--target", "tflite:int8", "--route", "keras,onnx,tflite"),
            "no export has the route keras -> onnx -> tflite; available: keras -> tflite; keras -> torch -> tflite",
        ),
        (("bench", "--device", "pi"), "unknown device 'pi'; known: all, chromium, chromium-webgpu, ek-ra6m4"),
        (("devices", "show", "pi"), "unknown device 'pi'; known: ek-ra6m4"),
        (("models", "show", "nope"), "unknown model 'nope'"),
        (("validate",), "no artifact in"),
        (("validate", "nope"), "unknown model or artifact folder 'nope'"),
        (("check",), "run: edgekit export"),
        (("check", "--max-size", "3 bananas"), "'3 bananas' is not a size; write a number and one of B, KB"),
        (("check", "--max-latency", "host"), "--max-latency host: write it TIER=MS"),
        (("check", "--max-latency", "host=-1"), "the limit must be more than 0 ms"),
        (("check", "--max-latency", "guess=1"), "unknown tier 'guess'; known: analytic, device, emulated, host"),
        (("report", "--format", "pdf"), "unknown report 'pdf'; known: console, csv, github-"),
        (("inspect", "nothing.tflite"), "nothing.tflite: no such file or folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_argument_is_exit_2_and_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    answer = call(*arguments, "--root", tmp_path)
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert answer.out == ""


def test_a_root_that_does_not_exist_is_exit_2(tmp_path: Path) -> None:
    answer = call("check", "--root", tmp_path / "gone")
    assert (answer.code, answer.err) == (2, f"Error: {tmp_path / 'gone'}: no such folder\n")


def test_an_error_with_json_is_a_document(tmp_path: Path) -> None:
    answer = call("models", "show", "nope", "--json", "--root", tmp_path)
    assert answer.code == 2
    assert answer.data["error"]["type"] == "InputError"
    assert answer.data["error"]["exit_code"] == 2


def damaged(project: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """Return invalid model files by case, each with a part of the expected message."""
    made: dict[str, tuple[Path, str]] = {}
    for name in (TFLITE, ONNX, TORCHSCRIPT, PTL):
        content = (project / name).read_bytes()
        suffix = Path(name).suffix
        for kind, data, sentence in (
            ("empty", b"", "this model file is empty"),
            ("start", content[:1000], "or it is damaged"),
            ("half", content[: len(content) // 2], "or it is damaged"),
            ("most", content[:-200], "or it is damaged"),
            ("text", b"Dear model,\nhow are you?\n" * 40, "or it is damaged"),
        ):
            path = folder / f"{kind}{suffix}"
            path.write_bytes(data)
            made[path.name] = (path, sentence)
    return made


def test_an_invalid_model_file_is_exit_2_and_one_sentence(project: Path, tmp_path: Path) -> None:
    for name, (path, sentence) in damaged(project, tmp_path).items():
        answer = call("inspect", path)
        assert answer.code == 2, name
        assert sentence in answer.err, name
        assert len(answer.err.strip().splitlines()) == 1, name


def test_a_checkpoint_is_not_accepted_as_a_model(project: Path, tmp_path: Path) -> None:
    path = shutil.copy(project / "build/simple_cnn/torch/source/weights.pt", tmp_path / "weights.pt")
    answer = call("inspect", path)
    assert answer.code == 2
    assert "a checkpoint of weights alone is not a model" in answer.err


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """Return a project with a copy of one model's build folder, which tests may damage."""
    shutil.copytree(project / "build/simple_cnn", tmp_path / "build/simple_cnn")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "manifest.json: this manifest is empty"),
        ('{"schema_version": 1', "manifest.json: this manifest is not valid JSON"),
        ("[1, 2]", "manifest.json: this manifest must be a JSON object (got list)"),
        ('{"schema_version": 99}', "manifest.json: schema_version is 99; this edgekit reads 1"),
        ('{"schema_version": 1, "colour": "red"}', "manifest.json: colour: unknown key; allowed: calibration, file"),
        (
            '{"schema_version": 1, "model": 3}',
            "manifest.json: model: must be a name of 1 to 255 characters without slashes",
        ),
    ],
)
def test_a_bad_manifest_is_reported_and_the_others_are_validated(copy: Path, content: str, sentence: str) -> None:
    (copy / "build/simple_cnn/keras/onnx-float32/manifest.json").write_text(content)
    answer = call("validate", "--target", "onnx:float32", "--root", copy, "--json")
    assert answer.code == 2
    assert sentence in answer.err
    assert [item["kind"] for item in answer.data["validations"]] == ["torch"]


def test_a_manifest_that_points_out_of_its_folder_is_refused(copy: Path) -> None:
    path = copy / "build/simple_cnn/keras/onnx-float32/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "file": "../../../../etc/passwd"}))
    answer = call("inspect", path.parent)
    assert answer.code == 2
    assert "file: must be a name in the artifact's folder" in answer.err


def test_an_artifact_that_was_changed_is_refused(copy: Path) -> None:
    folder = copy / "build/simple_cnn/keras/tflite-int8"
    content = bytearray((folder / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.tflite").write_bytes(content)
    answer = call("validate", folder, "--root", copy)
    assert answer.code == 2
    assert "its sha256 differs from the manifest's" in answer.err
    (folder / "model.tflite").write_bytes(content[:5000])
    assert "it is truncated or was replaced" in call("validate", folder, "--root", copy).err


def test_golden_samples_that_are_damaged_are_refused(copy: Path) -> None:
    folder = copy / "build/simple_cnn/keras/tflite-int8"
    (folder / "golden.npz").write_bytes((folder / "golden.npz").read_bytes()[:500])
    answer = call("validate", folder, "--root", copy)
    assert answer.code == 2
    assert "golden.npz: this is not an npz file of golden samples, or it is damaged" in answer.err


@pytest.mark.parametrize(
    ("kind", "file", "content", "sentence"),
    [
        ("torch", "weights.pt", b"", "its sha256 differs from source.json's"),
        ("torch", "source.json", b"", "this source model description is empty"),
        (
            "keras",
            "source.json",
            b'{"schema_version": 1}',
            "source.json: name: this key is missing; train or import the model again",
        ),
        ("keras", "calibration.npz", b"PK", "this is not an npz file of calibration samples, or it is damaged"),
    ],
)
def test_a_damaged_source_is_refused(copy: Path, kind: str, file: str, content: bytes, sentence: str) -> None:
    (copy / "build/simple_cnn" / kind / "source" / file).write_bytes(content)
    before = (copy / "build/simple_cnn" / kind / "onnx-int8/manifest.json").read_bytes()
    answer = call("export", "simple_cnn", "--framework", kind, "--target", "onnx:int8", "--root", copy)
    assert answer.code == 2
    assert sentence in answer.err
    assert (copy / "build/simple_cnn" / kind / "onnx-int8/manifest.json").read_bytes() == before


@pytest.mark.parametrize(("kind", "file"), [("torch", "weights.pt"), ("keras", "model.keras")])
@pytest.mark.parametrize("damage", ["truncated", "something else"])
def test_an_invalid_checkpoint_is_refused_even_if_its_hash_matches(
    copy: Path, kind: str, file: str, damage: str
) -> None:
    from edgekit.core.environment.atomic_files import sha256_file

    folder = copy / "build/simple_cnn" / kind / "source"
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"not weights at all" * 99)
    record = json.loads((folder / "source.json").read_text())
    (folder / "source.json").write_text(json.dumps({**record, "sha256": sha256_file(folder / file)}))
    answer = call("export", "simple_cnn", "--framework", kind, "--target", "onnx:float32", "--root", copy)
    assert answer.code == 2
    assert "or it is damaged" in answer.err


def own_model(root: Path, change: tuple[str, str]) -> None:
    """Copy linear into the project's models/, and replace one text of its model.toml."""
    folder = Path(shutil.copytree(Path(__file__).parents[2] / "models/linear", root / "models/linear"))
    text = (folder / "model.toml").read_text()
    assert change[0] in text
    (folder / "model.toml").write_text(text.replace(*change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("epochs = 30", "epoch = 30"), "training.epoch: unknown key; allowed: batch_size, early_stopping, epochs"),
        (("epochs = 30", 'epochs = "30"'), "training.epochs: input should be a valid integer (got '30')"),
        (("epochs = 30", "epochs = -3"), "training.epochs: input should be greater than or equal to 0 (got -3)"),
        (('size = "4 KB"', 'size = "-4 KB"'), "budgets.1.size: '-4 KB' is not a size"),
        (("drift = 0.02", "drift = -0.02"), "budgets.0.drift: input should be greater than or equal to 0 (got -0.02)"),
        (('loss = "mse"', ""), "training.loss: this key is missing"),
        (("[training]", "[training"), "this model description is not valid TOML"),
    ],
)
def test_a_bad_model_toml_names_file_and_key(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    own_model(tmp_path, change)
    answer = call("train", "linear", "--root", tmp_path)
    assert answer.code == 2
    assert f"{tmp_path}/models/linear/model.toml: {sentence}" in answer.err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("threads = 4", "thread = 4"), "run.thread: unknown key; allowed: memory_limit, threads"),
        (("threads = 4", "threads = 64"), "run.threads must not exceed the 4 cores of the first cluster"),
        (("clock_mhz = 1500", 'clock_mhz = "fast"'), "cores.0.clock_mhz: input should be a valid integer (got 'fast')"),
        (('ram = "1 GiB"', 'ram = "1 gig"'), "memory.ram: '1 gig' is not a size"),
        (("host = 100", "host = -100"), "budgets.latency_ms.host: input should be greater than 0 (got -100)"),
    ],
)
def test_a_bad_profile_names_file_and_key(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    text = (Path(__file__).parents[2] / "device_profiles/raspberry-pi-4b.toml").read_text()
    assert change[0] in text
    (tmp_path / "device_profiles").mkdir()
    path = tmp_path / "device_profiles/mine.toml"
    path.write_text(text.replace(*change))
    answer = call("devices", "show", "mine", "--root", tmp_path)
    assert answer.code == 2
    assert f"{path}: " in answer.err
    assert sentence in answer.err


def test_more_calibration_samples_than_available_are_refused(copy: Path) -> None:
    answer = call("export", "simple_cnn", "--target", "onnx:int8", "--calibration-samples", "999", "--root", copy)
    assert answer.code == 2
    assert "999 calibration samples requested, but the source has 256" in answer.err


@pytest.mark.slow
def test_invalid_data_is_refused(tmp_path: Path) -> None:
    answer = call("train", "simple_cnn", "--framework", "torch", "--data", "cats", "--root", tmp_path)
    assert answer.code == 2
    assert "unknown data 'cats'; known: mnist-5k, keras:mnist" in answer.err
    answer = call("train", "simple_cnn", "--framework", "torch", "--data", tmp_path, "--root", tmp_path)
    assert answer.code == 2
    assert "this folder contains neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz" in answer.err
    assert not list(tmp_path.glob("build/*/*/*"))

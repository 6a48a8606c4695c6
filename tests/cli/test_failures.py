"""Missing packages, crashing converters, full disks and Ctrl-C: typed errors, and no partially written files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from _helpers.support import call, mounts_refused, processes_with, spawn, with_mounts

FIXTURES = Path(__file__).parents[1] / "fixtures"


def leftovers(root: Path) -> list[str]:
    """Return edgekit's temporary files and folders below a folder."""
    return [str(path) for path in root.rglob(".edgekit-*")]


def linear_sources(project: Path, root: Path) -> None:
    for kind in ("keras", "torch"):
        shutil.copytree(project / f"build/linear/{kind}/source", root / f"build/linear/{kind}/source")


def test_a_missing_extra_is_exit_3_with_the_pip_command(project: Path, tmp_path: Path) -> None:
    linear_sources(project, tmp_path)
    environment = {"PYTHONPATH": str(FIXTURES / "without_torch")}
    child = spawn("export", "linear", "--target", "onnx:float32", "--root", tmp_path, env=environment)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 3
    assert "loading torch models needs torch; install it with: pip install 'edgekit[torch]'" in err
    assert "Traceback" not in err
    # The other framework's export was done all the same.
    assert (tmp_path / "build/linear/keras/onnx-float32/manifest.json").is_file()
    doctor = spawn("doctor", env=environment)
    out, _ = doctor.communicate(timeout=60)
    assert doctor.returncode == 0
    assert "pip install 'edgekit[torch]'" in out


def test_crashing_converters_do_not_stop_the_others(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third-party target, found by its entry point, runs in a worker process."""
    linear_sources(project, tmp_path)
    path = FIXTURES / "crashing_target"
    monkeypatch.setenv("PYTHONPATH", str(path))
    monkeypatch.syspath_prepend(path)
    targets = ("crashing:float32", "crashing:float16", "crashing:dynamic", "torchscript:float32")
    chosen = [word for target in targets for word in ("--target", target)]
    answer = call("export", "linear", "--framework", "torch", *chosen, "--root", tmp_path, "--json")
    assert answer.code == 4
    assert "export linear/torch crashing:float32: its process crashed with SIGSEGV" in answer.err
    assert "export linear/torch crashing:float16: RuntimeError: Could not translate op Frobnicate" in answer.err
    assert "the crashing converter wrote no file" in answer.err
    assert [item["manifest"]["target"] for item in answer.data["artifacts"]] == ["torchscript"]
    assert [item["type"] for item in answer.data["failures"]] == ["StepCrashed", "StepFailed", "StepFailed"]
    assert not list(tmp_path.glob("build/linear/torch/crashing-*"))
    assert leftovers(tmp_path) == []


LSTM = """import keras


def build() -> keras.Model:
    x = keras.Input((1,), name="x")
    h = keras.layers.Reshape((1, 1))(x)
    h = keras.layers.LSTM(4)(h)
    return keras.Model(x, keras.layers.Dense(1, name="y")(h))
"""


@pytest.mark.exhaustive
def test_the_lstm_that_kills_tensorflows_converter_takes_the_next_route(tmp_path: Path) -> None:
    """TensorFlow 2.21 segfaults on a Keras LSTM to int8 and is not asked; by way of PyTorch the model arrives, and is
    equivalent."""
    folder = Path(shutil.copytree(Path(__file__).parents[2] / "models/linear", tmp_path / "models/lstm"))
    (folder / "keras_model.py").write_text(LSTM)
    call("train", "lstm", "--framework", "keras", "--epochs", "3", "--root", tmp_path)
    answer = call("export", "lstm", "--framework", "keras", "--target", "tflite:int8", "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    refused = f"TFLiteConverter of TensorFlow {version('tensorflow')} crashes while it calibrates recurrent layers"
    assert refused in answer.err
    (manifest,) = [item["manifest"] for item in answer.data["artifacts"]]
    assert manifest["route"] == ["keras", "torch", "tflite"]
    assert refused in manifest["notes"][0]
    validated = call("validate", "lstm", "--root", tmp_path, "--json").data["validations"]
    assert [item["comparisons"][0]["problem"] for item in validated] == [None]
    assert next(item["value"] for item in validated[0]["comparisons"][0]["figures"] if item["name"] == "sqnr_db") > 25
    pinned = call(
        "export",
        "lstm",
        "--target",
        "tflite:int8",
        "--framework",
        "keras",
        "--route",
        "keras,tflite",
        "--root",
        tmp_path,
    )
    assert pinned.code == 4
    assert refused in pinned.err


def started(root: Path, child: subprocess.Popen[str]) -> None:
    """Wait until the command is writing."""
    deadline = time.monotonic() + 60
    while not leftovers(root) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert leftovers(root)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupting_leaves_no_half_written_artifact_and_no_process(tmp_path: Path, number: signal.Signals) -> None:
    marker = f"edgekit-test-{os.getpid()}-{number}"
    child = spawn(
        "train", "simple_cnn", "--framework", "torch", "--epochs", "500", "--root", tmp_path, env={"MARKER": marker}
    )
    started(tmp_path, child)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "build/simple_cnn/torch/source").exists()
    assert processes_with(marker) == []


@pytest.mark.exhaustive
def test_leftovers_of_a_killed_run_are_removed_by_the_next(project: Path, tmp_path: Path) -> None:
    child = spawn("train", "simple_cnn", "--framework", "torch", "--epochs", "500", "--root", tmp_path)
    started(tmp_path, child)
    child.kill()
    child.communicate()
    assert leftovers(tmp_path)
    assert not (tmp_path / "build/simple_cnn/torch/source").exists()
    source = project / "build/simple_cnn/torch/source"
    shutil.copytree(source, tmp_path / "build/simple_cnn/torch/source")
    call("export", "simple_cnn", "--target", "torchscript:float32", "--root", tmp_path)
    assert leftovers(tmp_path) == []


def test_a_build_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("this is not a folder")
    answer = call("train", "linear", "--framework", "torch", "--root", tmp_path)
    assert answer.code == 2
    assert f"cannot write {tmp_path}/build/linear/torch/source: " in answer.err


def in_small_filesystem(root: Path, size: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command with a small file system mounted at `root`, in its own user and mount namespace."""
    script = f"mount -t tmpfs -o size={size} none {root} && {command}"
    done = subprocess.run(with_mounts(script), capture_output=True, text=True, timeout=240)
    if mounts_refused(done.stderr):
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr.strip()}")
    return done


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux's unshare is not installed")
def test_a_disk_that_fills_up_is_one_sentence_and_leaves_the_old_artifact(project: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    source = project / "build/simple_cnn/torch"
    command = (
        f"mkdir -p {disk}/build/simple_cnn/torch"
        f" && cp -r {source}/source {source}/torchscript-float32 {disk}/build/simple_cnn/torch/"
        f" && {sys.executable} -P -m edgekit export simple_cnn --target torchscript:float32 --root {disk}; code=$?;"
        f" sha256sum {disk}/build/simple_cnn/torch/torchscript-float32/model.pt; ls -A {disk}/build/simple_cnn/torch;"
        " exit $code"
    )
    done = in_small_filesystem(disk, "4500k", command)
    assert done.returncode == 4, done.stderr
    assert "no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    before = subprocess.run(["sha256sum", source / "torchscript-float32/model.pt"], capture_output=True, text=True)
    assert done.stdout.split()[0] == before.stdout.split()[0]
    assert ".edgekit" not in done.stdout


def test_a_device_with_too_little_memory_is_out_of_memory(project: Path, tmp_path: Path) -> None:
    """The memory limit of the profile applies to the measuring process."""
    shutil.copytree(project / "build/linear/keras/tflite-int8", tmp_path / "build/linear/keras/tflite-int8")
    profile = (Path(__file__).parents[2] / "device_profiles/raspberry-pi-4b.toml").read_text()
    (tmp_path / "device_profiles").mkdir()
    (tmp_path / "device_profiles/tight.toml").write_text(
        profile.replace('memory_limit = "512 MiB"', 'memory_limit = "20 MiB"')
    )
    answer = call("bench", "linear", "--device", "tight", "--root", tmp_path)
    assert answer.code == 4
    assert "ran out of memory (it was allowed 20 MiB)" in answer.err
    assert not list(tmp_path.rglob("bench-*.json"))


def test_a_bench_that_takes_too_long_is_stopped_and_reported(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "build/linear/keras/tflite-int8", tmp_path / "build/linear/keras/tflite-int8")
    answer = call("bench", "linear", "--timeout", "0.01", "--root", tmp_path)
    assert answer.code == 4
    assert "bench linear/keras tflite:int8 on host: no answer after 0.01 s; it was stopped" in answer.err


def test_a_hanging_converter_is_stopped(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear_sources(project, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(FIXTURES / "crashing_target"))
    monkeypatch.syspath_prepend(FIXTURES / "crashing_target")
    chosen = ("--target", "crashing:int8", "--timeout", "8", "--root", tmp_path)
    answer = call("export", "linear", "--framework", "torch", *chosen)
    assert answer.code == 4
    assert "export linear/torch crashing:int8: no answer after 8 s; it was stopped" in answer.err
    assert leftovers(tmp_path) == []

"""The plug-in package of examples/, installed as a user would, keeps the contracts and serves the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.support import REPOSITORY, spawn

from edgekit.testing.contract import write_example_model

pytestmark = pytest.mark.exhaustive
PROJECT = REPOSITORY / "examples" / "plugin-project"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables with which the package is installed, for processes of their own."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", folder, PROJECT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed")
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}


def command(installed: dict[str, str], *words: object, **variables: str) -> tuple[int, str, str]:
    child = spawn(*words, env={**installed, **variables})
    out, err = child.communicate(timeout=280)
    assert "Traceback" not in err
    return child.returncode, out, err


def test_its_own_tests_pass(installed: dict[str, str], tmp_path: Path) -> None:
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", PROJECT / "tests"]
    done = subprocess.run(tests, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **installed})
    assert done.returncode == 0, done.stdout[-6000:]


def test_its_plug_ins_serve_the_commands(installed: dict[str, str], tmp_path: Path) -> None:
    model, samples = write_example_model(tmp_path)
    root = ("--root", tmp_path)
    targets = ("--target", "onnx-external", "--target", "onnx:float32")
    code, _, err = command(installed, "export", model, "--sample", samples, *targets, *root)
    assert code == 0, err
    files = {path.name for path in (tmp_path / "build/example/onnx/onnx-external-float32").iterdir()}
    assert files == {"model.onnxe", "model.weights", "manifest.json", "golden.npz"}

    code, out, err = command(installed, "validate", "example", "--runtime", "onnx-reference", "--json", *root)
    assert code == 0, err
    assert '"runtime": "onnx-reference"' in out
    assert '"runtime": "onnxruntime"' not in out

    bench = ("bench", "example", "--target", "onnx", "--executor", "command", "--min-duration", "0", "--min-runs", "2")
    code, out, err = command(installed, *bench, "--json", *root, EDGEKIT_COMMAND="nice -n 5")
    assert code == 0, err
    assert '"executor": "command"' in out
    assert '"device": ' in out

    code, out, err = command(installed, "doctor")
    assert code == 0, err
    assert "a plug-in of another package" in out or "onnx " in out
    code, _, err = command(installed, "verify", tmp_path / "build", "--strict")
    assert code == 0, err


def test_an_executor_that_does_not_run_there_says_why(installed: dict[str, str], tmp_path: Path) -> None:
    model, samples = write_example_model(tmp_path)
    root = ("--root", tmp_path)
    code, _, err = command(installed, "export", model, "--sample", samples, "--target", "onnx:float32", *root)
    assert code == 0, err
    bench = ("bench", "example", "--executor", "command", "--min-duration", "0", "--min-runs", "2", *root)
    code, _, err = command(installed, *bench, EDGEKIT_COMMAND="")
    assert code == 0, err
    assert "not measured by executor command: set EDGEKIT_COMMAND, for example to 'ssh board'" in err
    code, _, err = command(installed, "bench", "example", "--executor", "nothing", *root)
    assert code == 2
    assert "unknown executor 'nothing'; known: adb, browser, command, emulated, host" in err

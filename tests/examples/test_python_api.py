"""The example examples/python-api runs from start to end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.support import REPOSITORY

TOUR = REPOSITORY / "examples/python-api/tour.py"


@pytest.mark.exhaustive
def test_the_tour_exports_validates_measures_and_checks(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "build/linear/keras/source", tmp_path / "build/linear/keras/source")
    done = subprocess.run(
        [sys.executable, TOUR, "--root", tmp_path], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for variant in ("tflite:float32", "onnx:float32"):
        assert f"validate linear/keras {variant}: equivalent" in done.stdout
        assert f"\n{variant}: passed\n" in done.stdout
        assert re.search(rf"^{variant}: \d+\.\d{{4}} ms on this host$", done.stdout, re.MULTILINE)
    assert "TFLite and ONNX are equal\n" in done.stdout
    verdicts = re.findall(r"^(passed|FAILED) linear/keras", done.stdout, re.MULTILINE)
    assert len(verdicts) >= 6
    assert set(verdicts) == {"passed"}


def test_an_error_ends_the_tour_with_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, TOUR, "--root", tmp_path / "missing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"InputError: {tmp_path / 'missing'}: no such folder\n")

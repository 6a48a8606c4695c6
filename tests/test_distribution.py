"""Wheel and sdist: the same bytes from the same files, wherever, whenever and by whomever they are built."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.support import REPOSITORY

pytestmark = pytest.mark.slow

LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")


def build(folder: Path, *, umask: int, zone: str, modified: float) -> dict[str, str]:
    source, files = folder / "source", folder / "files"
    shutil.copytree(REPOSITORY, source, ignore=LEFT_OUT)
    shutil.copy(REPOSITORY / ".gitignore", source)
    for path in source.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        os.utime(path, (modified, modified))
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-d", str(files)]
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"} | {"TZ": zone}
    subprocess.run(command, cwd=source, env=environment, umask=umask, check=True, capture_output=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir()}


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path / "a", umask=0o022, zone="UTC", modified=1e9)
    second = build(tmp_path / "another folder", umask=0o077, zone="Asia/Tokyo", modified=1.7e9)
    assert first == second
    assert {name.rpartition(".")[2] for name in first} == {"whl", "gz"}

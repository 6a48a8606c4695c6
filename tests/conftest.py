"""Fixtures: one small project, trained and exported once a session, that many tests look at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import SHARED_MODELS, Answer, call

from edgekit.core.events import Event, ignore
from edgekit.core.project import open_project
from edgekit.stages.context import Context
from edgekit.workers.pool import WorkerPool


@pytest.fixture
def edgekit() -> Callable[..., Answer]:
    """`edgekit("check", "--root", folder)`"""
    return call


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two models, barely trained, exported to every variant and validated.

    Look at it, do not change it: every test shares it.
    """
    root = tmp_path_factory.mktemp("project")
    for arguments in (
        ("train", *SHARED_MODELS, "--framework", "both", "--epochs", "1", "--root", root),
        ("export", *SHARED_MODELS, "--root", root),
    ):
        answer = call(*arguments)
        assert answer.code == 0, answer.err
    call("validate", "--root", root)  # one epoch may leave an int8 agreement below its tolerance: tests look closer
    return root


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a classifier that int8 breaks, `broken`, as float files, and its samples. Copy it to change it."""
    root = tmp_path_factory.mktemp("broken")
    script = Path(__file__).parent / "fixtures" / "broken_network" / "make.py"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    made = subprocess.run(
        [sys.executable, "-W", "ignore", script, root], env={**os.environ, **quiet}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    targets = ("--target", "tflite:float32", "--target", "onnx:float32")
    answer = call("export", root / "broken.keras", "--sample", root / "samples.npz", *targets, "--root", root)
    assert answer.code == 0, answer.err
    return root


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """Warm workers for the whole session."""
    with WorkerPool() as workers:
        yield workers


@pytest.fixture
def context(project: Path, pool: WorkerPool) -> Context:
    """The shared project with shared workers."""
    return Context(open_project(project), pool, ignore)


@pytest.fixture
def events() -> list[Event]:
    """Where a test's context puts its events."""
    return []

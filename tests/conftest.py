"""Fixtures: one small project, trained and exported once a session, that many tests look at."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from _helpers.few_digits import write_few_digits
from _helpers.reference_pairs import MODELS, NAMES
from _helpers.support import SHARED_MODELS, Answer, call

from edgekit.config.model import load_model_spec
from edgekit.core.environment.project import open_project
from edgekit.core.events import Event, ignore
from edgekit.stages.context import Context
from edgekit.workers.pool import WorkerPool

# Tests run in as many processes as there are cores: more threads would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell lets programs in the background ignore SIGINT, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test that fails shows where a command was interrupted, by whomever.
logging.getLogger("edgekit").setLevel(logging.DEBUG)


# No test is timed: on a machine that does other work too, the time says nothing about the code. The same examples each
# time: a change is not to fail for a case that has nothing to do with it.
hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


# Fixtures that train and export for minutes: what looks at them is slow.
_SLOW_FIXTURES = frozenset(("project", "trained_models", "broken"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a project of the session as slow."""
    for item in items:
        if not _SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates, which hostile names contain: pytest-xdist sends reports as UTF-8."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure when it happens: a run that is stopped half-way would otherwise not say what failed."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(
            f"\nFAILED {report.nodeid} ({report.when}, {report.duration:.0f} s)",
            report.longreprtext[-4000:],
            sep="\n",
            flush=True,
        )


@pytest.fixture(autouse=True, scope="session")
def _no_lines_of_what_runs() -> Iterator[None]:
    """Tests expect all that a command prints, and on a busy machine each step may take long enough for such a line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.cli._progress.LINE_AFTER_S", math.inf)
        yield


@pytest.fixture
def edgekit() -> Callable[..., Answer]:
    """`edgekit("check", "--root", folder)`"""
    return call


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of this session that `make` has filled: the first of the processes that run tests makes it, the others
    wait for it. Where KEPT_TEST_PROJECTS names a folder, later sessions start from a copy that the first one left."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one who failed
            kept = os.environ.get("KEPT_TEST_PROJECTS")
            if kept and Path(kept, name).is_dir():
                shutil.copytree(Path(kept, name), folder, symlinks=True)
            else:
                folder.mkdir()
                make(folder)
                if kept:
                    shutil.copytree(folder, Path(kept, f"{name}.part"), symlinks=True)
                    Path(kept, f"{name}.part").rename(Path(kept, name))
            done.touch()
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two models, barely trained, exported to every variant and validated.

    Look at it, do not change it: every test shares it.
    """
    return once(tmp_path_factory, "project", _make_project)


def _make_project(root: Path) -> None:
    for arguments in (
        ("train", *SHARED_MODELS, "--framework", "both", "--epochs", "1", "--root", root),
        ("export", *SHARED_MODELS, "--root", root),
    ):
        answer = call(*arguments)
        assert answer.code == 0, answer.err
    call("validate", "--root", root)  # one epoch may leave an int8 agreement below its tolerance: tests look closer


@pytest.fixture(scope="session")
def trained_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the other reference models, trained for one epoch in both frameworks. Copy it to change it."""
    return once(tmp_path_factory, "trained_models", _train_models)


def _train_models(root: Path) -> None:
    digits = root / "digits"
    digits.mkdir()
    write_few_digits(digits, 600, 200)
    by_data: dict[bool, list[str]] = {True: [], False: []}
    for name in NAMES:
        if name not in SHARED_MODELS:
            by_data[load_model_spec(MODELS / name).data.default == "mnist-5k"].append(name)
    for few, names in by_data.items():
        data = ("--data", digits) if few else ()
        answer = call("train", *names, "--framework", "both", "--epochs", "1", *data, "--root", root)
        assert answer.code == 0, answer.err


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a classifier that int8 breaks, `broken`, as float files, and its samples. Copy it to change it."""
    return once(tmp_path_factory, "broken", _make_broken)


def _make_broken(root: Path) -> None:
    script = Path(__file__).parent / "fixtures" / "broken_network" / "make.py"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    made = subprocess.run(
        [sys.executable, "-W", "ignore", script, root], env={**os.environ, **quiet}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    targets = ("--target", "tflite:float32", "--target", "onnx:float32")
    answer = call("export", root / "broken.keras", "--sample", root / "samples.npz", *targets, "--root", root)
    assert answer.code == 0, answer.err


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """Warm workers for the whole session."""
    with WorkerPool() as workers:
        yield workers


@pytest.fixture
def cold_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands start and end workers of their own, as they do outside of tests."""
    monkeypatch.setattr("edgekit.workers.pool.WorkerPool", type("ColdPool", (WorkerPool,), {}))


@pytest.fixture
def context(project: Path, pool: WorkerPool) -> Context:
    """The shared project with shared workers."""
    return Context(open_project(project), pool, ignore)


@pytest.fixture
def events() -> list[Event]:
    """Where a test's context puts its events."""
    return []

"""Confined workers: whatever runs in one, the kernel denies it to write elsewhere, to use the network, to run programs.

The tests need Linux with Landlock, as `edgekit doctor` reports it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.support import WORKER_PATH
from _helpers.worker_side.function_call import FunctionCall, call_function

from edgekit.core.errors import InputError, MissingDependency, StepDenied, StepFailed, from_dict
from edgekit.workers import confinement
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

HERE = Environment.of({"PYTHONPATH": WORKER_PATH})

pytestmark = pytest.mark.skipif(
    confinement.unavailable_reason() is not None, reason=str(confinement.unavailable_reason())
)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(timeout_s=120) as workers:
        yield workers


def act(pool: WorkerPool, name: str, environment: Environment = HERE, **arguments: object) -> object:
    return pool.call(call_function, FunctionCall("acts", name, arguments), step="open it", environment=environment)


@pytest.mark.parametrize(
    "name",
    [
        "write",
        "append_through_link",
        "remove",
        "rename",
        "write_in_thread",
        "change_times",
        "run_program",
        pytest.param("write_by_torch", marks=pytest.mark.slow),
        pytest.param("write_by_tensorflow", marks=pytest.mark.slow),
    ],
)
def test_a_confined_worker_cannot_change_a_file_elsewhere(pool: WorkerPool, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    canary.write_text("as it was")
    canary.chmod(0o600)
    with pytest.raises(StepDenied, match=r"^open it: the access was denied \(.*\); a worker that opens models may not"):
        act(pool, name, path=str(canary))
    assert canary.read_text() == "as it was"
    assert canary.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def test_changes_of_modes_have_no_effect(pool: WorkerPool, tmp_path: Path) -> None:
    """Libraries change the mode of files of their own, and would fail if they could not."""
    canary = tmp_path / "canary"
    canary.touch(0o600)
    before = canary.stat()
    act(pool, "change_mode", path=str(canary))
    assert canary.stat().st_mode == before.st_mode


def test_it_cannot_create_a_file_or_a_folder_elsewhere(pool: WorkerPool, tmp_path: Path) -> None:
    for name in ("write", "make_folder"):
        with pytest.raises(StepDenied):
            act(pool, name, path=str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_it_has_no_network(pool: WorkerPool, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(StepDenied):
        act(pool, "connect", port=server.getsockname()[1])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        with pytest.raises(StepDenied):
            act(pool, "connect_unix", path=str(tmp_path / "socket"))


@pytest.mark.skipif(confinement.landlock_version() < 6, reason="this kernel's Landlock does not restrict signals")
def test_it_cannot_signal_other_processes(pool: WorkerPool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pytest.raises(StepDenied):
        act(pool, "kill", pid=child.pid)
    child.communicate(b"\n")
    assert child.returncode == 0


def test_it_reads_files_and_writes_into_its_own_folders(pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("readable")
    assert act(pool, "read", path=str(tmp_path / "file")) == "readable"
    assert act(pool, "write_own_folder") == "written"
    act(pool, "write_folder", folder=str(pool.folder))
    assert (pool.folder / "file").read_text() == "written"
    act(pool, "write_folder", replace(HERE, writable=(str(tmp_path),)), folder=str(tmp_path))
    assert (tmp_path / "file").read_text() == "written"


def test_a_program_that_it_may_start_is_confined_in_the_same_way(pool: WorkerPool, tmp_path: Path) -> None:
    environment = replace(HERE, programs=(sys.executable,))
    with pytest.raises(StepDenied, match="Permission denied"):
        act(pool, "run_python", environment, path=str(tmp_path / "file"))
    assert list(tmp_path.iterdir()) == []
    act(pool, "run_python", replace(environment, writable=(str(tmp_path),)), path=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "written"


def test_code_that_the_user_named_is_not_confined(pool: WorkerPool, tmp_path: Path) -> None:
    act(pool, "write", replace(HERE, confined=False), path=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "written"


def test_an_answer_that_names_code_is_refused(pool: WorkerPool, tmp_path: Path) -> None:
    """The parent is not confined: the answer of a worker must not reach it as code."""
    with pytest.raises(StepFailed, match=r"the answer of a worker cannot be read .*system is neither a data class"):
        act(pool, "answer_with_code", path=str(tmp_path / "file"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_not_taken_for_a_denied_access(pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o000)
    with pytest.raises(StepFailed) as caught:
        act(pool, "read", path=str(tmp_path / "file"))
    assert type(caught.value) is StepFailed


def test_the_variable_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(confinement.VARIABLE, "off")
    with WorkerPool(timeout_s=60) as pool:
        act(pool, "write", path=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "written"


def test_the_variable_can_require_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "unavailable_reason", lambda: "this kernel has no Landlock")
    assert Environment().limits()["confine"] is None
    monkeypatch.setenv(confinement.VARIABLE, "required")
    with pytest.raises(MissingDependency, match="workers cannot be confined here: this kernel has no Landlock"):
        Environment().limits()
    assert Environment(confined=False).limits()["confine"] is None


def test_an_unknown_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(confinement.VARIABLE, "on")
    with pytest.raises(InputError, match="EDGEKIT_CONFINEMENT=on: allowed are auto, required, off"):
        Environment().limits()


def test_the_error_passes_a_process_boundary() -> None:
    error = from_dict(StepDenied("no", step="a").to_dict())
    assert type(error) is StepDenied
    assert error.exit_code == 4

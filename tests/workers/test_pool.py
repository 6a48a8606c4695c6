from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from _helpers.support import WORKER_PATH
from _helpers.worker_side.function_call import FunctionCall, call_function

from edgekit.core.errors import (
    DiskFull,
    InputError,
    Interrupted,
    MissingDependency,
    StepCrashed,
    StepFailed,
    StepOutOfMemory,
    StepTimedOut,
)
from edgekit.core.events import Event, ProgressEvent
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool
from edgekit.workers.process import stop_all

HERE = Environment.of({"PYTHONPATH": WORKER_PATH})


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(timeout_s=60) as workers:
        yield workers


def run(pool: WorkerPool, name: str, environment: Environment = HERE, **options: object) -> object:
    arguments = options.pop("arguments", {})
    return pool.call(
        call_function,
        FunctionCall("worker_jobs", name, arguments),
        step=f"do {name}",
        environment=environment,
        **options,
    )


def test_a_call_returns_the_value_and_passes_events_on_in_order(pool: WorkerPool) -> None:
    events: list[Event] = []
    assert run(pool, "add", arguments={"a": 2, "b": 3}, listener=events.append) == 5
    assert events == [ProgressEvent("add", done, 3) for done in (1, 2, 3)]


def test_only_a_worker_of_the_same_environment_is_reused(pool: WorkerPool) -> None:
    first = run(pool, "pid")
    assert run(pool, "pid") == first
    torch_environment = Environment.of({**dict(HERE.variables), "KERAS_BACKEND": "torch"})
    assert run(pool, "pid", torch_environment) != first
    assert run(pool, "variable", torch_environment, arguments={"name": "KERAS_BACKEND"}) == "torch"


def test_a_worker_is_pinned_to_its_cores(pool: WorkerPool) -> None:
    core = max(os.sched_getaffinity(0))
    assert run(pool, "cpus", Environment(HERE.variables, cpus=(core,))) == [core]


def test_an_error_of_edgekit_is_raised_unchanged(pool: WorkerPool) -> None:
    with pytest.raises(InputError, match=r"x\.toml: a: unknown key"):
        run(pool, "refuse")


def test_a_foreign_exception_becomes_one_line_that_names_the_step(pool: WorkerPool) -> None:
    with pytest.raises(StepFailed) as caught:
        run(pool, "fail")
    assert str(caught.value) == "do fail: ValueError: the converter said no and went on for lines"
    assert caught.value.exit_code == 4
    assert "Traceback" in caught.value.stderr_tail


def test_a_segfault_becomes_an_error_with_signal_and_stderr_tail(pool: WorkerPool) -> None:
    with pytest.raises(StepCrashed) as caught:
        run(pool, "segfault")
    assert str(caught.value) == "do segfault: its process crashed with SIGSEGV"
    assert caught.value.signal == "SIGSEGV"
    assert "about to read address zero" in caught.value.stderr_tail


def test_after_a_crash_the_next_call_gets_a_new_worker(pool: WorkerPool) -> None:
    before = run(pool, "pid")
    with pytest.raises(StepCrashed):
        run(pool, "segfault")
    assert run(pool, "pid") != before


@pytest.mark.slow
def test_an_idle_worker_that_was_stopped_is_not_reused(pool: WorkerPool) -> None:
    """A killed process with a framework in it takes a while to end."""
    for _ in range(5):
        before = run(pool, "pid")
        stop_all()
        assert run(pool, "pid") != before


def test_an_exit_without_an_answer_is_a_crash(pool: WorkerPool) -> None:
    with pytest.raises(StepCrashed, match="do leave: its process ended with exit code 7 and no answer"):
        run(pool, "leave")


def test_a_worker_that_hangs_is_stopped_and_reported(pool: WorkerPool) -> None:
    with pytest.raises(StepTimedOut, match=r"do hang: no answer after 0\.5 s; it was stopped"):
        run(pool, "hang", timeout_s=0.5)


def test_a_kill_from_outside_is_reported_as_out_of_memory(pool: WorkerPool) -> None:
    with pytest.raises(StepOutOfMemory, match="SIGKILL"):
        run(pool, "killed")


def test_exceeding_the_memory_limit_is_out_of_memory(pool: WorkerPool) -> None:
    with pytest.raises(StepOutOfMemory, match="do hog: ran out of memory"):
        run(pool, "hog", Environment(HERE.variables, memory_limit_bytes=512 * 1024**2))


def test_native_code_that_aborts_with_bad_alloc_is_out_of_memory(pool: WorkerPool) -> None:
    with pytest.raises(StepOutOfMemory, match="its process ran out of memory"):
        run(pool, "abort_for_memory")


def test_a_full_disk_and_a_missing_package_have_their_own_types(pool: WorkerPool) -> None:
    with pytest.raises(DiskFull, match="no space left"):
        run(pool, "full_disk")
    with pytest.raises(MissingDependency, match="pip install a_package_that_nobody_has"):
        run(pool, "missing")


def test_output_of_a_worker_does_not_reach_stdout(pool: WorkerPool, capfd: pytest.CaptureFixture[str]) -> None:
    run(pool, "chat")
    assert capfd.readouterr().out == ""


def test_closing_the_pool_ends_its_workers() -> None:
    with WorkerPool() as pool:
        worker = run(pool, "pid")
    assert not Path(f"/proc/{worker}").exists()


def test_threads_that_call_at_the_same_time_use_a_worker_each(pool: WorkerPool) -> None:
    both = threading.Barrier(2)  # events come while the call runs: each waits for the other's

    def call() -> object:
        return run(pool, "pid_when_heard", listener=lambda _event: both.wait(30))

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.submit(call), threads.submit(call)
        assert first.result(60) != second.result(60)
    assert run(pool, "pid") in (first.result(), second.result())


def test_beyond_the_limit_the_worker_that_is_idle_longest_is_ended() -> None:
    with WorkerPool(timeout_s=60, limit=2) as pool:
        environments = [Environment.of({**dict(HERE.variables), "NUMBER": str(number)}) for number in range(3)]
        pids = [run(pool, "pid", environment) for environment in environments]
        assert [Path(f"/proc/{pid}").exists() for pid in pids] == [False, True, True]


def test_a_stopped_pool_interrupts_running_calls_and_refuses_new_ones(pool: WorkerPool) -> None:
    started = threading.Event()

    def call() -> str:
        try:
            run(pool, "hang_when_heard", listener=lambda _event: started.set())
        except Interrupted:
            return "interrupted"
        return "came back"

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(call)
        assert started.wait(30)
        pool.stop()
        assert waiting.result(30) == "interrupted"
    with pytest.raises(Interrupted):
        run(pool, "pid")


@pytest.mark.slow
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys

    code = (
        "from edgekit.workers.pool import WorkerPool\n"
        "from edgekit.workers.environment import Environment\n"
        f"import sys; sys.path[:0] = {WORKER_PATH.split(os.pathsep)!r}\n"
        "from _helpers.worker_side.function_call import FunctionCall, call_function\n"
        f"pool = WorkerPool(); e = Environment.of({{'PYTHONPATH': {WORKER_PATH!r}}})\n"
        "print(pool.call(call_function, FunctionCall('worker_jobs', 'pid'), step='s', environment=e), flush=True)\n"
        "pool.call(call_function, FunctionCall('worker_jobs', 'hang'), step='s', environment=e)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_temporary_files_of_a_worker_are_removed_with_it():
    with WorkerPool() as pool:
        temporary_file = Path(run(pool, "leave_a_temporary_file"))
        assert temporary_file.is_file()
    assert not temporary_file.exists()
    assert not temporary_file.parent.exists()


def test_log_records_of_a_worker_are_handled_by_the_loggers_of_this_process(
    pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    with caplog.at_level(logging.INFO, "edgekit"):
        run(pool, "log", arguments={"messages": ["took the short way", "%s is no argument"]}, listener=events.append)
    records = [record for record in caplog.records if record.name == "edgekit.stages.example"]
    assert [record.getMessage() for record in records] == ["took the short way", "%s is no argument"]
    assert {(record.step, record.levelname) for record in records} == {("do log", "INFO")}
    assert not [record for record in caplog.records if record.name == "some.framework"]
    assert events == []


def test_the_start_the_reuse_and_the_end_of_workers_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgekit"), WorkerPool(timeout_s=60) as pool:
        number = run(pool, "pid")
        run(pool, "pid")
        with pytest.raises(StepCrashed):
            run(pool, "segfault")
    messages = [record.getMessage() for record in caplog.records if record.name == "edgekit.workers.pool"]
    assert messages == [
        f"worker {number} started with PYTHONPATH",
        f"worker {number} is used again",
        f"worker {number} is used again",
        f"worker {number} ended: StepCrashed",
    ]
    assert WORKER_PATH not in caplog.text


def test_warnings_as_errors_in_the_parents_environment_do_not_reach_workers(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert run(pool, "warn") == "warned"


@pytest.mark.slow
def test_frameworks_import_with_warnings_as_errors_in_the_parents_environment(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    names = ["tensorflow", "torch", "onnx", "onnxruntime"]
    assert run(pool, "import_modules", arguments={"names": names}) == names

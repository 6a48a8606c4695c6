"""Concurrent execution of tasks."""

import sys
import threading
import time
from functools import partial

import pytest

from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES, default_parallelism, run_concurrently
from edgekit.workers.environment import Environment
from edgekit.workers.process import run_module


def test_results_come_with_their_numbers_and_errors_with_theirs():
    def work(number):
        if number == 1:
            raise ValueError("one")
        return number

    futures = dict(run_concurrently([partial(work, number) for number in range(4)], 2, list))
    assert {number: future.result() for number, future in futures.items() if number != 1} == {0: 0, 2: 2, 3: 3}
    with pytest.raises(ValueError, match="one"):
        futures[1].result()


def test_the_number_of_concurrent_tasks_is_limited():
    running, most, lock = set(), [0], threading.Lock()

    def work(number):
        with lock:
            running.add(number)
            most[0] = max(most[0], len(running))
        time.sleep(0.02)
        with lock:
            running.remove(number)

    list(run_concurrently([partial(work, number) for number in range(8)], 2, list))
    assert most == [2]


def test_closing_the_iterator_stops_running_tasks_and_starts_no_others(tmp_path, monkeypatch):
    """Each task starts a process that would wait for ten minutes."""
    (tmp_path / "waits.py").write_text(
        "import pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stopped = []
    environment = Environment(writable=(str(tmp_path),))
    began = time.monotonic()

    def work(number):
        if number == 0:
            # Bounded: a thread that never returns would keep the executor, and the test, from ending.
            while not (tmp_path / "started-1").exists() and time.monotonic() - began < 60:
                time.sleep(0.01)
            return
        run_module("waits", [str(tmp_path / f"started-{number}")], environment, step=f"wait {number}", timeout_s=600)

    for number, _ in run_concurrently([partial(work, number) for number in range(5)], 2, lambda: stopped.append(True)):
        assert number == 0
        break
    assert time.monotonic() - began < 60
    assert stopped == [True]
    assert not (tmp_path / "started-4").exists()


def test_the_default_parallelism_is_what_memory_allows_and_at_least_one():
    assert default_parallelism(0) == 1
    assert default_parallelism(PROCESS_MEMORY_BYTES) == 1
    assert default_parallelism(sys.maxsize) >= 1

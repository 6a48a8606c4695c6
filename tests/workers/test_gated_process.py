"""Processes that prepare themselves and wait to be released."""

import time
from pathlib import Path

import pytest

from edgekit.core.errors import StepCrashed, StepTimedOut
from edgekit.workers.environment import Environment
from edgekit.workers.gated_process import GatedProcess, fresh_process

HEAD = """\
import os, pathlib, signal, sys, time
out, ready, go = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
"""
WAIT = "os.write(ready, b'1')\nos.read(go, 1)\n"


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(code, timeout_s=60.0):
        (tmp_path / "gated_module.py").write_text(HEAD + code)
        environment = Environment(writable=(str(tmp_path),))
        start_process = fresh_process("gated_module", environment)
        return GatedProcess(start_process, [str(tmp_path / "out")], environment, step="measure it", timeout_s=timeout_s)

    return start


def test_it_continues_when_it_is_released(prepare, tmp_path):
    with prepare(f"{WAIT}out.touch()\n") as process:
        time.sleep(0.1)
        assert not (tmp_path / "out").exists()
        process.release()
        assert (tmp_path / "out").exists()


def test_release_raises_when_the_process_crashed_before_it_was_ready(prepare):
    with prepare("os.kill(os.getpid(), signal.SIGSEGV)\n") as process, pytest.raises(StepCrashed, match="SIGSEGV"):
        process.release()


def test_release_raises_when_the_process_fails_afterwards(prepare):
    with prepare(f"{WAIT}sys.exit(3)\n") as process, pytest.raises(StepCrashed, match="exit code 3"):
        process.release()


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("code", ["time.sleep(600)\n", f"{WAIT}time.sleep(600)\n"])
def test_a_process_that_exceeds_its_time_out_is_stopped(prepare, code):
    before = open_files()
    with pytest.raises(StepTimedOut, match="measure it: no answer after 1 s"), prepare(code, 1.0) as process:
        process.release()
    assert open_files() == before


def test_leaving_the_block_ends_the_process(prepare):
    with prepare(f"{WAIT}time.sleep(600)\n") as process:
        child = process._process
    assert not child.alive

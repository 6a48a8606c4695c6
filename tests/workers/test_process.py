"""Child processes: what is killed, and when."""

import os
import sys
from pathlib import Path

import pytest

from edgekit.workers.environment import Environment
from edgekit.workers.process import Child

LEAVES_A_PROCESS = """\
import pathlib, subprocess, sys

process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(process.pid))
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    children = []

    def run(code, *arguments):
        (tmp_path / "child_module.py").write_text(code)
        children.append(Child(["child_module", *map(str, arguments)], Environment(confined=False)))
        return children[-1]

    yield run
    for child in children:
        child.kill()


def test_a_process_that_has_ended_is_not_killed_again(start, monkeypatch):
    """Its id may belong to another process by then."""
    killed = []
    child = start("pass")
    assert child.wait(60) == 0
    monkeypatch.setattr(os, "killpg", lambda *arguments: killed.append(arguments))
    child.stop()
    child.kill()
    assert killed == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_a_process_leaves_is_killed_when_it_has_ended(start, tmp_path):
    assert start(LEAVES_A_PROCESS, tmp_path / "pid").wait(60) == 0
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    # Nobody may reap it in a container without an init process: it then stays as a zombie.
    while status.exists() and "State:\tZ" not in status.read_text():
        pass

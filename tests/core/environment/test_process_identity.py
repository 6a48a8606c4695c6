"""Processes are told apart although the kernel gives an id again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgekit.core.environment.process_identity import has_ended, own_process

PROGRAM = """
import sys
from edgekit.core.environment.process_identity import own_process
print(own_process(), flush=True)
sys.stdin.read()
"""


def test_a_process_runs_until_it_has_ended_and_not_until_it_is_reaped():
    assert not has_ended(own_process())
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        identity = child.stdout.readline().strip()
        assert not has_ended(identity)
        assert not has_ended(str(child.pid))  # as earlier versions named it
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(identity)
    assert has_ended(identity)
    assert has_ended(str(child.pid))


def test_another_process_with_the_same_id_is_another_process():
    pid, _, ticks = own_process().partition(".")
    assert (pid, ticks.isdigit()) == (str(os.getpid()), True)
    assert has_ended(f"{pid}.{int(ticks) + 1}")


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1.", "1.x", "1 ", "1.2.3"])
def test_what_names_no_process_has_not_ended(text):
    assert not has_ended(text)


@pytest.mark.parametrize("text", ["9999999999", f"{2**31 - 1}.5"])
def test_a_process_with_an_id_that_no_process_can_have_has_ended(text):
    assert has_ended(text)

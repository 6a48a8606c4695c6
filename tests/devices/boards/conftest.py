"""A board that tests of this folder share: a real sshd on this machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from _helpers.boards import ssh_board
from _helpers.emulation import DEVICE
from _helpers.support import call

from edgekit.config.device_profile import load_profile
from edgekit.core.environment.project import open_project
from edgekit.devices.emulation import emulator, tools


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """A running sshd; its home folder is shared, so that edgekit's code is sent once."""
    with ssh_board(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def turn():
    """The only test that uses a board while it runs.

    A board measures one model at a time, and all boards of the tests are this machine: tests that run at once in other
    processes would find it busy.
    """
    with (Path(tempfile.gettempdir()) / f"edgekit-tests-of-boards-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def board(turn, sshd, tmp_path, monkeypatch):
    """The board, added as `pi`, and a working connection by the client's known hosts."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "configuration"))
    answer = sshd.add()
    assert answer.code == 0, answer.err
    yield sshd
    sshd.wait_until_idle()


@pytest.fixture
def arm64_board(turn, tmp_path, monkeypatch):
    """A board whose Python is an arm64 one under QEMU, with no runtime, added as `pi`."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "configuration"))
    assert call("devices", "setup", DEVICE, "--root", tmp_path).code == 0
    guest = emulator.open_guest(DEVICE, load_profile(open_project(tmp_path).device_file(DEVICE)))
    root = guest.installed.folders.sysroot
    python = tmp_path / "arm64-python"
    python.write_text(
        f"#!/bin/sh\nexport PYTHONHOME='{root}/usr'\n"
        # A file beside the script may add modules, as pip does on a board.
        f'if [ -e "$0-modules" ]; then export PYTHONPATH="$PYTHONPATH:$(cat "$0-modules")"; fi\n'
        f"exec {tools.QEMU.path()} -cpu {guest.spec.cpu} -L '{root}' '{root}/usr/bin/python{guest.installed.python}'"
        ' -s "$@"\n'
    )
    python.chmod(0o755)
    with ssh_board(tmp_path / "board") as board:
        assert board.add("pi", "--python", python, "--profile", DEVICE).code == 0
        yield board


@pytest.fixture
def wrapped(board, tmp_path):
    """`wrapped(script)` lets the board's Python be a shell script, in which "$PYTHON" is the real one."""
    import sys

    def wrap(script: str) -> None:
        path = tmp_path / "wrapped python"
        path.write_text(f"#!/bin/sh\nPYTHON='{sys.executable}'\n{script}\n")
        path.chmod(0o755)
        assert board.add("pi", "--python", path, "--replace").code == 0

    return wrap

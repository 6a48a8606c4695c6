"""A board for tests: a real sshd on a port of this machine, with a home folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from _helpers.support import Answer, call, processes_with

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
needs_sshd = pytest.mark.skipif(
    not Path(SSHD).is_file() or shutil.which("ssh") is None, reason="not installed: openssh-server"
)
# Everything that runs on a board of the tests has this variable in its environment.
MARK = "EDGEKIT_TEST_BOARD"


@dataclass
class SshBoard:
    """A running sshd.

    Attributes:
        folder: The folder with its keys and configuration.
        port: Its port.
        home: What its users take for their home folder's cache.
        mark: What everything that runs on the board has in its environment.
    """

    folder: Path
    port: int
    home: Path
    mark: str
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> Path:
        """The private key that the board accepts."""
        return self.folder / "user_key"

    @property
    def ssh_config(self) -> Path:
        """The client's configuration, with the known hosts of the tests."""
        return self.folder / "ssh_config"

    @property
    def store(self) -> Path:
        """The folder that edgekit keeps on the board."""
        return self.home / "edgekit" / "board"

    def add(self, name: str = "pi", *arguments: object) -> Answer:
        """Add the board by the command."""
        return call(
            *("devices", "add", name, "--ssh", f"{getpass.getuser()}@127.0.0.1:{self.port}", "--identity", self.key),
            *("--ssh-config", self.ssh_config, "--python", sys.executable, *arguments),
        )

    def processes(self) -> list[int]:
        """Return what runs on the board, without sshd."""
        return processes_with(f"{MARK}={self.mark}")

    def wait_until_idle(self, timeout_s: float = 15.0) -> None:
        """Wait until nothing runs on the board."""
        deadline = time.monotonic() + timeout_s
        while self.processes():
            assert time.monotonic() < deadline, "something was left running on the board"
            time.sleep(0.05)

    def wait_for_runner(self, timeout_s: float = 60.0) -> int:
        """Wait until a model runs on the board, and return the process id of its runner."""
        deadline = time.monotonic() + timeout_s
        while True:
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    if b"edgekit.runtimes._runner" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
            assert time.monotonic() < deadline, "no model was run on the board"
            time.sleep(0.02)

    def cut(self) -> None:
        """Cut all connections, as a board does that loses its power and is started again."""
        self.signal_sessions(signal.SIGKILL)

    def signal_sessions(self, number: int) -> None:
        """Send a signal to the processes that serve connections; stopped, they are a cable that was unplugged."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def sessions(self) -> list[int]:
        """Return the processes of sshd that serve connections."""
        found, wanted = [], {self.process.pid}
        for _ in range(3):  # sshd, its monitor, and the process without privileges
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent in wanted and (entry / "comm").read_text().startswith("sshd"):
                        found.append(int(entry.name))
            wanted |= set(found)
        return list(dict.fromkeys(found))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@contextlib.contextmanager
def ssh_board(folder: Path, **variables: str) -> Iterator[SshBoard]:
    """Start sshd in a folder; leaving the block ends it and its connections.

    Args:
        folder: An empty folder.
        variables: What the board's programs have in their environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, home, mark = _free_port(), folder / "home", folder.as_posix()
    home.mkdir()
    for name in ("host_key", "user_key"):
        _key(folder / name)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    environment = {"XDG_CACHE_HOME": str(home), MARK: mark, **variables}
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "SetEnv": " ".join(f'"{key}={value}"' for key, value in environment.items()),
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    know(folder, port)
    (folder / "ssh_config").write_text(f"UserKnownHostsFile {folder / 'known_hosts'}\nGlobalKnownHostsFile /dev/null\n")
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd confines its process without privileges
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    board = SshBoard(folder, port, home, mark, process)
    try:
        _wait_for_port(board)
        yield board
    finally:
        board.cut()
        process.kill()
        process.wait()


def know(folder: Path, port: int, key: str = "host_key") -> None:
    """Write the key of the board's host, or another one, into the client's known hosts."""
    kind, text, *_ = (folder / f"{key}.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {text}\n")


def _wait_for_port(board: SshBoard) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", board.port), 1):
            return
        assert board.process.poll() is None, (board.folder / "log").read_text()
        assert time.monotonic() < deadline, "sshd did not start"
        time.sleep(0.05)

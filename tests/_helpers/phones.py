"""A phone for tests: what an adb server with one phone answers, whose commands run in a folder of this machine.

The shell is mksh and the tools are toybox's, as on Android. Paths of the phone stand for folders of the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from _helpers.support import processes_with

SERIAL = "0A1B2C3D"
# Everything that runs on a phone of the tests has this variable in its environment.
MARK = "EDGEKIT_TEST_PHONE"
_MISSING = [name for name in ("adb", "mksh", "toybox") if shutil.which(name) is None]
needs_adb = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")
_RUNNER = Path(__file__).with_name("benchmark_model.py")
# The identifiers of packets of the shell protocol, version 2.
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_DUMPS = {
    "thermalservice": (
        "IsStatusOverride: false\nThermal Status: {status}\nCached temperatures:\n"
        "\tTemperature{mValue=31.5, mType=3, mName=skin, mStatus=0}\n"
    ),
    "battery": "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  status: 2\n  level: 81\n",
}


@dataclass
class FakePhone:
    """An adb server with one phone.

    Attributes:
        folder: The sandbox.
        port: The server's port.
        state: The phone's state; `absent` for a phone that is not connected.
        duplicated: Whether a second phone has the same serial number.
        full: Whether the phone's storage is full for files that are sent.
        damages: Whether files arrive damaged.
        silent: Whether the phone answers nothing.
        properties: What `getprop` knows.
        variables: What the phone's programs have in their environment besides.
        pushed: The paths of the files that were sent.
    """

    folder: Path
    port: int
    state: str = "device"
    duplicated: bool = False
    full: bool = False
    damages: bool = False
    silent: bool = False
    thermal_status: int = 0
    properties: dict[str, str] = field(
        default_factory=lambda: {
            "ro.product.manufacturer": "Acme",
            "ro.product.model": "Phone 1",
            "ro.soc.model": "SM0000",
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
        }
    )
    variables: dict[str, str] = field(default_factory=dict)
    pushed: list[str] = field(default_factory=list)
    _connections: list[socket.socket] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """What everything that runs on the phone has in its environment."""
        return self.folder.as_posix()

    @property
    def storage(self) -> Path:
        """What the phone's /data/local/tmp is."""
        return self.folder / "tmp"

    @property
    def store(self) -> Path:
        """The folder that edgekit keeps on the phone."""
        return self.storage / "edgekit"

    def write_runner(self, path: Path) -> Path:
        """Write a runner, such as the user has one for the phone."""
        path.write_text(f"#!{sys.executable}\n{_RUNNER.read_text()}")
        path.chmod(0o755)
        return path

    def processes(self) -> list[int]:
        """Return what runs on the phone."""
        return processes_with(f"{MARK}={self.mark}")

    def wait_until_idle(self, timeout_s: float = 20.0) -> None:
        """Wait until nothing runs on the phone."""
        deadline = time.monotonic() + timeout_s
        while self.processes():
            assert time.monotonic() < deadline, "something was left running on the phone"
            time.sleep(0.05)

    def wait_for_runner(self, timeout_s: float = 60.0) -> int:
        """Wait until the runner runs a model, and return its process id."""
        deadline = time.monotonic() + timeout_s
        while True:
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if words[0].endswith(b"python") and any(word.startswith(b"--graph=") for word in words):
                        return pid
            assert time.monotonic() < deadline, "no model was run on the phone"
            time.sleep(0.02)

    def cut(self) -> None:
        """End all connections, as when the cable is pulled."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # The server -------------------------------------------------------------------------------------------------------

    def serve(self, connection: socket.socket) -> None:
        """Answer one client."""
        self._connections.append(connection)
        with connection, contextlib.suppress(OSError, EOFError):
            while self._answer(connection, _text(connection)):
                pass
        self._connections.remove(connection)

    def _answer(self, connection: socket.socket, service: str) -> bool:
        """Answer a request, and return whether another one follows on the same connection."""
        if service == "host:version":
            _reply(connection, "0029")
        elif service in ("host:devices", "host:devices-l"):
            listed = "" if self.state == "absent" else f"{SERIAL}\t{self.state}\n"
            _reply(connection, listed + "EMULATOR\tdevice\n")
        elif service.startswith("host") and service.endswith("features"):
            problem = self._problem(service)
            _fail(connection, problem) if problem else _reply(connection, "shell_v2,cmd")
        elif service.startswith(("host:transport:", "host:tport:serial:")):
            problem = self._problem(service)
            if problem:
                _fail(connection, problem)
                return False
            connection.sendall(b"OKAY" + (struct.pack("<Q", 1) if "tport" in service else b""))
            return True
        elif service.startswith("shell,v2"):
            connection.sendall(b"OKAY")
            self._shell(connection, service.partition(":")[2])
        elif service == "sync:":
            connection.sendall(b"OKAY")
            self._sync(connection)
        else:
            _fail(connection, f"unknown service {service}")
        return False

    def _problem(self, service: str) -> str:
        if SERIAL not in service or self.state == "absent":
            serial = service.removeprefix("host-serial:").removesuffix(":features")
            return f"device '{serial.rpartition(':')[2]}' not found"
        if self.duplicated:
            return "more than one device"
        if self.state == "unauthorized":
            return "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\nTry 'adb kill-server'"
        return "" if self.state == "device" else "device offline"

    def local(self, text: str) -> str:
        """Return a text with the paths of the sandbox for those of the phone."""
        places = {
            "/data/local/tmp": self.storage,
            "/sys/": f"{self.folder}/sys/",
            "/proc/cpuinfo": self.folder / "cpuinfo",
        }
        for path, place in places.items():
            text = text.replace(path, str(place))
        return text

    def _shell(self, connection: socket.socket, command: str) -> None:
        if self.silent:
            connection.recv(1 << 16)
            time.sleep(30)
            return
        child = subprocess.Popen(
            [self.folder / "bin" / "sh", "-c", self.local(command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": str(self.folder / "bin"), MARK: self.mark, "HOME": "/", **self.variables},
            cwd=self.storage,
            start_new_session=True,
        )
        assert child.stdin is not None
        lock = threading.Lock()
        readers = [
            threading.Thread(target=_forward, args=(pipe, kind, connection, lock), daemon=True)
            for pipe, kind in ((child.stdout, _STDOUT), (child.stderr, _STDERR))
        ]
        for reader in readers:
            reader.start()
        ended = threading.Thread(target=_end, args=(child, readers, connection, lock), daemon=True)
        ended.start()
        try:
            while True:
                kind, size = struct.unpack("<BI", _exactly(connection, 5))
                data = _exactly(connection, size)
                if kind == _STDIN:
                    with contextlib.suppress(OSError, ValueError):
                        child.stdin.write(data)
                        child.stdin.flush()
                elif kind == _CLOSE_STDIN:
                    child.stdin.close()
        except (OSError, EOFError):
            # What adbd does for a client that is gone: it closes the pipes, and ends the shell but nothing else.
            with contextlib.suppress(OSError):
                child.stdin.close()
            if child.poll() is None:
                os.kill(child.pid, signal.SIGHUP)
        ended.join()

    def _sync(self, connection: socket.socket) -> None:
        while True:
            request, size = struct.unpack("<4sI", _exactly(connection, 8))
            if request == b"QUIT":
                return
            path = _exactly(connection, size).decode()
            if request in (b"STAT", b"LST2", b"STA2"):
                file = Path(self.local(path))
                found = file.stat() if file.exists() else None
                values = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)) if found else (0, 0, 0)
                connection.sendall(b"STAT" + struct.pack("<III", *values))
            elif request == b"SEND":
                self._receive(connection, path.rpartition(",")[0])

    def _receive(self, connection: socket.socket, path: str) -> None:
        self.pushed.append(path)
        with Path(self.local(path)).open("wb") as stream:
            while True:
                kind, size = struct.unpack("<4sI", _exactly(connection, 8))
                if kind == b"DONE":
                    break
                data = _exactly(connection, size)
                stream.write(bytes(reversed(data)) if self.damages else data)
        if self.full:
            Path(self.local(path)).unlink()
            message = f"couldn't write {path}: No space left on device".encode()
            connection.sendall(b"FAIL" + struct.pack("<I", len(message)) + message)
        else:
            connection.sendall(b"OKAY" + struct.pack("<I", 0))

    def write_files(self) -> None:
        """Write the phone's tools, and what it shows of its cores: two kinds of them, on those of this machine."""
        bin_folder = self.folder / "bin"
        for folder in (bin_folder, self.storage):
            folder.mkdir(parents=True, exist_ok=True)
        toybox = shutil.which("toybox")
        for name in subprocess.run(["toybox"], capture_output=True, text=True, check=True).stdout.split():
            (bin_folder / name).symlink_to(str(toybox))
        (bin_folder / "sh").symlink_to(str(shutil.which("mksh")))
        self.write_services()
        lines = []
        cpus = sorted(os.sched_getaffinity(0))
        for cpu in cpus:
            big = cpu == cpus[-1]
            lines.append(f"processor\t: {cpu}\nCPU implementer\t: 0x41\nCPU part\t: {'0xd44' if big else '0xd05'}\n")
            frequency = self.folder / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
            frequency.mkdir(parents=True, exist_ok=True)
            khz = 2850000 if big else 1800000
            for name, value in {
                "cpuinfo_max_freq": khz, "scaling_cur_freq": khz, "scaling_max_freq": khz, "scaling_governor": "walt",
            }.items():  # fmt: skip
                (frequency / name).write_text(f"{value}\n")
            (frequency.parent / "cpu_capacity").write_text(f"{1024 if big else 250}\n")
        (self.folder / "cpuinfo").write_text("\n".join(lines))
        zone = self.folder / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "type").write_text("cpu-0\n")
        (zone / "temp").write_text("42000\n")

    def write_services(self) -> None:
        """Write the programs that ask Android's services, with what they answer now."""
        cases = "".join(f"{name}) echo '{value}';;\n" for name, value in self.properties.items())
        programs = {"getprop": f'case "$1" in\n{cases}*) echo;;\nesac', "settings": "echo 0"}
        dumps = {name: text.replace("{status}", str(self.thermal_status)) for name, text in _DUMPS.items()}
        programs["dumpsys"] = f'cat "{self.folder}/dump-$1"'
        for name, text in dumps.items():
            (self.folder / f"dump-{name}").write_text(text)
        for name, text in programs.items():
            path = self.folder / "bin" / name
            path.write_text(f"#!{shutil.which('mksh')}\n{text}\n")
            path.chmod(0o755)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _text(connection: socket.socket) -> str:
    return _exactly(connection, int(_exactly(connection, 4), 16)).decode()


def _reply(connection: socket.socket, text: str) -> None:
    connection.sendall(b"OKAY" + f"{len(text):04x}{text}".encode())


def _fail(connection: socket.socket, text: str) -> None:
    connection.sendall(b"FAIL" + f"{len(text):04x}{text}".encode())


def _forward(pipe, kind, connection, lock) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(OSError):
        while data := os.read(pipe.fileno(), 1 << 16):
            with lock:
                connection.sendall(struct.pack("<BI", kind, len(data)) + data)


def _end(child, readers, connection, lock) -> None:  # type: ignore[no-untyped-def]
    code = child.wait()
    for reader in readers:
        reader.join()
    for pipe in (child.stdout, child.stderr):
        pipe.close()
    with contextlib.suppress(OSError, BrokenPipeError):
        child.stdin.close()
    with contextlib.suppress(OSError), lock:
        connection.sendall(struct.pack("<BIB", _EXIT, 1, code if code >= 0 else 128 - code))
        connection.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def fake_phone(folder: Path) -> Iterator[FakePhone]:
    """Start the server in a folder; leaving the block ends it and its connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    phone = FakePhone(folder, listener.getsockname()[1])
    phone.write_files()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=phone.serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield phone
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        phone.cut()

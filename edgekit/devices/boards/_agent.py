"""The program that edgekit runs on a board for as long as it is connected; it is sent over ssh and never installed.

It needs only the standard library of Python 3.8, since it also reports that a board's Python is too old. Requests and
replies travel over stdin and stdout: a line of JSON, followed by as many bytes as its key `size` says. When stdin ends,
or no byte has arrived for a while during a measurement, it kills what it started, removes its scratch folder and ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NoReturn

MARKER = b"edgekit-board-agent 1\n"
# The client writes at least every 5 s while it waits for a run.
SILENCE_S = 30.0
_CHUNK = 1 << 16
_TAIL_BYTES = 16384
# A file that no request has named for so long is removed.
_KEEP_S = 30 * 86400.0
_LOCK = "/tmp/edgekit-measurement.lock"  # noqa: S108 - one lock for all users of the board; nothing is written into it
_RECORD = "edgekit-record.json"
_FOLDER = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Refused(Exception):
    """A request that cannot be fulfilled; `kind` selects the error that the client raises."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Gone(Exception):
    """The client has closed the connection, or has been silent for too long."""


class Channel:
    """The two pipes to the client."""

    def __init__(self) -> None:
        self._buffer = b""
        self.heard = time.monotonic()

    def _fill(self, timeout_s: float | None) -> bool:
        """Read what has arrived; return False if nothing arrives in time."""
        if not select.select([0], [], [], timeout_s)[0]:
            return False
        data = os.read(0, _CHUNK)
        if not data:
            raise Gone
        self._buffer += data
        self.heard = time.monotonic()
        return True

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill(None)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next request and its bytes."""
        while True:
            while b"\n" not in self._buffer:
                self._fill(None)
            line, _, self._buffer = self._buffer.partition(b"\n")
            request = json.loads(line.decode())
            if request["op"] != "ping":
                return request, self._exactly(request.get("size", 0))

    def idle(self, timeout_s: float) -> None:
        """Wait, and take the client's signs of life meanwhile."""
        if self._fill(timeout_s):
            self._buffer = self._buffer.rpartition(b"\n")[2]
        if time.monotonic() - self.heard > SILENCE_S:
            raise Gone

    def send(self, reply: dict[str, Any], data: bytes = b"") -> None:
        """Write a reply and its bytes."""
        message = json.dumps({**reply, "size": len(data)}).encode() + b"\n" + data
        view = memoryview(message)
        while view:
            view = view[os.write(1, view) :]


def _read(path: str) -> str:
    return _long(path)[:4096].strip("\0\n ")


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if re.match(r"-?\d+\Z", text) else None


def _available_cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def state() -> dict[str, Any]:
    """Return what changes while a board works: frequencies in kHz, temperatures in degrees, load, throttling flags."""
    cpus = {}
    for cpu in _available_cpus():
        base = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/"
        cpus[str(cpu)] = {
            "khz": _number(base + "scaling_cur_freq"),
            "limit_khz": _number(base + "scaling_max_freq"),
            "governor": _read(base + "scaling_governor"),
        }
    zones = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        milli = _number(f"{zone}/temp")
        if milli is not None:
            zones[_read(f"{zone}/type") or zone.name] = milli / 1000
    flags = _read("/sys/devices/platform/soc/soc:firmware/get_throttled")
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    return {"cpus": cpus, "temperatures": zones, "throttled": flags, "load": load}


# What /proc/cpuinfo says of a core on arm64, and on x86-64 its name.
_CPUINFO_KEYS = ("CPU implementer", "CPU part", "CPU variant", "CPU revision", "Features", "model name")


def cpu_parts(cpuinfo: str) -> dict[int, dict[str, str]]:
    """Return the lines of /proc/cpuinfo that describe each core, by its number."""
    parts: dict[int, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for line in cpuinfo.splitlines():
        key, _, value = (text.strip() for text in line.partition(":"))
        if key == "processor" and value.isdigit():
            current = parts.setdefault(int(value), {})
        elif current is not None and key in _CPUINFO_KEYS:
            current[key] = value
    return parts


def _cores() -> list[dict[str, Any]]:
    """Return the cores: number, capacity, highest frequency, caches, and what /proc/cpuinfo says of each."""
    parts = cpu_parts(_long("/proc/cpuinfo"))
    cores = []
    for cpu in _available_cpus():
        base = f"/sys/devices/system/cpu/cpu{cpu}/"
        found = parts.get(cpu, {})
        cores.append(
            {
                "cpu": cpu,
                "capacity": _number(base + "cpu_capacity"),
                "max_khz": _number(base + "cpufreq/cpuinfo_max_freq"),
                "implementer": found.get("CPU implementer", ""),
                "part": found.get("CPU part", ""),
                "name": found.get("model name", ""),
                "variant": found.get("CPU variant", ""),
                "revision": found.get("CPU revision", ""),
                "features": found.get("Features", ""),
                "caches": _caches(base),
            }
        )
    return cores


def _caches(base: str) -> list[dict[str, Any]]:
    """Return the caches of a core: level, type, size as the kernel writes it, ways, and the cores that share it."""
    return [
        {
            "level": _number(f"{index}/level"),
            "type": _read(f"{index}/type"),
            "size": _read(f"{index}/size"),
            "ways": _number(f"{index}/ways_of_associativity"),
            "shared_by": _read(f"{index}/shared_cpu_list"),
        }
        for index in sorted(Path(f"{base}cache").glob("index*"))
    ]


def _long(path: str) -> str:
    try:
        with Path(path).open(errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""


def _memory() -> dict[str, int]:
    found = {}
    for line in _long("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key in ("MemTotal", "MemAvailable"):
            found[key] = int(value.split()[0]) * 1024
    return found


def _libc() -> list[str]:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (AttributeError, ValueError, OSError):
        return ["", ""]
    return [name, version]


class Agent:
    """Serves the requests of one client."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        cache = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
        self.store = base / "edgekit" / "board"
        self.files = self.store / "files"
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: tuple[int, int] | None = None
        self._scratch: Path | None = None

    # Requests --------------------------------------------------------------------------------------------------------

    def hello(self, _request: dict[str, Any], _data: bytes) -> dict[str, Any]:
        return {
            "python": list(sys.version_info[:3]),
            "implementation": platform.python_implementation(),
            "machine": platform.machine(),
            "system": platform.system(),
            "libc": _libc(),
            "time": time.time(),
            "store": str(self.store),
        }

    def probe(self, _request: dict[str, Any], _data: bytes) -> dict[str, Any]:
        folder = self.store
        while not folder.is_dir():
            folder = folder.parent
        usage = shutil.disk_usage(folder)
        return {
            "model": _read("/proc/device-tree/model") or _read("/sys/class/dmi/id/product_name"),
            "kernel": platform.release(),
            "cores": _cores(),
            "memory": _memory(),
            "disk_free_bytes": usage.free,
            "state": state(),
            "folders": sorted(path.name for path in self.store.glob("*")),
        }

    def have(self, request: dict[str, Any], _data: bytes) -> dict[str, Any]:
        """Return the offset from which each file has to be sent: its size where the board has it."""
        self._tidy()
        return {"offsets": {sha256: self._offset(sha256) for sha256 in map(self._checked, request["files"])}}

    def _checked(self, sha256: str) -> str:
        if not _SHA256.match(sha256):
            raise Refused("input", f"no sha256: {sha256!r}")
        return sha256

    def _path(self, sha256: str) -> Path:
        return self.files / self._checked(sha256)

    def _part(self, sha256: str) -> Path:
        return self.files / f"{self._checked(sha256)}.part"

    def _offset(self, sha256: str) -> int:
        path = self._path(sha256)
        if path.is_file():
            # A file whose content has changed, on a worn card or by hand, is sent again.
            if _sha256(path) == sha256:
                os.utime(path)
                return -1
            path.unlink()
        part = self._part(sha256)
        return part.stat().st_size if part.is_file() else 0

    def put(self, request: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Append to a file; with the last part, check its hash and give it its name."""
        self._hold_lock(600.0)  # writing to a card would disturb a measurement of somebody else
        try:
            return self._append(request, data)
        finally:
            self._release_lock()

    def _append(self, request: dict[str, Any], data: bytes) -> dict[str, Any]:
        part = self._part(request["sha256"])
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.open("r+b" if request["offset"] else "wb") as stream:
            stream.seek(request["offset"])
            stream.truncate()
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if request["last"]:
            if _sha256(part) != request["sha256"]:
                part.unlink()
                raise Refused("damaged", "a file arrived damaged")
            part.rename(self._path(request["sha256"]))
        return {}

    def make(self, request: dict[str, Any], _data: bytes) -> dict[str, Any]:
        """Unpack archives into a folder of the store, which is complete when it exists."""
        folder = self._folder(request["folder"])
        if not folder.is_dir():
            self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".making-", dir=self.store))
            try:
                for sha256 in request["archives"]:
                    with zipfile.ZipFile(self._path(sha256)) as archive:
                        archive.extractall(staging)
                (staging / _RECORD).write_text(json.dumps(request.get("record", {})))
                staging.rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return {}

    def _folder(self, name: str) -> Path:
        if not _FOLDER.match(name):
            raise Refused("input", f"no name of a folder: {name!r}")
        return self.store / name

    def drop(self, request: dict[str, Any], _data: bytes) -> dict[str, Any]:
        """Remove folders of the store, or all of it."""
        self._hold_lock(600.0)  # somebody else's measurement may use them
        try:
            return self._remove(request["folders"])
        finally:
            self._release_lock()

    def _remove(self, names: list[str] | None) -> dict[str, Any]:
        paths = [self.store] if names is None else [self._folder(name) for name in names]
        removed = [path for path in paths if path.is_dir()]
        for path in removed:
            shutil.rmtree(path)
        return {"removed": [str(path) for path in removed]}

    def records(self, request: dict[str, Any], _data: bytes) -> dict[str, Any]:
        """Return the record of each folder of the store whose name starts with a prefix."""
        found = {}
        for path in sorted(self.store.glob("*")):
            text = _long(str(path / _RECORD)) if path.name.startswith(request["prefix"]) else ""
            if text:
                found[path.name] = json.loads(text)
        return {"records": found}

    def run(self, request: dict[str, Any], _data: bytes) -> tuple[dict[str, Any], bytes]:
        """Run Python in a scratch folder with files of the store, and return what it wrote."""
        timeout_s = request["timeout_s"]
        if request["lock"]:
            self._hold_lock(timeout_s)
        runs = self.store / "runs"
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = self._scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
        try:
            for name, sha256 in request["files"].items():
                self._place(name, sha256)
            for name, text in request["texts"].items():
                self._inside(name).write_text(text.replace("{scratch}", json.dumps(str(scratch))[1:-1]))
            before = state()
            returncode, tail = self._python(request, timeout_s)
            reply = {"returncode": returncode, "stderr": tail, "before": before, "after": state(), "texts": {}}
            output = b""
            if returncode == 0:
                reply["texts"] = {name: self._inside(name).read_text() for name in request["read"]}
                if request.get("output"):
                    output = self._inside(request["output"]).read_bytes()
            return reply, output
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            self._scratch = None
            self._release_lock()

    def _inside(self, name: str) -> Path:
        path = Path(str(self._scratch), name)
        if ".." in path.parts or self._scratch not in path.parents:
            raise Refused("input", f"no path inside of a folder: {name!r}")
        return path

    def _place(self, name: str, sha256: str) -> None:
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self._path(sha256), path)
        except OSError:  # a file system without links, such as that of a boot partition
            shutil.copyfile(self._path(sha256), path)

    def _python(self, request: dict[str, Any], timeout_s: float) -> tuple[int | None, str]:
        """Run Python; return its exit code, None after a time-out, and the end of what it wrote."""
        variables = dict(os.environ)
        variables.update(request["variables"])
        paths, scratch = [str(self._folder(name)) for name in request["paths"]], str(self._scratch)
        variables.update({"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": scratch})
        arguments = [word.replace("{scratch}", scratch) for word in request["arguments"]]
        with tempfile.TemporaryFile(dir=scratch) as output:
            self._child = subprocess.Popen(  # noqa: S603 - a list of words from edgekit, no shell
                [request["python"], *arguments],
                env=variables,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            self._watcher = _watch(self._child.pid)
            deadline = time.monotonic() + timeout_s
            try:
                returncode = self._wait(self._child, deadline)
            finally:
                self.kill()
            size = os.fstat(output.fileno()).st_size
            tail = os.pread(output.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return returncode, tail.decode("utf-8", "replace")

    def _wait(self, child: subprocess.Popen[bytes], deadline: float) -> int | None:
        """Wait for the child without using the processor; its end wakes the agent."""
        pause_s = 0.02
        while time.monotonic() < deadline:
            returncode = child.poll()
            if returncode is not None:
                return returncode
            self.channel.idle(pause_s)
            pause_s = min(0.25, 1.5 * pause_s)
        return None

    def kill(self) -> None:
        """Kill the child and what it started."""
        child, self._child = self._child, None
        watcher, self._watcher = self._watcher, None
        if child is not None:
            # Before the child is reaped: afterwards its id may be that of another process.
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            if watcher is not None:
                os.kill(watcher[0], signal.SIGKILL)
                os.waitpid(watcher[0], 0)
                os.close(watcher[1])
            child.wait()

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # The lock --------------------------------------------------------------------------------------------------------

    def _hold_lock(self, timeout_s: float) -> None:
        """Wait until nobody else measures on this board, of whatever user and whatever host."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._lock = os.open(_LOCK, flags)
        except FileNotFoundError:
            try:
                self._lock = os.open(_LOCK, flags | os.O_CREAT | os.O_EXCL, 0o644)
                os.fchmod(self._lock, 0o644)  # whatever the umask is, other users must be able to open it
            except FileExistsError:
                self._lock = os.open(_LOCK, flags)
        deadline, told = time.monotonic() + timeout_s, False
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            if not told:
                self.channel.send({"event": "waiting"})
                told = True
            if time.monotonic() > deadline:
                self._release_lock()
                raise Refused("busy", f"another measurement did not end within {timeout_s:g} s")
            self.channel.idle(0.1)

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _tidy(self) -> None:
        """Remove what killed agents left, and files that nobody has used for a month."""
        now = time.time()
        for folder in (self.store / "runs").glob("*-*"):
            pid = folder.name.partition("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
        for path in self.files.glob("*"):
            # The absolute difference: a board without a clock of its own starts in the past.
            if abs(now - path.stat().st_mtime) > _KEEP_S:
                path.unlink()

    def serve(self) -> NoReturn:
        """Answer requests until the client is gone."""
        operations = ("hello", "probe", "have", "put", "make", "drop", "records", "run")
        while True:
            request, data = self.channel.receive()
            try:
                if request["op"] not in operations:
                    raise Refused("input", f"no such request: {request['op']!r}")
                answer = getattr(self, request["op"])(request, data)
            except Refused as error:
                answer = {"error": error.kind, "message": error.message}
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                message = f"{error.filename or request['op']}: {error.strerror or error}"
                answer = {"error": "full" if full else "failed", "message": message}
            except (zipfile.BadZipFile, ValueError, KeyError) as error:
                answer = {"error": "failed", "message": f"{type(error).__name__}: {error}"}
            reply, output = answer if isinstance(answer, tuple) else (answer, b"")
            self.channel.send(reply, output)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _watch(group: int) -> tuple[int, int]:
    """Start a process that kills a group of processes when the agent is killed and cannot do it.

    Returns:
        Its id, and the descriptor whose closing it waits for; the kernel closes it however the agent ends.
    """
    read_end, write_end = os.pipe()
    watcher = os.fork()
    if watcher:
        os.close(read_end)
        return watcher, write_end
    try:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        os.close(write_end)
        for descriptor in (0, 1, 2):  # the connection must not wait for this process
            os.close(descriptor)
        os.read(read_end, 1)
        os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)


def _end(_number: int, _frame: object) -> NoReturn:
    raise Gone


def main() -> None:
    """Serve the client at the other end of stdin and stdout."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    agent = None
    try:
        os.write(1, b"\n" + MARKER)
        agent = Agent(Channel())
        agent.serve()
    except (Gone, BrokenPipeError):
        pass
    finally:
        if agent is not None:
            agent.close()


if __name__ == "__main__":
    main()

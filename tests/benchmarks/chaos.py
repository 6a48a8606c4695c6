"""Disturb runs of the pipeline and look at what is left: `python chaos.py [ROUNDS [SEED [FAULT ...]]]`.

Each case disturbs `edgekit run` of a small project in one way: a killed parent or worker, a full disk, a stopped
process, a second run, files from the future, few descriptors, little memory, a read-only or vanished folder. Then an
undisturbed run has to finish, with the same bytes as ever, `edgekit verify` has to pass, and neither processes nor
temporary files may be left. Prints a table and one line a violation, and ends with 1 if there are any.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _helpers.support import mounts_refused, processes_with, with_mounts

from edgekit.core.environment.atomic_files import sha256_file

CONFIG = """\
variants = ["onnx:float32", "onnx:float16", "onnx:int8"]

[[models]]
path = "net.onnx"
sample = "inputs.npz"

[[reports]]
format = "json"
path = "report.json"
"""
# What an undisturbed run takes here, many times over: whatever is not done by then hangs.
PATIENCE_S = 120.0
# Every command that was disturbed may end in these ways: done, a failed check, bad input, a failed step, Ctrl-C, or as
# the signal says.
EXIT_CODES = {0, 1, 2, 3, 4, 130, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}
# Fine enough to disturb a step of some milliseconds.
_POLL_S = 0.002


class Violation(Exception):
    """What another command did wrong while the run was disturbed."""


@dataclass(frozen=True)
class Case:
    """One disturbed run.

    Attributes:
        folder: Where project and temporary folder are.
        rng: Decides when and whom.
    """

    folder: Path
    rng: random.Random

    @property
    def log(self) -> Path:
        """The log file of the disturbed run, which names each step that starts."""
        return self.folder / "run.log"

    @property
    def root(self) -> Path:
        """The project."""
        return self.folder / "project"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of all processes of this case."""
        return self.folder / "tmp"

    @property
    def marker(self) -> str:
        """The text in the environment by which the processes of this case are found."""
        return f"EDGEKIT_CHAOS={self.folder}"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "EDGEKIT_CHAOS": str(self.folder),
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "edgekit", *words, "--root", str(self.root)]

    def start(self, *, limits: Callable[[], None] | None = None, mounting: str = "") -> subprocess.Popen[str]:
        """Start the run that is to be disturbed, with limits, or with mounts of its own, which end with it."""
        command = self.command("run", "--log-file", str(self.log))
        return subprocess.Popen(
            with_mounts(f"{mounting} && exec {shlex.join(command)}") if mounting else command,
            env=self.environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limits,  # noqa: PLW1509 - this program has no threads
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command undisturbed."""
        return subprocess.run(
            self.command(*words),
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def start_some_step(self) -> subprocess.Popen[str]:
        """Start the run, and wait until one of its steps has started, and for a moment more."""
        process = self.start()
        number = self.rng.randint(1, 10)
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.log.read_text().count("] started") >= number:
                    break
            time.sleep(_POLL_S)
        time.sleep(self.rng.expovariate(10))
        return process

    def workers(self, parent: int) -> list[int]:
        return [pid for pid in processes_with(self.marker) if pid != parent]


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _signalled(case: Case, number: signal.Signals) -> subprocess.Popen[str]:
    process = case.start_some_step()
    process.send_signal(number)
    return process


def kill_parent(case: Case) -> subprocess.Popen[str]:
    return _signalled(case, signal.SIGKILL)


def kill_worker(case: Case) -> subprocess.Popen[str]:
    process = case.start_some_step()
    if workers := case.workers(process.pid):
        _kill([case.rng.choice(workers)])
    return process


def kill_all(case: Case) -> subprocess.Popen[str]:
    """As the kernel does when memory runs out, or a container is removed."""
    process = case.start_some_step()
    _kill(processes_with(case.marker))
    return process


def interrupt(case: Case) -> subprocess.Popen[str]:
    return _signalled(case, signal.SIGINT)


def terminate(case: Case) -> subprocess.Popen[str]:
    return _signalled(case, signal.SIGTERM)


def pause(case: Case) -> subprocess.Popen[str]:
    """As a laptop that is closed, or a debugger, does."""
    process = case.start_some_step()
    chosen = case.rng.choice(processes_with(case.marker) or [process.pid])
    with contextlib.suppress(ProcessLookupError):
        os.kill(chosen, signal.SIGSTOP)
        time.sleep(2)
        os.kill(chosen, signal.SIGCONT)
    return process


def second_run(case: Case) -> subprocess.Popen[str]:
    process = case.start_some_step()
    other = case.call("run")
    if other.returncode not in EXIT_CODES or "Traceback" in other.stderr:
        process.kill()
        raise Violation(f"the second run ended with {other.returncode}: {other.stderr[-300:]!r}")
    return process


def small_files(case: Case) -> subprocess.Popen[str]:
    """Let writing fail behind some size, as a quota does."""
    size = case.rng.choice((0, 100, 1_000, 3_000, 10_000))

    def limits() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return case.start(limits=limits)


def few_descriptors(case: Case) -> subprocess.Popen[str]:
    count = case.rng.choice((16, 24, 32, 48, 64))
    return case.start(limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count)))


def little_memory(case: Case) -> subprocess.Popen[str]:
    # With less, OpenBLAS (0.3.30, in numpy 2.3) retries its first allocation for ever while numpy is imported.
    size = case.rng.choice((256, 384, 512, 768)) * 2**20
    return case.start(limits=lambda: resource.setrlimit(resource.RLIMIT_DATA, (size, size)))


def full_disk(case: Case) -> subprocess.Popen[str]:
    """Run on a file system of its own that has room for some of the files."""
    size = case.rng.choice((200, 260, 320, 400))
    here, there = case.folder / "project", case.folder / "disk"
    there.mkdir()
    mounted = f"mount -t tmpfs -o size={size}k none {there} && cp -r {here}/. {there}/ && mount --bind {there} {here}"
    return case.start(mounting=mounted)


def read_only(case: Case) -> subprocess.Popen[str]:
    """Run in a project that cannot be written."""
    return case.start(mounting=f"mount --bind {case.root} {case.root} && mount -o remount,bind,ro {case.root}")


def vanished_build(case: Case) -> subprocess.Popen[str]:
    process = case.start_some_step()
    shutil.rmtree(case.root / "build", ignore_errors=True)
    return process


def damaged_record(case: Case) -> subprocess.Popen[str]:
    """Cut off a file of a finished run, as a crash of the machine does."""
    done = case.call("run")
    if done.returncode != 0:
        raise Violation(f"an undisturbed run ended with {done.returncode}: {done.stderr[-300:]!r}")
    path = case.rng.choice(
        sorted(path for path in case.root.glob("build/**/*") if path.is_file() and path.stat().st_size)
    )
    with path.open("r+b") as file:
        file.truncate(case.rng.randrange(path.stat().st_size))
    return case.start()


def clock_jump(case: Case) -> subprocess.Popen[str]:
    """Give files times of years to come and of years ago, as a wrong clock leaves them."""
    process = interrupt(case)
    process.wait(PATIENCE_S)
    for path in case.root.rglob("*"):
        when = time.time() + case.rng.choice((-1, 1)) * 10 * 365 * 86400
        with contextlib.suppress(OSError):
            os.utime(path, (when, when), follow_symlinks=False)
    return process


FAULTS: tuple[Callable[[Case], subprocess.Popen[str]], ...] = (
    kill_parent, kill_worker, kill_all, interrupt, terminate, pause, second_run, small_files, few_descriptors,
    little_memory, full_disk, read_only, vanished_build, damaged_record, clock_jump,
)  # fmt: skip


def make_model(path: Path) -> None:
    """Write a small convolutional network, the same bytes each time."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.3, (8, 1, 3, 3)), "b": rng.normal(0, 0.1, 8),
        "v": rng.normal(0, 0.1, (8 * 6 * 6, 4)), "c": rng.normal(0, 0.1, 4),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def make_project(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "edgekit.toml").write_text(CONFIG)
    make_model(root / "net.onnx")
    np.savez(root / "inputs.npz", x=np.random.default_rng(1).uniform(-1, 1, (96, 1, 8, 8)).astype(np.float32))


def digests(root: Path) -> dict[str, str]:
    """Return the digest of each file of the models and samples, and of what the manifests say."""
    found = {}
    for path in sorted(root.glob("build/**/*")):
        if path.suffix in (".onnx", ".npz") and path.is_file():
            found[str(path.relative_to(root))] = sha256_file(path)
        elif path.name == "manifest.json":
            found[str(path.relative_to(root))] = json.loads(path.read_text())["sha256"]
    return found


def violations(case: Case, process: subprocess.Popen[str], expected: dict[str, str]) -> Iterator[str]:
    """Yield what a disturbed run did wrong, and what an undisturbed one afterwards."""
    try:
        _, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        yield "the disturbed run hangs"
        return
    if mounts_refused(err):
        yield f"nothing was disturbed: {err[-300:]!r}"
    if process.returncode not in EXIT_CODES:
        yield f"exit code {process.returncode}: {err[-300:]!r}"
    if "Traceback" in err or "unexpected error" in err:
        yield f"the disturbed run ended in a traceback: {err[-400:]!r}"
    yield from _left_processes(case)
    try:
        yield from _next_run(case, expected)
    except subprocess.TimeoutExpired:
        yield "the run afterwards hangs"


def _left_processes(case: Case) -> Iterator[str]:
    deadline = time.monotonic() + 10
    while processes_with(case.marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left := processes_with(case.marker):
        yield f"{len(left)} processes are left"
        _kill(left)


def _next_run(case: Case, expected: dict[str, str]) -> Iterator[str]:
    # What killed processes have left is removed when it is a minute old: here it ages at once.
    for path in case.temporary.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    again = case.call("run")
    if again.returncode != 0:
        yield f"the run afterwards ends with {again.returncode}: {again.stderr[-300:]!r}"
        return
    actual = digests(case.root)
    if actual != expected:
        wrong = sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))
        yield f"other bytes: {', '.join(wrong)}"
    verified = case.call("verify")
    if verified.returncode != 0:
        yield f"verify ends with {verified.returncode}: {(verified.stdout + verified.stderr)[-300:]!r}"
    hidden = [path for path in case.root.rglob(".edgekit-*") if path.parent.name != "build"]
    if hidden:
        yield f"left in the project: {', '.join(str(path.relative_to(case.root)) for path in hidden)}"
    if left := sorted(path.name for path in case.temporary.iterdir()):
        yield f"left in the temporary folder: {', '.join(left)}"


def main() -> int:
    # A shell lets programs in the background ignore SIGINT, and so would everything that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chosen = [fault for fault in FAULTS if not sys.argv[3:] or fault.__name__ in sys.argv[3:]]
    if unknown := set(sys.argv[3:]) - {fault.__name__ for fault in FAULTS}:
        print(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(fault.__name__ for fault in FAULTS)}")
        return 2
    counts: dict[str, Counter[str]] = {fault.__name__: Counter() for fault in chosen}
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgekit-chaos-") as folder:
        reference = Case(Path(folder) / "reference", random.Random(seed))
        reference.temporary.mkdir(parents=True)
        make_project(reference.root)
        done = reference.call("run")
        assert done.returncode == 0, done.stderr
        expected = digests(reference.root)
        assert len(expected) > 6, expected
        for number in range(rounds):
            for fault in chosen:
                case = Case(
                    Path(folder) / f"{fault.__name__}-{number}", random.Random(f"{seed} {number} {fault.__name__}")
                )
                case.temporary.mkdir(parents=True)
                make_project(case.root)
                counts[fault.__name__]["cases"] += 1
                try:
                    process = fault(case)
                    wrong = list(violations(case, process, expected))
                    counts[fault.__name__][f"exit {process.returncode}"] += 1
                except (Violation, subprocess.TimeoutExpired) as error:
                    _kill(processes_with(case.marker))
                    wrong = [str(error)]
                counts[fault.__name__]["violations"] += bool(wrong)
                lines += [f"{fault.__name__} {number} (seed {seed}): {what}" for what in wrong]
                shutil.rmtree(case.folder, ignore_errors=True)
    print(f"{'fault':18} {'cases':>6} {'violations':>11}  ended with")
    for name, counted in counts.items():
        ends = ", ".join(f"{key} x{count}" for key, count in sorted(counted.items()) if key.startswith("exit"))
        print(f"{name:18} {counted['cases']:6d} {counted['violations']:11d}  {ends}")
    print(f"{sum(counted['cases'] for counted in counts.values())} cases, {len(lines)} violations")
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

"""Cells of the zoo: sources exported to variants, validated, and judged, in a process with limits.

`python -m _helpers.zoo.cells FOLDER SECONDS` reads keys of cells from stdin, one JSON list a line, and writes the cells
to stdout. Its session keeps edgekit's workers, so that a framework is imported once for many small networks.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from _helpers.support import processes_with
from _helpers.zoo.reasons import standing_reason

TARGETS = ("tflite", "onnx", "torchscript", "lite-interpreter", "executorch")
PRECISIONS = ("float32", "int8")
EQUAL, REFUSED, DRIFT, FAULT = "equal", "refused", "drift", "fault"
Key = tuple[str, str, str]
"""A source, a target and a precision."""
# Largest error of a float32 file on inputs that edgekit never saw, relative to the output's largest value.
_FLOAT_ERROR = 2e-3
_POLL_S = 0.5
_TESTS = Path(__file__).parents[2]
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cell:
    """What became of one source at one variant.

    Attributes:
        source: The source's name.
        target: The target.
        precision: The precision.
        verdict: `equal`; `refused` with a reason that stands; `drift`, where `validate` says that an int8 file is not
            equivalent; or `fault`.
        reason: The sentence behind it.
        cpu_s: CPU seconds of export and validation, workers included; imports count in the first cell that needs them.
        peak_bytes: The largest sum of the proportional set sizes of all processes.
        size_bytes: The size of the model files.
        error: The largest error on the held inputs, relative to the output's largest value.
        sqnr_db: The SQNR on the held inputs.
    """

    source: str
    target: str
    precision: str
    verdict: str
    reason: str = ""
    cpu_s: float = 0.0
    peak_bytes: int = 0
    size_bytes: int = 0
    error: float | None = None
    sqnr_db: float | None = None

    @property
    def key(self) -> Key:
        """The source and the variant."""
        return self.source, self.target, self.precision

    def line(self) -> str:
        """Return the cell as one line of JSON."""
        return json.dumps(asdict(self))


def run_cells(keys: Sequence[Key], folder: Path, timeout_s: float, memory_bytes: int) -> Iterator[Cell]:
    """Run cells in a process of their own; where it exceeds a limit or dies, that cell is a fault.

    Args:
        keys: The cells.
        folder: The folder of the sources' folders.
        timeout_s: Time limit of one step of edgekit; a cell may take four times as long.
        memory_bytes: Limit of the sum of the proportional set sizes of all processes.

    Yields:
        The cells in the order of the keys.
    """
    left = list(keys)
    while left:
        for cell in _run_until_death(tuple(left), folder, timeout_s, memory_bytes):
            left.remove(cell.key)
            yield cell


def _run_until_death(keys: Sequence[Key], folder: Path, timeout_s: float, memory_bytes: int) -> Iterator[Cell]:
    marker = f"EDGEKIT_ZOO={os.getpid()}-{time.monotonic_ns()}"
    environment = {**os.environ, "EDGEKIT_ZOO": marker.partition("=")[2], "PYTHONPATH": str(_TESTS)}
    command = [sys.executable, "-m", "_helpers.zoo.cells", str(folder), str(timeout_s)]
    with (folder / "stderr.txt").open("w+") as stderr, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(process.stdout, answers), daemon=True).start()
        exceeded = ""
        try:
            for key in keys:
                before, started, peak, exceeded = _cpu_s(marker), time.monotonic(), 0, ""
                process.stdin.write(json.dumps(key) + "\n")
                process.stdin.flush()
                answer = ""
                while not answer and process.poll() is None and not exceeded:
                    with contextlib.suppress(queue.Empty):
                        answer = answers.get(timeout=_POLL_S)
                    peak = max(peak, sum(map(_pss_bytes, processes_with(marker))))
                    if time.monotonic() - started > 4 * timeout_s:
                        exceeded = f"it took more than {4 * timeout_s:.0f} s"
                    elif peak > memory_bytes:
                        exceeded = f"it took more than {memory_bytes / 1e9:.0f} GB"
                spent: dict[str, Any] = {"cpu_s": round(_cpu_s(marker) - before, 1), "peak_bytes": peak}
                if answer:
                    yield replace(Cell(**json.loads(answer)), **spent)
                    continue
                reason = exceeded or f"the process ended with {process.poll()}: {_last_line(stderr)}"
                yield Cell(*key, FAULT, reason, peak_bytes=peak)
                return
        finally:
            process.stdin.close()
            if process.poll() is None and exceeded:
                for pid in processes_with(marker):
                    os.kill(pid, signal.SIGKILL)


def _forward(stdout: Iterable[str], answers: queue.SimpleQueue[str]) -> None:
    """Pass on the lines that are cells, and not what a framework prints."""
    for line in stdout:
        if line.startswith("{"):
            answers.put(line)


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def _cpu_s(marker: str) -> float:
    """Return the CPU seconds of the marked processes, and of those children that have ended."""
    total = 0
    for pid in processes_with(marker):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / _TICKS_PER_S


def _last_line(stderr: Any) -> str:
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def prepare(source: str, folder: Path) -> None:
    """Write a source's files in a process of its own, unless they are there.

    Raises:
        RuntimeError: The source cannot be built.
    """
    if (folder / "arguments.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "_helpers.zoo.catalog", source, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(_TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the source cannot be built: {(done.stderr.strip().splitlines() or ['?'])[-1][:300]}")


def judge(session: Any, key: Key, folder: Path) -> Cell:
    """Export, validate and judge a source at one variant; the artifact is removed afterwards."""
    from edgekit.core.errors import EdgekitError, InputError, StepFailed

    source, target, precision = key
    try:
        prepare(source, folder)
    except RuntimeError as error:
        return Cell(*key, FAULT, str(error))
    arguments = json.loads((folder / "arguments.json").read_text())
    for name in ("sample", "weights"):
        if name in arguments:
            arguments[name] = str(folder / arguments[name])
    model = str(folder / arguments.pop("model"))
    try:
        (artifact,) = session.export(model, target=f"{target}:{precision}", name="net", root=folder, **arguments)
    except EdgekitError as error:
        stands = isinstance(error, (InputError, StepFailed)) and standing_reason(str(error))
        return Cell(*key, REFUSED if stands else FAULT, f"{type(error).__name__}: {error}"[:500])
    size = sum(file.size for file in artifact.manifest.files)
    try:
        return replace(
            _compared(key, folder, artifact, lambda: session.validate(artifact, root=folder)), size_bytes=size
        )
    finally:
        shutil.rmtree(artifact.folder)


def _compared(key: Key, folder: Path, artifact: Any, validate: Callable[[], Any]) -> Cell:
    from _helpers.zoo.held import distance

    try:
        (validation,) = validate()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault of the cell
        return Cell(*key, FAULT, f"validate: {type(error).__name__}: {error}"[:500])
    try:
        error, level = distance(artifact.folder, folder / "held.npz")
    except Exception as problem:  # noqa: BLE001 - likewise
        return Cell(*key, FAULT, f"on the held inputs: {type(problem).__name__}: {problem}"[:500])
    verdict, reason = EQUAL, ""
    if not validation.passed:
        verdict = DRIFT if key[2] == "int8" else FAULT
        reason = f"validate: {'; '.join(validation.failures)}"[:500]
    elif key[2] == "float32" and error > _FLOAT_ERROR:
        verdict, reason = FAULT, f"validate passed a file that is {error:.2g} off"
    return Cell(*key, verdict, reason, error=error, sqnr_db=level)


def _main(folder: Path, timeout_s: float) -> None:
    from edgekit.session import Session

    with Session(folder, timeout_s=timeout_s) as session:
        for line in sys.stdin:
            source, target, precision = json.loads(line)
            print(judge(session, (source, target, precision), folder / source).line(), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]))

"""The measuring process: one artifact, one runtime, and nothing else.

`python -m edgekit.runtimes._runner REQUEST.json RESULT.json [READY_FD GO_FD]`. Needs the standard library, numpy,
`edgekit.core` and the one runtime, so that the same code runs on this host, under an emulator and on a board. The
request's `mode` says what is asked for: `measure` times, `count` and `count_each` mark where a counting emulator is to
look, `infer` answers samples, `as_run` writes the model as the runtime runs it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import RUNTIMES, Runtime, Session
from edgekit.core.errors import EdgekitError
from edgekit.core.numerics import batching, timing
from edgekit.core.numerics.affine_quantization import to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.timing import NS_PER_MS, Distribution
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.specs import Signature

PATIENCE = 2
"""So many times as long as it has to be, a measurement may take while its median is not sure."""

MARK, _NO_MARK = -4242, -4241
"""File descriptors that nobody has: closing the first is what a counting emulator waits for."""

STEADY = 16
"""So many calls of a small model pass before it is counted, and so many of a part of one are counted."""

COUNTED = 4 * STEADY
"""So many calls of a small model are counted: the shortest of them is one that nothing else came on top of."""

_WARM_UP_CPU_NS = 10**9
"""Of a large one there are fewer: they end after so much time."""


class Memory:
    """Peak resident memory above a baseline, from /proc (Linux); None elsewhere.

    `ru_maxrss` would not do: a process inherits its parent's. Writing 5 to clear_refs sets VmHWM back to VmRSS.
    """

    def __init__(self) -> None:
        self._baseline = self._reset()

    @staticmethod
    def _status(key: str) -> int | None:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)

    def _reset(self) -> int | None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return None
        return self._status("VmRSS")

    def peak_bytes(self) -> int | None:
        """The peak since the last call (or the start) above the baseline."""
        peak = self._status("VmHWM")
        above = None if self._baseline is None or peak is None else max(0, peak - self._baseline)
        if self._baseline is not None:
            self._reset()
        return above


def _raw_inputs(session: Session, samples: dict[str, Array]) -> dict[str, Array]:
    """The first call that the samples are good for, as the model's own tensors."""
    first = next(batching.iter_batches(session.signature, samples))
    pairs = zip(session.signature.inputs, first, strict=True)
    return {spec.name: np.ascontiguousarray(to_tensor(array, spec)) for spec, array in pairs}


def _runtime(request: dict[str, Any]) -> Runtime:
    return RUNTIMES.load(request["runtime"])


def preload(name: str) -> None:
    """Loads a runtime's library, for a process that is copied for each request."""
    _runtime({"runtime": name}).load_library()


def _samples(request: dict[str, Any]) -> dict[str, Array]:
    with np.load(request["samples"], allow_pickle=False) as archive:
        return {name[6:]: archive[name] for name in archive.files if name.startswith("input/")}


def _signature(request: dict[str, Any]) -> Signature | None:
    return Signature.from_dict(request["signature"]) if request.get("signature") else None


def _open(runtime: Runtime, request: dict[str, Any]) -> Session:
    return runtime.open(Path(request["file"]), threads=request["threads"], signature=_signature(request))


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Opens the artifact, runs it, and returns figures in ms and bytes."""
    runtime, samples = _runtime(request), _samples(request)
    gc.disable()  # it would look through a library's objects again and again while they are made
    runtime.load_library()
    gc.freeze()
    gc.enable()
    _wait(request)
    memory = Memory()
    opened: list[Session] = []
    load = timing.timed(lambda: opened.append(_open(runtime, request)))
    load_peak = memory.peak_bytes()
    session = opened[0]
    call = session.bind(_raw_inputs(session, samples))
    first = timing.timed(call)
    warm_up_runs = timing.warm_up(call, max_seconds=request["warm_up_max_s"])
    run_peak = memory.peak_bytes()  # before the timed runs, whose record takes memory itself
    least_s = request["min_duration_s"]
    walls, cpus = timing.measure(
        call, min_seconds=least_s, max_seconds=PATIENCE * least_s, min_runs=request["min_runs"]
    )
    operators = _profile(runtime, request, session, samples) if request.get("per_op") and runtime.profiles else ()
    return {
        "operators": [asdict(item) for item in operators],
        "load_ms": load.wall_ns / NS_PER_MS,
        "first_inference_ms": first.wall_ns / NS_PER_MS,
        "warm_up_runs": warm_up_runs,
        "wall": asdict(Distribution.of(walls)),
        "cpu": asdict(Distribution.of(cpus)),
        "peak_memory_load_bytes": load_peak,
        "peak_memory_run_bytes": run_peak,
        "cpus": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": request["threads"],
    }


def _wait(request: dict[str, Any]) -> None:
    """Says that the library is loaded, waits for its turn, and takes the cores that it is measured on."""
    if "turn" in request:
        ready, go = request["turn"]
        os.write(ready, b"1")
        os.read(go, 1)
    if request.get("cpus") and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may forbid it; the figure then says what it ran on
            os.sched_setaffinity(0, request["cpus"])


def _profile(
    runtime: Runtime, request: dict[str, Any], session: Session, samples: dict[str, Array]
) -> tuple[OperatorCost, ...]:
    inputs = _raw_inputs(session, samples)
    runs, threads = request["min_runs"], request["threads"]
    return runtime.profile(Path(request["file"]), inputs, threads=threads, runs=runs, signature=_signature(request))


def _mark(number: int = MARK) -> None:
    """Tells a counting emulator "here" by a system call that fails and does nothing else."""
    with contextlib.suppress(OSError):
        os.close(number)


def _marked(call: Callable[[], object], runs: int, number: int = MARK) -> None:
    """The calls, and a mark after each."""
    for _ in range(runs):
        call()
        _mark(number)


def _nothing() -> None:
    """What is called to find out what calling costs."""


def count(request: dict[str, Any]) -> dict[str, Any]:
    """Marks a moment when the library is loaded, and after the warm-up each of so many calls of nothing, whose cost is
    that of the calling, and each of as many inferences. Says how many.

    The first inference prepares what later ones keep, so that it is no measure of them.
    """
    runtime, samples = _runtime(request), _samples(request)
    runtime.load_library()
    gc.collect()
    _mark()
    return {"runs": _count(*_warmed(runtime, request, samples, COUNTED))}


def _warmed(
    runtime: Runtime, request: dict[str, Any], samples: dict[str, Array], of_small: int
) -> tuple[Callable[[], object], int]:
    """The inference, after as many as it takes until calling it costs the same every time; and how many to count,
    `of_small` where it is that of a small model.

    Python 3.11 writes the code of a function anew at its eighth call and for some calls more, thousands of
    instructions each time. They are nothing beside a large model's millions, whose inference takes seconds here.
    """
    session = _open(runtime, request)
    call = session.bind(_raw_inputs(session, samples))
    spent_ns = 0
    for done in range(1, STEADY + 1):
        spent_ns += timing.timed(call).cpu_ns
        if spent_ns > _WARM_UP_CPU_NS and done >= request["warm_up_runs"]:
            return call, request["runs"]
    return call, max(of_small, request["runs"])


def _count(call: Callable[[], object], runs: int) -> int:
    """A mark, one after each of so many calls of nothing, and one after each of as many inferences."""
    gc.collect()
    gc.disable()
    _marked(_nothing, 2 * STEADY, _NO_MARK)
    _mark()
    _marked(_nothing, runs)
    _marked(call, runs)
    gc.enable()
    return runs


def count_each(request: dict[str, Any]) -> dict[str, Any]:
    """The marks of `count` after the warm-up for each of the request's `files`; says how many inferences of each, 0
    where the runtime does not take it."""
    runtime, samples = _runtime(request), _samples(request)
    runtime.load_library()
    counted = []
    for file in request["files"]:
        try:
            warmed = _warmed(runtime, {**request, "file": file}, samples, STEADY)
        except (EdgekitError, RuntimeError, ValueError):  # a part of a model need not be a model
            counted.append(0)
            continue
        counted.append(_count(*warmed))
    return {"runs": counted}


def as_run(request: dict[str, Any]) -> dict[str, Any]:
    """The model as the runtime runs it, and where it is."""
    return {"file": str(_runtime(request).save_optimized_model(Path(request["file"]), Path(request["to"])))}


def infer(request: dict[str, Any]) -> dict[str, Any]:
    """Answers all samples: real values, by output, written to the request's `outputs` (.npz)."""
    outputs = _open(_runtime(request), request).infer(_samples(request))
    arrays: dict[str, Any] = {f"output/{name}": array for name, array in outputs.items()}
    np.savez(request["outputs"], **arrays)
    return {"outputs": sorted(outputs)}


_MODES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "measure": measure,
    "count": count,
    "count_each": count_each,
    "infer": infer,
    "as_run": as_run,
}


def main() -> None:
    """Reads the request, writes the result in one step."""
    request_path, result_path = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.loads(request_path.read_text())
    if sys.argv[3:]:
        request["turn"] = tuple(map(int, sys.argv[3:5]))
    result = _MODES[request.get("mode", "measure")](request)
    partial = result_path.with_suffix(".partial")
    partial.write_text(json.dumps(result, allow_nan=False))
    partial.rename(result_path)
    if "turn" in request:  # others wait for theirs: taking a library apart in good order takes a third of a second
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

"""The runner: a process that loads one model with one runtime, and measures it or runs samples through it.

`python -m edgekit.runtimes._runner REQUEST.json RESULT.json [READY_FD GO_FD]`. It needs the standard library, numpy,
`edgekit.core` and the one runtime, so that the same code runs on this host, under an emulator and on a board.

The request's `mode` selects the work: `measure` times inferences, `count` and `count_each` mark the calls that a
counting emulator evaluates, `infer` runs samples, and `save_optimized_model` writes the model as the runtime
optimizes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import RUNTIMES, Runtime, RuntimeSession
from edgekit.core.errors import EdgekitError
from edgekit.core.numerics import batching, timing
from edgekit.core.numerics.affine_quantization import to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.timing import NS_PER_MS, Distribution
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.specs import Signature

# A measurement may take this many times its minimum duration as long as its median is uncertain.
PATIENCE = 2

# Invalid file descriptors; the counting plugin recognizes an attempt to close the first one as a mark.
MARK, _NO_MARK = -4242, -4241
# By the same means it is told to start, and by a second argument where a library is loaded.
START = -4243
# The number of the system call `close` on arm64: Linux, include/uapi/asm-generic/unistd.h.
_CLOSE = 57

# Warm-up calls of a small model, and counted calls of a part of a model: Python 3.11 specializes the bytecode of a
# function at its eighth call and during some calls after it.
STEADY = 16

# Counted calls of a small model: enough that the cheapest of them contains nothing but the inference.
COUNTED = 4 * STEADY

# CPU time after which the warm-up of a large model ends early.
_WARM_UP_CPU_NS = 10**9


class Memory:
    """Peak resident memory above a baseline, from /proc (Linux); None elsewhere.

    `ru_maxrss` is not usable: a process inherits it from its parent. Writing 5 to clear_refs resets VmHWM to VmRSS.
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
        """Return the peak in bytes above the baseline since the last call, or since the start; None without /proc."""
        peak = self._status("VmHWM")
        above = None if self._baseline is None or peak is None else max(0, peak - self._baseline)
        if self._baseline is not None:
            self._reset()
        return above


def _raw_inputs(session: RuntimeSession, samples: dict[str, Array]) -> dict[str, Array]:
    """The raw tensors of the first call that the samples allow."""
    first = next(batching.iter_batches(session.signature, samples))
    pairs = zip(session.signature.inputs, first, strict=True)
    return {spec.name: batching.contiguous(to_tensor(array, spec)) for spec, array in pairs}


def _runtime(request: dict[str, Any]) -> Runtime:
    return RUNTIMES.load(request["runtime"])


def preload(name: str) -> None:
    """Load a runtime's library in a process that is forked for each request.

    Args:
        name: The runtime's name.
    """
    _runtime({"runtime": name}).load_library()


def _samples(request: dict[str, Any]) -> dict[str, Array]:
    with np.load(request["samples"], allow_pickle=False) as archive:
        return {name[6:]: archive[name] for name in archive.files if name.startswith("input/")}


def _signature(request: dict[str, Any]) -> Signature | None:
    return Signature.from_dict(request["signature"]) if request.get("signature") else None


def _open(runtime: Runtime, request: dict[str, Any]) -> RuntimeSession:
    return runtime.open(Path(request["file"]), threads=request["threads"], signature=_signature(request))


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Load the model and measure its inferences.

    Args:
        request: The request, as `contracts.runner.measure_request` builds it.

    Returns:
        The latencies in ms, the peaks of memory in bytes, and the cores and threads of the measurement.
    """
    runtime, samples = _runtime(request), _samples(request)
    gc.disable()  # repeated collections while a library creates its objects cost time
    runtime.load_library()
    gc.freeze()
    gc.enable()
    runtime.check(Path(request["file"]))
    _wait(request)
    memory = Memory()
    opened: list[RuntimeSession] = []
    load = timing.timed(lambda: opened.append(_open(runtime, request)))
    load_peak = memory.peak_bytes()
    session = opened[0]
    call = session.bind(_raw_inputs(session, samples))
    first = timing.timed(call)
    warm_up_runs = timing.warm_up(call, max_seconds=request["warm_up_max_s"])
    run_peak = memory.peak_bytes()  # before the timed runs, since their record takes memory as well
    min_seconds = request["min_duration_s"]
    walls, cpus = timing.measure(
        call, min_seconds=min_seconds, max_seconds=PATIENCE * min_seconds, min_runs=request["min_runs"]
    )
    operators = _profile(runtime, request, session, samples) if request.get("per_op") and runtime.profiles else ()
    return {
        "operators": [asdict(operator) for operator in operators],
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
    """Report that the library is loaded, wait for the start signal, and pin the process to its cores."""
    if "turn" in request:
        ready, release = request["turn"]
        os.write(ready, b"1")
        os.read(release, 1)
    if request.get("cpus") and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may forbid it; the result lists the cores in any case
            os.sched_setaffinity(0, request["cpus"])


def _profile(
    runtime: Runtime, request: dict[str, Any], session: RuntimeSession, samples: dict[str, Array]
) -> tuple[OperatorCost, ...]:
    inputs = _raw_inputs(session, samples)
    runs, threads = request["min_runs"], request["threads"]
    return runtime.profile(Path(request["file"]), inputs, threads=threads, runs=runs, signature=_signature(request))


def _mark(number: int = MARK) -> None:
    """Send a mark to the counting emulator, by a system call that fails without side effects."""
    with contextlib.suppress(OSError):
        os.close(number)


def _start_counting(library: str | None) -> None:
    """Let the counting emulator start, by a system call that fails without side effects.

    Args:
        library: The file name of the library whose thread pool it observes, or None.
    """
    maps = Path("/proc/self/maps").read_text().splitlines() if library else []
    starts = [int(line.split("-")[0], 16) for line in maps if line.endswith(f"/{library}")]
    ctypes.CDLL(None).syscall(*map(ctypes.c_long, (_CLOSE, START, min(starts, default=0))))


def _marked(call: Callable[[], object], runs: int, number: int = MARK) -> None:
    """Call repeatedly and send a mark after each call."""
    for _ in range(runs):
        call()
        _mark(number)


def _nothing() -> None:
    """Empty function whose count is the overhead of a call."""


def count(request: dict[str, Any]) -> dict[str, Any]:
    """Mark inferences for the counting emulator.

    The first mark is sent when the library is loaded. After the warm-up, there is a mark after each of N calls of an
    empty function, which count the overhead of a call, and after each of N inferences.

    Args:
        request: The request.

    Returns:
        N as `runs`.
    """
    runtime, samples = _runtime(request), _samples(request)
    runtime.load_library()
    _start_counting(request.get("observed_library"))
    gc.collect()
    _mark()
    return {"runs": _count(*_warm_up(runtime, request, samples, COUNTED))}


def _warm_up(
    runtime: Runtime, request: dict[str, Any], samples: dict[str, Array], small_model_runs: int
) -> tuple[Callable[[], object], int]:
    """Run inferences until each costs the same; return the call, and how many to count.

    Python 3.11 rewrites the bytecode of a function at its eighth call and in some later ones, which costs thousands of
    instructions. That is negligible beside the millions of a large model, whose emulated inference takes seconds.
    """
    session = _open(runtime, request)
    call = session.bind(_raw_inputs(session, samples))
    spent_ns = 0
    for done in range(1, STEADY + 1):
        spent_ns += timing.timed(call).cpu_ns
        if spent_ns > _WARM_UP_CPU_NS and done >= request["warm_up_runs"]:
            return call, request["runs"]
    return call, max(small_model_runs, request["runs"])


def _count(call: Callable[[], object], runs: int) -> int:
    """Send a mark, one after each of `runs` empty calls, and one after each of `runs` inferences."""
    gc.collect()
    gc.disable()
    _marked(_nothing, 2 * STEADY, _NO_MARK)
    _mark()
    _marked(_nothing, runs)
    _marked(call, runs)
    gc.enable()
    return runs


def count_each(request: dict[str, Any]) -> dict[str, Any]:
    """Mark inferences of several files for the counting emulator.

    Args:
        request: The request, with the paths in `files`.

    Returns:
        The number of marked inferences of each file as `runs`; 0 for a file that the runtime cannot load.
    """
    runtime, samples = _runtime(request), _samples(request)
    runtime.load_library()
    _start_counting(request.get("observed_library"))
    counted = []
    for file in request["files"]:
        try:
            warmed_up = _warm_up(runtime, {**request, "file": file}, samples, STEADY)
        except (EdgekitError, RuntimeError, ValueError):  # a part of a model is not always a valid model
            counted.append(0)
            continue
        counted.append(_count(*warmed_up))
    return {"runs": counted}


def save_optimized_model(request: dict[str, Any]) -> dict[str, Any]:
    """Write the model as the runtime optimizes it.

    Args:
        request: The request, with the path to write in `to`.

    Returns:
        The written file, or the model's own, as `file`.
    """
    return {"file": str(_runtime(request).save_optimized_model(Path(request["file"]), Path(request["to"])))}


def infer(request: dict[str, Any]) -> dict[str, Any]:
    """Run all samples and write the real values by output name to the request's `outputs` (.npz).

    Args:
        request: The request, as `contracts.runner.infer_request` builds it.

    Returns:
        The names of the outputs as `outputs`.
    """
    outputs = _open(_runtime(request), request).infer(_samples(request), request.get("batch", 1))
    arrays: dict[str, Any] = {f"output/{name}": array for name, array in outputs.items()}
    np.savez(request["outputs"], **arrays)
    return {"outputs": sorted(outputs)}


_MODES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "measure": measure,
    "count": count,
    "count_each": count_each,
    "infer": infer,
    "save_optimized_model": save_optimized_model,
}


def main() -> None:
    """Execute the request of the first argument and write the result to the second one, atomically."""
    request_path, result_path = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.loads(request_path.read_text())
    if sys.argv[3:]:
        request["turn"] = tuple(map(int, sys.argv[3:5]))
    result = _MODES[request.get("mode", "measure")](request)
    partial = result_path.with_suffix(".partial")
    partial.write_text(json.dumps(result, allow_nan=False))
    partial.rename(result_path)
    if "turn" in request:  # others wait for the lock, and an orderly shutdown of a library takes 0.3 s
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

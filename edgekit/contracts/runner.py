"""The files that executors exchange with the runner, the process that measures one model or runs it on samples.

The runner is `python -m edgekit.runtimes._runner REQUEST.json RESULT.json`. It needs only the standard library, numpy,
`edgekit` and the runtime, so that the same code runs on this host, under an emulator and on a board. An executor writes
the request, starts the runner on its device, and reads the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.executor import BenchRequest, BenchResult, ModelFiles
from edgekit.core.environment.atomic_files import mapped_write_errors, to_json
from edgekit.core.errors import StepFailed
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.timing import Distribution
from edgekit.core.records.operator_costs import OperatorCost

# A name and no import: the module runs in its own process only.
RUNNER_MODULE = "edgekit.runtimes._runner"


def runner_arguments(request: Path, result: Path) -> tuple[str, ...]:
    """Return the arguments for a Python interpreter that start the runner.

    Args:
        request: The path of the request, as the device sees it.
        result: The path of the result to write, as the device sees it.

    Returns:
        The arguments without the interpreter.
    """
    return ("-m", RUNNER_MODULE, str(request), str(result))


def measure_request(
    model: ModelFiles, request: BenchRequest, threads: int, cpus: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the runner's request to measure a model.

    Args:
        model: The files of the model; the runner opens the main file and the npz file of samples.
        request: The parameters of the measurement; its `threads` and `timeout_s` are not used.
        threads: The number of threads.
        cpus: The numbers of the cores to pin the process to; None for no pinning.

    Returns:
        The request as JSON values.
    """
    return {
        "mode": "measure",
        "runtime": model.runtime,
        "file": str(model.path),
        "samples": str(model.samples),
        "signature": asdict(model.signature),
        "threads": threads,
        "cpus": None if cpus is None else list(cpus),
        "min_duration_s": request.min_duration_s,
        "min_runs": request.min_runs,
        "warm_up_max_s": request.warm_up_max_s,
        "per_op": request.per_operator,
    }


def infer_request(model: ModelFiles, samples: Path, outputs: Path, threads: int = 1) -> dict[str, Any]:
    """Return the runner's request to run samples.

    Args:
        model: The files of the model.
        samples: An npz file with arrays `input/<name>` of shape (N, ...).
        outputs: The npz file to write; `read_outputs` reads it.
        threads: The number of threads.

    Returns:
        The request as JSON values.
    """
    return {
        "mode": "infer",
        "runtime": model.runtime,
        "file": str(model.path),
        "samples": str(samples),
        "outputs": str(outputs),
        "signature": asdict(model.signature),
        "threads": threads,
    }


def write_request(path: Path, request: dict[str, Any]) -> None:
    """Write a request as JSON.

    Args:
        path: The file to write.
        request: The result of `measure_request` or `infer_request`.

    Raises:
        InputError: The file cannot be written.
        DiskFull: The disk is full.
    """
    with mapped_write_errors(path):
        path.write_text(to_json(request))


def read_measurement(measured: dict[str, Any], description: str, notes: tuple[str, ...] = ()) -> BenchResult:
    """Decode the runner's result of a `measure_request`.

    Args:
        measured: The parsed RESULT.json.
        description: The machine that the model ran on, as a short phrase.
        notes: Remarks for the user.

    Returns:
        The measurement; its latency is the median wall-clock time.

    Raises:
        StepFailed: A key is missing or has the wrong type, as when the device has another version of edgekit.
    """
    try:
        wall = Distribution(**measured["wall"])
        return BenchResult(
            latency_ms=wall.p50_ms,
            threads=measured["threads"],
            description=description,
            wall=wall,
            cpu=Distribution(**measured["cpu"]),
            load_ms=measured["load_ms"],
            first_inference_ms=measured["first_inference_ms"],
            warm_up_runs=measured["warm_up_runs"],
            cpus=None if measured["cpus"] is None else tuple(measured["cpus"]),
            peak_memory_load_bytes=measured["peak_memory_load_bytes"],
            peak_memory_run_bytes=measured["peak_memory_run_bytes"],
            operators=tuple(OperatorCost(**operator) for operator in measured["operators"]),
            notes=notes,
        )
    except (KeyError, TypeError) as error:
        raise StepFailed(f"the result of {description} has a missing or mistyped key ({error})") from None


def read_outputs(path: Path) -> dict[str, Array]:
    """Read the outputs that the runner wrote for an `infer_request`.

    Args:
        path: The npz file.

    Returns:
        Real values of shape (N, ...) by output name.
    """
    with np.load(path, allow_pickle=False) as archive:
        return {name.removeprefix("output/"): archive[name] for name in archive.files}

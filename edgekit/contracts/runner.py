"""What executors say to the runner, the process that loads one model and measures it or runs it on samples.

The runner is `python -m edgekit.runtimes._runner REQUEST.json RESULT.json`. It needs the standard library, numpy,
`edgekit` and the runtime, so that the same code runs here, under an emulator and on a board. An executor writes the
request, starts the runner where it runs models, and reads the result.
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

# Named and not imported: it runs in a process of its own.
RUNNER_MODULE = "edgekit.runtimes._runner"


def runner_arguments(request: Path, result: Path) -> tuple[str, ...]:
    """Return the arguments of Python that start the runner with these files."""
    return ("-m", RUNNER_MODULE, str(request), str(result))


def measure_request(
    model: ModelFiles, request: BenchRequest, threads: int, cpus: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the runner's request to measure a model.

    Args:
        model: The model; the runner opens its main file, and takes its samples from the npz file.
        request: How to measure.
        threads: The number of threads.
        cpus: The cores to run on, or None.
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
        model: The model.
        samples: An npz file with arrays `input/<name>` of shape (N, ...).
        outputs: The npz file to write; `read_outputs` reads it.
        threads: The number of threads.
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
    """Write a request. Raises InputError or DiskFull."""
    with mapped_write_errors(path):
        path.write_text(to_json(request))


def read_measurement(measured: dict[str, Any], description: str, notes: tuple[str, ...] = ()) -> BenchResult:
    """Decode the runner's answer to `measure_request`.

    Args:
        measured: The parsed RESULT.json.
        description: The machine that it ran on, in a few words.
        notes: Remarks for the user.

    Raises:
        StepFailed: A key is missing or mistyped: the machine has another version of edgekit.
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
    """Read what the runner wrote for `infer_request`: outputs by name, shape (N, ...)."""
    with np.load(path, allow_pickle=False) as archive:
        return {name.removeprefix("output/"): archive[name] for name in archive.files}

"""Computes the cost of each operator on an emulated core from truncated copies of the model.

Runtimes fuse and delegate operators, so their time cannot be read from the model file, and time under an emulator is
meaningless. The model is therefore truncated after each operator, each prefix is run and its instructions are counted.
The difference between two consecutive prefixes is the cost of one operator. Counts are repeatable, so small
differences are significant.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekit.contracts.executor import ModelFiles
from edgekit.core.errors import StepFailed
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import Counts, CriticalPath, PrefixCounts, costs_by_operator
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.cost_models.emulated_core import Workload
from edgekit.devices.emulation import emulator, pins
from edgekit.stages.benchmark.truncate_job import TruncateRequest, list_operators, truncate
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.describe_job import FileRequest

# The disk space that the truncated files of one portion may take: all prefixes of a large model would fill the disk.
_PORTION_BYTES = 512 * 10**6


def unsupported_reason(artifact: Artifact) -> str:
    """Return why the emulated tier has no costs by operator for an artifact.

    Args:
        artifact: The artifact.

    Returns:
        The reason; empty if costs by operator are supported.
    """
    target, runtime = routes.load_target(artifact.manifest.target), artifact.manifest.runtime
    if runtime not in pins.RUNTIMES:
        return f"the emulated core does not run {runtime}"
    return "" if target.can_truncate else f"{target.title} files cannot be truncated after an operator"


def operator_costs(
    context: Context, guest: emulator.Guest, artifact: Artifact, threads: int, step: str, timeout_s: float
) -> tuple[OperatorCost, ...]:
    """Compute the cost of each operator of an artifact.

    Args:
        context: The project and its workers.
        guest: The emulated device.
        artifact: The artifact.
        threads: The number of threads.
        step: The step that events are about.
        timeout_s: The time-out of each emulated process in seconds.

    Returns:
        The operators in execution order, with their latency in ms by the device's cost model.

    Raises:
        InputError: The format cannot be truncated.
        MissingDependency: The emulation is not set up.
        StepFailed: The runtime rejects the model truncated after its last operator.
        StepError: An emulated process fails or exceeds its time-out.
    """
    with tempfile.TemporaryDirectory(prefix="operators-", dir=context.scratch()) as folder:
        target, model = artifact.manifest.target, ModelFiles.of(artifact)
        whole = emulator.save_optimized_model(
            guest, model, Path(folder, f"optimized{artifact.path.suffix}"), step, timeout_s
        )
        file = FileRequest(target, str(whole))
        environment = runtime_environment(artifact.manifest.runtime)
        operators = context.pool.call(list_operators, file, step=step, environment=environment)
        counted: list[tuple[Counts, CriticalPath] | None] = []
        for after in _portions(len(operators), whole.stat().st_size):
            with tempfile.TemporaryDirectory(dir=folder) as portion:
                request = TruncateRequest(file, after, portion)
                files = context.pool.call(truncate, request, step=step, environment=environment)
                counted += emulator.count_each(guest, model, files, threads, step, timeout_s)
    if not counted or counted[-1] is None:
        raise StepFailed(f"{step}: the runtime rejects the model truncated after its last operator", step=step)
    prefixes = [
        PrefixCounts(operator, *(entry or (None, None))) for operator, entry in zip(operators, counted, strict=True)
    ]
    return costs_by_operator(
        prefixes, lambda counts, path: emulated_core.latency_ms(guest.profile, Workload(counts, path, threads))
    )


def _portions(operators: int, size_bytes: int) -> Iterator[tuple[int, ...]]:
    """Yield the indices of operators whose truncated files fit into `_PORTION_BYTES` together."""
    files_per_portion = max(1, _PORTION_BYTES // max(1, size_bytes))
    for start in range(0, operators, files_per_portion):
        yield tuple(range(start, min(start + files_per_portion, operators)))

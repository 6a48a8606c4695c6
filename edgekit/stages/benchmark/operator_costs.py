"""What each operator of an artifact costs on the emulated core: its file cut off after one operator more at a time.

Runtimes run fused and delegated operators that their files do not show, and the time that passes under an emulator is
no measure. So the beginnings of the model are run, up to each operator, and counted: what a beginning takes more than
the one before it is the operator's. The counts repeat, so that even a small difference is one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekit.contracts.executor import ModelFiles
from edgekit.core.errors import StepFailed
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.emulated_measurement import Counts, PrefixCounts, costs_by_operator
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.emulation import emulator, pins
from edgekit.stages.benchmark.truncate_job import TruncateRequest, list_operators, truncate
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.describe_job import FileRequest

_AT_ONCE_BYTES = 512 * 10**6
"""How much the files that are cut at one time may take of the disk."""


def why_not_by_operator(artifact: Artifact) -> str:
    """Why the emulated tier cannot tell the operators of the artifact apart; empty where it can."""
    target, runtime = routes.load_target(artifact.manifest.target), artifact.manifest.runtime
    if runtime not in pins.RUNTIMES:
        return f"the emulated core does not run {runtime}"
    return "" if target.can_truncate else f"{target.title} files cannot be cut off after an operator"


def operator_costs(
    context: Context, guest: emulator.Guest, artifact: Artifact, threads: int, step: str, timeout_s: float
) -> tuple[OperatorCost, ...]:
    """The operators in the order of computation, with the cost model's milliseconds for so many threads.

    `timeout_s` is for each process that counts. Raises InputError for a format that is not cut, and like
    `emulate.count`.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-operators-") as folder:
        target, model = artifact.manifest.target, ModelFiles.of(artifact)
        whole = emulator.save_optimized_model(
            guest, model, Path(folder, f"as_run{artifact.path.suffix}"), step, timeout_s
        )
        file = FileRequest(target, str(whole))
        environment = runtime_environment(artifact.manifest.runtime)
        operators = context.pool.call(list_operators, file, step=step, environment=environment)
        counts: list[Counts | None] = []
        for after in _portions(len(operators), whole.stat().st_size):
            with tempfile.TemporaryDirectory(dir=folder) as portion:
                request = TruncateRequest(file, after, portion)
                files = context.pool.call(truncate, request, step=step, environment=environment)
                counts += emulator.count_each(guest, model, files, threads, step, timeout_s)
    if not counts or counts[-1] is None:
        raise StepFailed(f"{step}: the runtime does not take the model cut off after its last operator", step=step)
    prefixes = [PrefixCounts(operator, count) for operator, count in zip(operators, counts, strict=True)]
    return costs_by_operator(prefixes, lambda found: emulated_core.latency_ms(guest.profile, found, threads))


def _portions(operators: int, size_bytes: int) -> Iterator[tuple[int, ...]]:
    at_once = max(1, _AT_ONCE_BYTES // max(1, size_bytes))
    for start in range(0, operators, at_once):
        yield tuple(range(start, min(start + at_once, operators)))

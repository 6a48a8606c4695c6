"""Arm's Ethos-U: what its compiler Vela makes of a TFLite artifact, and the cycles that it estimates."""

from __future__ import annotations

from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact
from edgekit.stages.benchmark.npu_job import NpuFit, NpuRequest, compile_for_npu
from edgekit.stages.context import Context
from edgekit.workers.environment import Environment

# The target whose files Vela reads.
TARGET = "tflite"

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
"""Accelerator and its multiply-accumulates a cycle, as Vela calls them."""


def check_accelerator(name: str) -> None:
    """Raises InputError that lists the accelerators when it is none of them."""
    if name not in ACCELERATORS:
        raise InputError(f"there is no accelerator {name}; Vela knows: {', '.join(ACCELERATORS)}")


def npu_one(context: Context, artifact: Artifact, accelerator: str) -> NpuFit:
    """Compile an artifact for an accelerator.

    Raises:
        InputError: The artifact is damaged.
        MissingDependency: Vela is not installed.
        StepError: Vela does not accept the file.
    """
    return context.pool.call(
        compile_for_npu,
        NpuRequest(str(artifact.verified_path().resolve()), artifact.label, accelerator),
        step=f"{accelerator} {artifact.label}",
        environment=Environment.of({}),
    )


def summary(fit: NpuFit) -> str:
    """The result in a few words."""
    return f"{fit.cycles:,} cycles by Vela's estimate, {fit.on_npu:.0%} of the operators on the NPU"

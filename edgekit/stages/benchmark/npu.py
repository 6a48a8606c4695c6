"""Compiles TFLite artifacts for Arm's Ethos-U with Vela and returns its cycle estimates."""

from __future__ import annotations

import sys

from edgekit.core.errors import unknown_name
from edgekit.core.records.artifact import Artifact
from edgekit.stages.benchmark.npu_job import NpuFit, NpuRequest, compile_for_npu
from edgekit.stages.context import Context
from edgekit.workers.environment import Environment

# The target whose files Vela reads.
TARGET = "tflite"

# The accelerators that Vela supports, as it names them; the number is MACs per cycle.
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)


def check_accelerator(name: str) -> None:
    """Raise an error unless Vela supports the accelerator.

    Args:
        name: The name of the accelerator, such as `ethos-u55-128`.

    Raises:
        InputError: The accelerator is unknown; the message lists the supported ones.
    """
    if name not in ACCELERATORS:
        raise unknown_name("accelerator", name, ACCELERATORS)


def npu_one(context: Context, artifact: Artifact, accelerator: str) -> NpuFit:
    """Compile an artifact for an accelerator.

    Args:
        context: The project and its workers.
        artifact: The TFLite artifact.
        accelerator: The name of the accelerator.

    Returns:
        Vela's estimates.

    Raises:
        InputError: The artifact is damaged.
        MissingDependency: Vela is not installed.
        StepError: Vela does not accept the file.
    """
    return context.pool.call(
        compile_for_npu,
        NpuRequest(str(artifact.verified_path().resolve()), artifact.label, accelerator),
        step=f"{accelerator} {artifact.label}",
        environment=Environment(programs=(sys.executable,)),  # Vela is a program of its own
    )


def summary(fit: NpuFit) -> str:
    """Return the estimate in one line."""
    return f"{fit.cycles:,} cycles by Vela's estimate, {fit.on_npu:.0%} of the operators on the NPU"

"""Arm's Ethos-U: what its compiler Vela makes of a TFLite artifact, and the cycles that it estimates."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import Listener
from edgekit.core.records.artifact import Artifact
from edgekit.stages.context import Context
from edgekit.workers.environment import Environment

VELA = Requirement("ethosu.vela", "ethos-u-vela", "micro")

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
"""Accelerator and its multiply-accumulates a cycle, as Vela calls them."""


@dataclass(frozen=True)
class NpuLayer:
    """One operator as Vela schedules it: on the NPU, or left to the processor; its cycles and its memory in bytes."""

    name: str
    operator: str
    on_npu: bool
    cycles: int
    sram_bytes: int


@dataclass(frozen=True)
class NpuFit:
    """Vela's estimate of one inference. Nothing was measured: these are cycles of its model of the accelerator.

    `sram_bytes` and `flash_bytes` are what the compiled network takes.
    """

    artifact: str
    accelerator: str
    cycles: int
    latency_ms: float
    clock_mhz: float
    sram_bytes: int
    flash_bytes: int
    layers: tuple[NpuLayer, ...]

    @property
    def on_npu(self) -> float:
        """The share of the operators that the NPU runs, from 0 to 1."""
        return sum(layer.on_npu for layer in self.layers) / len(self.layers) if self.layers else 0.0


def check_accelerator(name: str) -> None:
    """Raises InputError that lists the accelerators when it is none of them."""
    if name not in ACCELERATORS:
        raise InputError(f"there is no accelerator {name}; Vela knows: {', '.join(ACCELERATORS)}")


def compile_for_npu(path: str, label: str, accelerator: str, *, emit: Listener) -> NpuFit:
    """Runs inside a worker: what Vela tells. Raises MissingDependency, StepFailed with its last line."""
    require((VELA,), "Ethos-U")
    with tempfile.TemporaryDirectory(prefix="edgekit-vela-") as folder:
        command = [sys.executable, "-m", "ethosu.vela", path, "--accelerator-config", accelerator]
        done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
            [*command, "--output-dir", folder, "--verbose-performance"], capture_output=True, text=True, check=False
        )
        summaries = sorted(Path(folder).glob("*_summary_*.csv"))
        if done.returncode or not summaries:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise StepFailed(f"Vela does not take {label}: {lines[-1][:200] if lines else 'no reason given'}")
        (summary,) = _rows(summaries[0])
        layers = [row for found in Path(folder).glob("*_per-layer.csv") for row in _rows(found)]
    clock = float(summary["core_clock"])
    seconds = float(summary["inference_time"])
    return NpuFit(
        artifact=label,
        accelerator=accelerator,
        cycles=round(seconds * clock),
        latency_ms=1e3 * seconds,
        clock_mhz=clock / 1e6,
        sram_bytes=round(1024 * float(summary["sram_memory_used"])),
        flash_bytes=round(
            1024 * (float(summary["off_chip_flash_memory_used"]) + float(summary["on_chip_flash_memory_used"]))
        ),
        layers=tuple(_layer(row) for row in layers),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _layer(row: dict[str, str]) -> NpuLayer:
    return NpuLayer(
        row["Name"],
        row["NNG Operator"],
        row["Target"] == "NPU",
        int(float(row["Op Cycles"])),
        int(row["Staging Usage"]),
    )


def npu_one(context: Context, artifact: Artifact, accelerator: str) -> NpuFit:
    """Raises InputError when the artifact is damaged, MissingDependency, StepError when Vela does not take it."""
    found: NpuFit = context.pool.call(
        "edgekit.stages.benchmark.npu:compile_for_npu",
        {"path": str(artifact.verified_path().resolve()), "label": artifact.label, "accelerator": accelerator},
        step=f"{accelerator} {artifact.label}",
        environment=Environment.of({}),
    )
    return found


def summary(fit: NpuFit) -> str:
    """The result in a few words."""
    return f"{fit.cycles:,} cycles by Vela's estimate, {fit.on_npu:.0%} of the operators on the NPU"

"""Compiling a TFLite file for Arm's Ethos-U with Vela; runs inside a worker."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import StepFailed
from edgekit.core.events import Listener
from edgekit.workers.job import worker_job

VELA = Requirement("ethosu.vela", "ethos-u-vela", "micro")


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


@dataclass(frozen=True)
class NpuRequest:
    """A .tflite file, absolute, what to call it, and the accelerator as Vela calls it."""

    path: str
    label: str
    accelerator: str


@worker_job
def compile_for_npu(request: NpuRequest, _emit: Listener) -> NpuFit:
    """Compile the file with Vela and return its estimates.

    Raises:
        MissingDependency: Vela is not installed.
        StepFailed: Vela does not accept the file; the message has its last line.
    """
    require((VELA,), "Ethos-U")
    with tempfile.TemporaryDirectory(prefix="edgekit-vela-") as folder:
        command = [sys.executable, "-m", "ethosu.vela", request.path, "--accelerator-config", request.accelerator]
        done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
            [*command, "--output-dir", folder, "--verbose-performance"], capture_output=True, text=True, check=False
        )
        summaries = sorted(Path(folder).glob("*_summary_*.csv"))
        if done.returncode or not summaries:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise StepFailed(f"Vela does not take {request.label}: {lines[-1][:200] if lines else 'no reason given'}")
        (summary,) = _rows(summaries[0])
        layers = [row for found in Path(folder).glob("*_per-layer.csv") for row in _rows(found)]
    clock = float(summary["core_clock"])
    seconds = float(summary["inference_time"])
    return NpuFit(
        artifact=request.label,
        accelerator=request.accelerator,
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

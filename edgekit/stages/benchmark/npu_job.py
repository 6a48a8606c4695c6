"""The worker job that compiles a TFLite file for Arm's Ethos-U with Vela."""

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
    """One operator as Vela schedules it.

    Attributes:
        name: The name of the operator's output tensor.
        operator: The type of the operator.
        on_npu: Whether it runs on the NPU; otherwise it runs on the CPU.
        cycles: The estimated cycles.
        sram_bytes: The SRAM that it needs.
    """

    name: str
    operator: str
    on_npu: bool
    cycles: int
    sram_bytes: int


@dataclass(frozen=True)
class NpuFit:
    """Vela's estimate of one inference, from its model of the accelerator rather than a measurement.

    Attributes:
        artifact: The label of the artifact.
        accelerator: The name of the accelerator.
        cycles: The estimated cycles.
        latency_ms: The estimated latency.
        clock_mhz: The clock that the estimate assumes.
        sram_bytes: The SRAM that the compiled network needs.
        flash_bytes: The flash that the compiled network needs.
        layers: The operators in the order of Vela's report.
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
    """A file to compile.

    Attributes:
        path: The .tflite file, absolute.
        label: The artifact's name in messages.
        accelerator: The accelerator, as Vela names it.
    """

    path: str
    label: str
    accelerator: str


@worker_job
def compile_for_npu(request: NpuRequest, _emit: Listener) -> NpuFit:
    """Compile a file with Vela.

    Args:
        request: The file and the accelerator.

    Returns:
        Vela's estimates.

    Raises:
        MissingDependency: Vela is not installed.
        StepFailed: Vela does not accept the file; the message contains the last line of its output.
    """
    require((VELA,), "Ethos-U")
    with tempfile.TemporaryDirectory(prefix="edgekit-vela-") as folder:
        command = [sys.executable, "-m", "ethosu.vela", request.path, "--accelerator-config", request.accelerator]
        process = subprocess.run(  # noqa: S603 - our own interpreter, no shell
            [*command, "--output-dir", folder, "--verbose-performance"], capture_output=True, text=True, check=False
        )
        summaries = sorted(Path(folder).glob("*_summary_*.csv"))
        if process.returncode or not summaries:
            lines = [line for line in (process.stderr or process.stdout).splitlines() if line.strip()]
            raise StepFailed(f"Vela rejects {request.label}: {lines[-1][:200] if lines else 'it prints no reason'}")
        (summary,) = _read_csv(summaries[0])
        layers = [row for path in Path(folder).glob("*_per-layer.csv") for row in _read_csv(path)]
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
        layers=tuple(_parse_layer(row) for row in layers),
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _parse_layer(row: dict[str, str]) -> NpuLayer:
    return NpuLayer(
        row["Name"],
        row["NNG Operator"],
        row["Target"] == "NPU",
        int(float(row["Op Cycles"])),
        int(row["Staging Usage"]),
    )

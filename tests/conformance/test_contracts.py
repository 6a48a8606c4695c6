"""edgekit's own plug-ins keep the contracts that other packages' plug-ins are tested with."""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.emulation import DEVICE, needs_emulator
from _helpers.sample_reports import mixed_report

from edgekit.config.device_profile import load_profile
from edgekit.contracts.executor import EXECUTORS, Place
from edgekit.contracts.report import REPORTS
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS
from edgekit.core.environment.project import open_project
from edgekit.testing.contract import ExecutorContract, ReportContract, RuntimeContract, TargetContract


class TestOnnx(TargetContract):
    target = TARGETS.load("onnx")


class TestOnnxRuntime(RuntimeContract):
    runtime = RUNTIMES.load("onnxruntime")


@pytest.mark.slow
class TestTflite(TargetContract):
    """Whose files two runtimes run: LiteRT, and the interpreter of microcontrollers."""

    target = TARGETS.load("tflite")


@pytest.mark.slow
class TestTfliteMicro(RuntimeContract):
    runtime = RUNTIMES.load("tflite-micro")


class TestHost(ExecutorContract):
    executor = EXECUTORS.load("host")


@needs_emulator
@pytest.mark.slow
class TestEmulated(ExecutorContract):
    executor = EXECUTORS.load("emulated")

    @pytest.fixture
    def place(self) -> Place:
        return Place(DEVICE, load_profile(open_project(Path()).device_file(DEVICE)))


@pytest.mark.parametrize("name", REPORTS.names())
class TestReports(ReportContract):
    @pytest.fixture(autouse=True)
    def _of_that_name(self, name, monkeypatch):
        monkeypatch.setattr(type(self), "report_format", REPORTS.load(name), raising=False)

    @pytest.fixture
    def report(self):
        return mixed_report()

"""edgekit's own plug-ins keep the contracts that other packages' plug-ins are tested with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from _helpers.browsers import needs_browser, set_up_packages
from _helpers.emulation import DEVICE, needs_emulator
from _helpers.sample_reports import mixed_report
from _helpers.support import call

from edgekit.config.device_profile import load_profile
from edgekit.contracts.executor import EXECUTORS, Place
from edgekit.contracts.report import REPORTS
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS
from edgekit.core.environment.project import open_project
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact
from edgekit.core.values.specs import Variant
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, export_plans, routes
from edgekit.stages.models.model_refs import UserModelOptions, resolve
from edgekit.testing.contract import (
    ExecutorContract,
    ReportContract,
    RuntimeContract,
    TargetContract,
    write_example_model,
)
from edgekit.workers.pool import WorkerPool


class _WarmWorkers:
    """Suites that share the workers of the session: a worker takes seconds to import a framework."""

    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls, pool: WorkerPool) -> WorkerPool:
        return pool


class TestOnnx(_WarmWorkers, TargetContract):
    target = TARGETS.load("onnx")


class TestOnnxRuntime(_WarmWorkers, RuntimeContract):
    runtime = RUNTIMES.load("onnxruntime")


class _FromKeras:
    """The example model as a Keras model: no route leads from ONNX models to SavedModels."""

    @staticmethod
    def export_example(context: Context, variant: Variant) -> Artifact:
        root = context.project.root
        if not (root / "example.keras").exists():
            code = (
                "import keras, numpy as np; i = keras.Input((8,), name='x');"
                " keras.Model(i, {'y': keras.layers.Dense(4, 'relu', kernel_initializer='ones', name='y')(i)})"
                f".save({str(root / 'example.keras')!r})"
            )
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
            subprocess.run([sys.executable, "-W", "ignore", "-c", code], env={**os.environ, **quiet}, check=True)
        _, samples = write_example_model(root)
        (selection,) = resolve(context, (str(root / "example.keras"),), None, UserModelOptions(sample=samples))
        (plan,) = export_plans.plan(selection, routes.parse_selection((str(variant),), None), targets_named=True)
        return export.export_one(context, plan, export_plans.ExportSettings())

    @pytest.fixture
    def variant(self) -> Variant:
        return Variant("saved-model", "float32")

    # Both suites are of the same artifact: a fixture of a class would be made for each.
    _exported: ClassVar[dict[Variant, tuple[Path, Artifact]]] = {}

    @pytest.fixture
    def exported(self) -> dict[Variant, tuple[Path, Artifact]]:
        return self._exported


@pytest.mark.slow
class TestSavedModel(_WarmWorkers, _FromKeras, TargetContract):
    target = TARGETS.load("saved-model")


@pytest.mark.slow
class TestTensorFlow(_WarmWorkers, _FromKeras, RuntimeContract):
    runtime = RUNTIMES.load("tensorflow")


@pytest.mark.slow
class TestTflite(_WarmWorkers, TargetContract):
    """Whose files two runtimes run: LiteRT, and the interpreter of microcontrollers."""

    target = TARGETS.load("tflite")


@pytest.mark.slow
class TestTfliteMicro(_WarmWorkers, RuntimeContract):
    runtime = RUNTIMES.load("tflite-micro")


@needs_browser
@pytest.mark.slow
class TestOnnxRuntimeWeb(_WarmWorkers, RuntimeContract):
    """One of the browser's two runtimes, which share all of their Python."""

    runtime = RUNTIMES.load("onnxruntime-web")

    @pytest.fixture(autouse=True)
    def _packages(self):
        set_up_packages()

    def test_it_can_be_measured(self, context, artifact):
        """Nowhere but in its page, which the executor's tests do."""
        with pytest.raises(InputError, match="can only be timed there; use the device chromium"):
            super().test_it_can_be_measured(context, artifact)


@needs_browser
@pytest.mark.slow
class TestBrowser(_WarmWorkers, ExecutorContract):
    executor = EXECUTORS.load("browser")

    @pytest.fixture
    def place(self) -> Place:
        set_up_packages()
        return Place("chromium")


class TestHost(_WarmWorkers, ExecutorContract):
    executor = EXECUTORS.load("host")


@needs_emulator
@pytest.mark.slow
class TestEmulated(_WarmWorkers, ExecutorContract):
    executor = EXECUTORS.load("emulated")

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        answer = call("devices", "setup", DEVICE, "--root", tmp_path)
        assert answer.code == 0, answer.err
        return Place(DEVICE, load_profile(open_project(Path()).device_file(DEVICE)))


@pytest.mark.parametrize("name", REPORTS.names())
class TestReports(ReportContract):
    @pytest.fixture(autouse=True)
    def _of_that_name(self, name, monkeypatch):
        monkeypatch.setattr(type(self), "report_format", REPORTS.load(name), raising=False)

    @pytest.fixture
    def report(self):
        return mixed_report()

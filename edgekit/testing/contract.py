"""Test suites that every plug-in inherits, edgekit's own and those of other packages.

A test module of a plug-in holds a class that inherits the suite and names the plug-in::

    from edgekit.testing.contract import TargetContract
    from my_package.my_target import TARGET

    class TestMyTarget(TargetContract):
        target = TARGET

The plug-in must be registered (its package installed with its entry points), since the suites reach it as the commands
do: by name, from worker processes. The tests convert and run a small ONNX model. A subclass may override fixtures such
as `artifact` and `place`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgekit.contracts.executor import (
    EXECUTORS,
    BenchRequest,
    ExecutionSession,
    Executor,
    InferRequest,
    ModelFiles,
    Place,
)
from edgekit.contracts.report import REPORTS, ReportFormat
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.contracts.target import TARGETS, Target
from edgekit.core.environment.project import open_project
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import EdgekitError, InputError
from edgekit.core.events import ignore
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.report import Report
from edgekit.core.values.precisions import is_precision
from edgekit.core.values.specs import HOST, Variant
from edgekit.core.values.tiers import TIER_NAMES
from edgekit.devices import infer_job
from edgekit.devices.infer_job import RunRequest
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import export, export_plans, routes
from edgekit.stages.conversion.inspect import describe
from edgekit.stages.models.model_refs import UserModelOptions, resolve
from edgekit.stages.validation.validate import validate_one
from edgekit.workers.pool import WorkerPool

# A plug-in's name is part of paths and command lines.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

# The example model is y = ReLU(x W) with W = ones(8, 4): its outputs differ between samples, as validation requires.
_SAMPLES = 8
_INPUT, _OUTPUT = 8, 4


def write_example_model(folder: Path) -> tuple[Path, Path]:
    """Write a small ONNX model and samples for it.

    Args:
        folder: The folder to write into.

    Returns:
        The path of the model (y = ReLU(x W) with a matrix of ones, (N, 8) to (N, 4)), and the path of an npz file with
        32 samples by input name.
    """
    import onnx
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [_INPUT, _OUTPUT], np.ones(_INPUT * _OUTPUT, np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Relu", ["product"], ["y"])],
        "example",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _INPUT])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", _OUTPUT])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path, samples = folder / "example.onnx", folder / "samples.npz"
    onnx.save_model(model, str(path))
    inputs = np.random.default_rng(0).standard_normal((4 * _SAMPLES, _INPUT)).astype(np.float32)
    np.savez(samples, x=inputs)
    return path, samples


class _Contract:
    """Base of the suites with worker processes, a project folder and an artifact of the example model."""

    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls) -> Iterator[WorkerPool]:
        """Return worker processes for the tests of one class."""
        with WorkerPool(timeout_s=300) as workers:
            yield workers

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return the folder of an empty project."""
        return tmp_path

    @pytest.fixture
    def context(self, root: Path, pool: WorkerPool) -> Iterator[Context]:
        """Return the context of the project with its workers."""
        context = Context(open_project(root), pool, ignore)
        yield context
        context.close()

    @pytest.fixture(scope="class")
    @classmethod
    def exported(cls) -> dict[Variant, tuple[Path, Artifact]]:
        """Return what the tests of one class have exported: by variant, the project folder and the artifact."""
        return {}

    @pytest.fixture
    def artifact(
        self,
        context: Context,
        variant: Variant,
        exported: dict[Variant, tuple[Path, Artifact]],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Artifact:
        """Return an artifact of the example model in the test's own project, a copy of one that is exported once."""
        if variant not in exported:
            first = Context(open_project(tmp_path_factory.mktemp("example")), context.pool, ignore)
            try:
                exported[variant] = (first.project.root, self.export_example(first, variant))
            finally:
                first.close()
        root, artifact = exported[variant]
        shutil.copytree(root, context.project.root, symlinks=True, dirs_exist_ok=True)
        return dataclasses.replace(artifact, folder=context.project.root / artifact.folder.relative_to(root))

    @staticmethod
    def export_example(context: Context, variant: Variant) -> Artifact:
        """Export the example model.

        Args:
            context: The context of an empty project.
            variant: The target and precision.

        Returns:
            The artifact.

        Raises:
            EdgekitError: The export failed.
        """
        path, samples = write_example_model(context.project.root)
        (selection,) = resolve(context, (str(path),), None, UserModelOptions(sample=samples))
        targets = routes.parse_selection((str(variant),), None)
        (plan,) = export_plans.plan(selection, targets, targets_named=True)
        return export.export_one(context, plan, export_plans.ExportSettings())


def _check_requirements(requirements: tuple[Requirement, ...]) -> None:
    for requirement in requirements:
        assert isinstance(requirement, Requirement)
        assert requirement.purpose, f"{requirement.distribution} does not say what it adds"
        assert requirement.install_command.startswith("pip install ") or requirement.install


def _assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


class TargetContract(_Contract):
    """Test suite of a target; a subclass sets `target`.

    Attributes:
        target: The target under test.
    """

    target: ClassVar[Target]

    @pytest.fixture
    def variant(self) -> Variant:
        """Return the variant that the tests export: the target's first precision that an ONNX model reaches."""
        precisions = routes.routes_by_precision("onnx", self.target, routes.edges())
        assert precisions, f"no route leads from an ONNX model to {self.target.name}: override the fixture `artifact`"
        return Variant(self.target.name, next(iter(precisions)))

    def test_it_is_registered_under_its_name(self) -> None:
        assert _NAME.fullmatch(self.target.name)
        assert TARGETS.load(self.target.name) is self.target

    def test_it_declares_what_it_converts_and_what_that_needs(self) -> None:
        target = self.target
        assert target.title
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in target.suffixes)
        assert target.routes
        assert set(target.requires) == set(target.routes)
        for precisions in target.routes.values():
            assert precisions
            assert all(map(is_precision, precisions))
        assert target.on_request <= {*target.precisions}
        for requirements in (*target.requires.values(), target.reads_with):
            _check_requirements(requirements)

    def test_its_default_runtime_runs_its_files(self) -> None:
        runtimes = routes.runtimes_of(self.target.name)
        assert runtimes[0] == self.target.runtime
        assert self.target.name in RUNTIMES.load(self.target.runtime).targets

    def test_an_artifact_is_complete(self, artifact: Artifact) -> None:
        loaded = load_artifact(artifact.folder)
        assert loaded.manifest == artifact.manifest
        assert loaded.verified_path().suffix == self.target.suffixes[0]
        assert loaded.manifest.file == self.target.file_name
        files = {str(path.relative_to(artifact.folder)) for path in artifact.folder.rglob("*") if path.is_file()}
        listed = {file.path for file in loaded.manifest.files}
        assert files == listed | {"manifest.json", "golden.npz"}

    def test_an_artifact_computes_what_its_source_computes(self, context: Context, artifact: Artifact) -> None:
        for runtime in routes.runtimes_of(self.target.name):
            if RUNTIMES.load(runtime).in_browser:  # not every machine has one
                continue
            validation = validate_one(context, artifact, runtime=runtime)
            assert validation.passed, f"{runtime}: {validation.failures}"
            assert validation.runtime == runtime

    def test_the_same_export_gives_the_same_bytes(self, context: Context, artifact: Artifact) -> None:
        again = self.export_example(context, artifact.manifest.variant)
        if again.manifest.reproducible:
            assert again.manifest.files == artifact.manifest.files
        else:
            assert again.manifest.not_reproducible_because

    def test_a_file_is_described(self, context: Context, artifact: Artifact) -> None:
        description = describe(context, self.target.name, artifact.path, "describe")
        assert description.format
        assert description.parameters is None or description.parameters >= 0
        assert description.weight_bytes >= 0
        assert sum(operator.count for operator in description.ops) > 0

    @pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a model"], ids=["empty", "zeros", "text"])
    def test_a_file_of_another_format_is_refused_in_one_sentence(
        self, context: Context, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / f"damaged{self.target.suffixes[0]}"
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            describe(context, self.target.name, path, "describe")
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


class RuntimeContract(_Contract):
    """Test suite of a runtime; a subclass sets `runtime`.

    Attributes:
        runtime: The runtime under test.
    """

    runtime: ClassVar[Runtime]

    @pytest.fixture
    def variant(self) -> Variant:
        """Return the runtime's first target, at the first precision that an ONNX model reaches."""
        target = TARGETS.load(self.runtime.targets[0])
        precisions = routes.routes_by_precision("onnx", target, routes.edges())
        assert precisions, f"no route leads from an ONNX model to {target.name}: override the fixture `artifact`"
        return Variant(target.name, next(iter(precisions)))

    def infer(self, context: Context, artifact: Artifact, inputs: Mapping[str, Array], path: Path | None = None) -> Any:
        """Run samples in a worker.

        Args:
            context: The context of the project.
            artifact: The artifact.
            inputs: Real values of shape (N, ...) by input name.
            path: Another file to run in place of the artifact's.

        Returns:
            Real values of shape (N, ...) by output name.

        Raises:
            EdgekitError: The file cannot be opened, or the inputs do not fit.
        """
        request = RunRequest(
            self.runtime.name, str(path or artifact.path.resolve()), artifact.manifest.signature, inputs
        )
        environment = runtime_environment(self.runtime.name)
        return context.pool.call(infer_job.run_model, request, step="infer", environment=environment)

    def test_it_is_registered_under_its_name(self) -> None:
        assert _NAME.fullmatch(self.runtime.name)
        assert RUNTIMES.load(self.runtime.name) is self.runtime
        assert self.runtime.title

    def test_it_declares_whose_files_it_runs_and_what_it_needs(self) -> None:
        assert self.runtime.targets
        for target in self.runtime.targets:
            assert self.runtime.name in routes.runtimes_of(target)
        _check_requirements(self.runtime.requires)
        _check_requirements(self.runtime.code_size_requires)

    def test_it_computes_the_golden_samples(self, context: Context, artifact: Artifact) -> None:
        golden = artifact.golden()
        outputs = self.infer(context, artifact, golden.inputs)
        assert list(outputs) == [spec.name for spec in artifact.manifest.signature.outputs]
        for name, expected in golden.outputs.items():
            assert outputs[name].shape == expected.shape
            _assert_close(outputs[name], expected, 0.1)

    def test_each_sample_is_computed_by_itself(self, context: Context, artifact: Artifact) -> None:
        inputs = {name: array[:3] for name, array in artifact.golden().inputs.items()}
        batched = self.infer(context, artifact, inputs)
        for index in range(3):
            single = self.infer(context, artifact, {name: array[index : index + 1] for name, array in inputs.items()})
            for name, array in single.items():
                _assert_close(array[0], batched[name][index], 1e-5)

    def test_inputs_of_another_name_are_refused(self, context: Context, artifact: Artifact) -> None:
        inputs = {f"no_{name}": array for name, array in artifact.golden().inputs.items()}
        with pytest.raises(InputError, match="the model takes the inputs"):
            self.infer(context, artifact, inputs)

    def test_a_damaged_file_is_one_error_and_no_crash(
        self, context: Context, artifact: Artifact, tmp_path: Path
    ) -> None:
        for size in (0, 64):
            path = tmp_path / f"damaged{artifact.path.suffix}"
            path.write_bytes(artifact.path.read_bytes()[:size])
            with pytest.raises(EdgekitError) as caught:
                self.infer(context, artifact, artifact.golden().inputs, path)
            assert len(str(caught.value).splitlines()) == 1

    def test_it_can_be_measured(self, context: Context, artifact: Artifact) -> None:
        session = ExecutionSession("measure", context.pool)
        request = BenchRequest(min_duration_s=0.0, min_runs=2, warm_up_max_s=0.1)
        model = ModelFiles.of(artifact, self.runtime.name)
        with EXECUTORS.load(HOST).prepare(session, model, Place(HOST), request) as prepared:
            result = prepared.run()
        assert result.wall is not None
        assert result.wall.count >= 2
        assert result.latency_ms > 0


class ExecutorContract(_Contract):
    """Test suite of an executor; a subclass sets `executor`, and overrides `place` if it needs a device.

    Attributes:
        executor: The executor under test.
    """

    executor: ClassVar[Executor]

    @pytest.fixture
    def place(self) -> Place:
        """Return the device that the executor runs the model on."""
        return Place(HOST)

    @pytest.fixture
    def variant(self) -> Variant:
        """Return the variant that the tests run: a float32 ONNX model."""
        return Variant("onnx", "float32")

    @pytest.fixture
    def model(self, artifact: Artifact) -> ModelFiles:
        """Return the files of the artifact."""
        return ModelFiles.of(artifact)

    @pytest.fixture
    def session(self, context: Context) -> ExecutionSession:
        """Return the environment of the executor's calls."""
        return ExecutionSession("execute", context.pool)

    @pytest.fixture
    def request_to_bench(self) -> BenchRequest:
        """Return the parameters of a short measurement."""
        return BenchRequest(min_duration_s=0.0, min_runs=2, warm_up_max_s=0.1, timeout_s=300.0)

    def test_it_is_registered_under_its_name(self) -> None:
        assert _NAME.fullmatch(self.executor.name)
        assert EXECUTORS.load(self.executor.name) is self.executor
        assert self.executor.title
        assert self.executor.tier in TIER_NAMES
        _check_requirements(self.executor.requires)

    def test_it_runs_the_model_at_the_place(self, model: ModelFiles, place: Place) -> None:
        assert self.executor.refusal(model.runtime, place) == ""

    def test_it_measures(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request_to_bench: BenchRequest
    ) -> None:
        with self.executor.prepare(session, model, place, request_to_bench) as prepared:
            result = prepared.run()
        assert math.isfinite(result.latency_ms)
        assert result.latency_ms > 0
        assert result.threads >= 1
        assert result.description
        if result.low_ms is not None and result.high_ms is not None:
            assert result.low_ms <= result.latency_ms <= result.high_ms
        assert (self.executor.tier == "emulated") == (result.emulated is not None)

    def test_a_model_that_is_prepared_need_not_be_measured(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request_to_bench: BenchRequest
    ) -> None:
        with self.executor.prepare(session, model, place, request_to_bench):
            pass

    def test_it_computes_what_this_host_computes(
        self, session: ExecutionSession, model: ModelFiles, place: Place, artifact: Artifact
    ) -> None:
        golden = artifact.golden()
        outputs = self.executor.infer(session, model, place, InferRequest(golden.inputs)).outputs
        assert set(outputs) == set(golden.outputs)
        for name, expected in golden.outputs.items():
            _assert_close(outputs[name], expected, 1e-4)


class ReportContract:
    """Test suite of a report format; a subclass sets `report_format`.

    Attributes:
        report_format: The format under test.
    """

    report_format: ClassVar[ReportFormat]

    @pytest.fixture
    def report(self) -> Report:
        """Return the report to render; override it with one that has rows."""
        return Report("0.0.0", "a host", (), (), {})

    def test_it_is_registered_under_its_name(self) -> None:
        assert re.fullmatch(r"[a-z0-9-]+", self.report_format.name)
        assert REPORTS.load(self.report_format.name) is self.report_format
        assert self.report_format.suffix.startswith(".")

    def test_it_renders_text_that_ends_with_a_line_feed(self, report: Report) -> None:
        text = self.report_format.render(report)
        assert text.endswith("\n")
        assert text == self.report_format.render(report)

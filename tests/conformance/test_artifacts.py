"""Every target and runtime through the same suite, on the models of the shared project: adding one adds its tests."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from _helpers.support import SHARED_MODELS

from edgekit.contracts.runtime import RUNTIMES as PLUGINS
from edgekit.contracts.runtime import Runtime
from edgekit.core.environment import plugin_registry
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import load_validation
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.specs import Variant
from edgekit.devices.infer_job import RunRequest, run_model
from edgekit.stages.benchmark.bench import BenchOptions, bench_one
from edgekit.stages.context import Context, runtime_environment
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.export import export_one
from edgekit.stages.conversion.export_plans import ExportPlan, ExportSettings
from edgekit.stages.conversion.inspect import describe

CASES = [
    pytest.param(model, kind, variant, id=f"{model}-{kind}-{variant}")
    for model in SHARED_MODELS
    for kind, variant, _ in routes.select_variants(
        ("keras", "torch"), routes.parse_selection((), None), kinds_named=False, targets_named=False
    )
]
# Those that are exported only where they are named have no artifacts in the project.
TARGETS = [name for name, target in routes.targets().items() if not target.only_named]
# Those of a browser have tests of their own: they are timed inside a page, and not in a process of the runner.
# TensorFlow's SavedModels are exported only where they are named, so the project has none: see test_contracts.py.
RUNTIMES = [name for name, plugin in PLUGINS.load_all().items() if not plugin.in_browser and name != "tensorflow"]
# Runtimes that run what is another runtime's on this host.
OTHERS = {"tflite-micro": Variant("tflite", "float32")}

# Networks of one epoch, judged on golden samples: these limits are about conversion, not training.
LIMITS = {"float32": 1e-5, "float16": 1e-2}


def artifact_of(context: Context, model: str, kind: str, variant: Variant) -> Artifact:
    return load_artifact(context.project.artifact_folder(model, kind, variant.slug))


@pytest.mark.parametrize(("model", "kind", "variant"), CASES)
class TestArtifact:
    def test_is_complete_and_says_how_it_came_to_be(
        self, context: Context, model: str, kind: str, variant: Variant
    ) -> None:
        artifact = artifact_of(context, model, kind, variant)
        manifest = artifact.manifest
        source = load_source(context.project.source_folder(model, kind))
        results = {"flips.npz"}  # a validation of barely trained weights leaves some
        names = {path.name for path in artifact.folder.iterdir() if path.suffix != ".json"}
        assert names - results == {"golden.npz", manifest.file}
        assert artifact.verified_path().stat().st_size == manifest.size_bytes
        assert manifest.source["sha256"] == source.sha256
        assert manifest.route[0] == kind
        assert manifest.route[-1] == variant.target
        assert manifest.versions
        assert manifest.golden["samples"] == 64
        assert (manifest.calibration is not None) == (
            variant.precision in routes.load_target(variant.target).calibrated
        )
        for side in ("inputs", "outputs"):
            wanted = [spec.name for spec in getattr(source.signature, side)]
            assert [spec.name for spec in getattr(manifest.signature, side)] == wanted

    def test_holds_no_path_of_this_machine(self, context: Context, model: str, kind: str, variant: Variant) -> None:
        artifact = artifact_of(context, model, kind, variant)
        for path in (artifact.path, artifact.folder / "manifest.json"):
            content = path.read_bytes()
            assert str(Path(__file__).parents[2]).encode() not in content
            assert str(context.project.root).encode() not in content

    def test_computes_what_its_source_computes(self, context: Context, model: str, kind: str, variant: Variant) -> None:
        artifact = artifact_of(context, model, kind, variant)
        validation = load_validation(artifact.folder / "validation.json")
        (comparison,) = validation.comparisons
        assert comparison.passed, comparison.failures
        assert comparison.samples == 64
        limit = LIMITS.get(variant.precision)
        if limit is not None:
            error = comparison.value("max_abs_error")
            assert error is not None
            assert error <= limit
        else:
            floor = find_precision(variant.precision).tolerances.min_sqnr_db
            figure = comparison.value("sqnr_db")
            assert floor is not None
            assert figure is None or figure >= floor

    def test_cut_off_after_any_operator_it_still_runs(
        self, context: Context, model: str, kind: str, variant: Variant, tmp_path: Path
    ) -> None:
        """And after the last one it is the whole."""
        target = routes.load_target(variant.target)
        if not target.can_truncate:
            pytest.skip(f"{target.title} files are not cut")
        artifact = artifact_of(context, model, kind, variant)
        operators = target.operators(artifact.path)
        files = target.truncate_after(artifact.path, range(len(operators)), tmp_path)
        runtime: Runtime = plugin_registry.load("edgekit.runtimes", target.runtime, "RUNTIME")
        samples = {name: array[:1] for name, array in artifact.golden().inputs.items()}
        whole = list(runtime.open(artifact.path, threads=1).infer(samples).values())
        for file in files:
            outputs = runtime.open(file, threads=1).infer(samples)
            assert outputs
        for expected, found in zip(whole, outputs.values(), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_is_what_its_precision_promises(self, context: Context, model: str, kind: str, variant: Variant) -> None:
        artifact = artifact_of(context, model, kind, variant)
        found = describe(context, variant.target, artifact.path, "describe")
        if variant.target == "executorch":  # its weights are in the delegate's own format
            assert any(op.name == "delegate XnnpackBackend" for op in found.ops)
            return
        source = load_source(context.project.source_folder(model, kind))
        assert found.parameters == source.parameters
        bytes_a_parameter = found.weight_bytes / found.parameters
        if model == "simple_cnn":  # a network of two weights has more scales than weights
            expected = {"float32": 4.0, "float16": 2.0, "int4": 0.5}.get(variant.precision, 1.0)
            assert bytes_a_parameter == pytest.approx(expected, rel=0.02)
            assert found.macs == 541_440
        assert (found.quantized_tensors > 0) == (variant.precision not in ("float32", "float16")) or model == "linear"


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_a_second_export_gives_the_same_bytes_or_says_why_not(context: Context, tmp_path: Path, target: str) -> None:
    """In workers that have meanwhile converted other things, in another order: names and counters of the process must
    not show, and what variants share must not either."""
    plugin = routes.load_target(target)
    # Precisions that are made on request are not in the shared project: both files of them are made here.
    before, again = (
        dataclasses.replace(context, project=type(context.project)(tmp_path / name), failures=[])
        for name in ("before", "again")
    )
    for kind in ("keras", "torch"):
        for copy in (before, again):
            shutil.copytree(
                context.project.source_folder("simple_cnn", kind), copy.project.source_folder("simple_cnn", kind)
            )
        for precision, found in reversed(routes.routes_by_precision(kind, plugin, routes.edges()).items()):
            plan = ExportPlan("simple_cnn", kind, Variant(target, precision), found)
            if precision in plugin.default_precisions:
                first = artifact_of(context, "simple_cnn", kind, plan.variant)
            else:
                first = export_one(before, plan, ExportSettings())
            second = export_one(again, plan, ExportSettings())
            same = sha256_file(first.path) == sha256_file(second.path)
            assert same == second.manifest.reproducible
            assert same or second.manifest.not_reproducible_because


@pytest.mark.parametrize("runtime", RUNTIMES)
class TestRuntime:
    def first(self, context: Context, runtime: str) -> Artifact:
        if runtime in OTHERS:
            artifact = artifact_of(context, "simple_cnn", "keras", OTHERS[runtime])
            return dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, runtime=runtime))
        folders = context.project.artifact_folders()
        return next(
            artifact
            for artifact in map(load_artifact, folders)
            if artifact.manifest.runtime == runtime and artifact.manifest.model == "simple_cnn"
        )

    def infer(self, context: Context, artifact: Artifact, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        runtime = artifact.manifest.runtime
        request = RunRequest(runtime, str(artifact.path), artifact.manifest.signature, inputs)
        return context.pool.call(run_model, request, step="infer", environment=runtime_environment(runtime))

    def test_every_sample_is_computed_by_itself(self, context: Context, runtime: str) -> None:
        """The answer for a sample does not depend on its neighbours, nor on how many there are."""
        artifact = self.first(context, runtime)
        images = artifact.golden().inputs["image"]
        together = self.infer(context, artifact, {"image": images[:5]})["probabilities"]
        alone = np.concatenate(
            [self.infer(context, artifact, {"image": images[i : i + 1]})["probabilities"] for i in range(5)]
        )
        np.testing.assert_allclose(together, alone, atol=1e-6)

    def test_inputs_that_do_not_fit_are_refused(self, context: Context, runtime: str) -> None:
        artifact = self.first(context, runtime)
        images = artifact.golden().inputs["image"]
        with pytest.raises(InputError, match="the model takes the inputs image; it was given picture"):
            self.infer(context, artifact, {"picture": images})
        with pytest.raises(InputError, match="input image is int32 where the model takes"):
            self.infer(context, artifact, {"image": images.astype(np.int32)})
        with pytest.raises(InputError, match="input image has the shape"):
            self.infer(context, artifact, {"image": images[:, :, :-1]})

    def test_a_file_that_is_none_is_refused(self, context: Context, runtime: str, tmp_path: Path) -> None:
        artifact = self.first(context, runtime)
        path = tmp_path / artifact.manifest.file
        path.write_bytes(artifact.path.read_bytes()[:400])
        broken = dataclasses.replace(artifact, folder=tmp_path)
        with pytest.raises(InputError, match="cannot load this file"):
            self.infer(context, broken, dict(artifact.golden().inputs))

    def test_is_measured_in_a_process_of_its_own(self, context: Context, runtime: str, tmp_path: Path) -> None:
        import shutil

        artifact = self.first(context, runtime)
        copy = dataclasses.replace(artifact, folder=Path(shutil.copytree(artifact.folder, tmp_path / "copy")))
        measured = bench_one(context, copy, "host", None, BenchOptions(min_duration_s=0.0, min_runs=15, per_op=True))
        assert measured.wall.count >= 15
        assert measured.threads == 1
        assert measured.cpus is not None
        assert len(measured.cpus) == 1
        assert 0 < measured.wall.min_ms <= measured.wall.p50_ms <= measured.wall.max_ms
        assert measured.cpu.p50_ms > 0
        assert measured.load_ms > 0
        assert measured.peak_memory_bytes is not None
        assert 100_000 < measured.peak_memory_bytes < 200_000_000
        plugin: Runtime = plugin_registry.load("edgekit.runtimes", runtime, "RUNTIME")
        assert bool(measured.operators) == plugin.profiles != any("by operator" in note for note in measured.notes)
        assert all(item.latency_ms >= 0 for item in measured.operators)
        if plugin.profiles:
            assert any("conv" in item.kind.lower() for item in measured.operators)
            # A profiler costs time itself: the sum need not be the whole.
            assert measured.wall.min_ms / 3 < sum(item.latency_ms for item in measured.operators)


def test_a_bridged_keras_model_reads_as_if_it_had_been_written_in_pytorch(context: Context) -> None:
    """No casts, no permuted weights, linear where Keras multiplies and adds: what quantizers and delegates look for."""
    artifact = artifact_of(context, "simple_cnn", "keras", Variant("torchscript", "float32"))
    ops = {op.name: op.count for op in describe(context, "torchscript", artifact.path, "describe").ops}
    assert ops["aten::linear"] == 2
    assert ops["aten::permute"] == 2
    assert not {"aten::to", "aten::matmul", "aten::add", "aten::contiguous"} & set(ops)


def test_executorch_says_which_operators_its_delegate_took(context: Context) -> None:
    for kind in ("keras", "torch"):
        options = artifact_of(context, "simple_cnn", kind, Variant("executorch", "float32")).manifest.options
        assert options["delegated"]["aten_linear_default"] == 2
        assert options["delegated"]["aten_convolution_default"] == 1
        assert "aten_linear_default" not in options["not_delegated"]


def test_the_quantizer_takes_the_whole_range_of_the_calibration_samples(context: Context) -> None:
    """A moving average of each sample's extremes would clip: about 20 dB where the whole range gives 40."""
    artifact = artifact_of(context, "simple_cnn", "torch", Variant("tflite", "int8"))
    (comparison,) = load_validation(artifact.folder / "validation.json").comparisons
    figure = comparison.value("sqnr_db")
    assert figure is not None
    assert figure > 30

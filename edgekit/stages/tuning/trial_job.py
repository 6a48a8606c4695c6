"""The worker jobs of a precision search: convert the float file once, then quantize and run one recipe at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS, ConversionRequest, QuantizableLayer, SupportedForms, Target
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records import samples
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.preprocessing import in_float
from edgekit.core.values.quantization_form import USUAL_FORM
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature
from edgekit.stages.conversion.convert_job import ConvertRequest, prepare_conversion
from edgekit.stages.conversion.pixels import PixelForm, pixel_form, with_pixels
from edgekit.workers.job import worker_job

# Trials compare outputs, not latencies, so one thread suffices.
THREADS = 1


@dataclass(frozen=True)
class FloatBase:
    """The float file that recipes start from.

    Attributes:
        path: The file, absolute.
        layers: The layers that recipes can name.
        signature: The signature of the source model.
    """

    path: str
    layers: tuple[QuantizableLayer, ...]
    signature: Signature


@dataclass(frozen=True)
class Trial:
    """A recipe to try.

    Attributes:
        base: The float file.
        recipe: The recipe.
        source_folder: The folder of the source model, absolute.
        folder: The folder of the quantized file, absolute; it is overwritten by each trial.
        cache_folder: The folder of intermediate results that trials share, absolute.
        tests: The number of test samples to run; None for all.
    """

    base: FloatBase
    recipe: Recipe
    source_folder: str
    folder: str
    cache_folder: str
    tests: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """A quantized file and its outputs.

    Attributes:
        size_bytes: The size of the file.
        sha256: The digest of the file.
        golden: The outputs by name for the golden samples.
        test: The outputs by name for the test samples; None if there are none.
    """

    size_bytes: int
    sha256: str
    golden: Mapping[str, Array]
    test: Mapping[str, Array] | None


# Hundreds of trials in one worker use the same samples, so each file is read once per process.
_samples_cache: dict[tuple[str, str], Samples] = {}


def _load_samples(folder: str, file: str) -> Samples | None:
    """Return the samples in a file of the source model, or None if there is no such file."""
    key = (folder, file)
    if not Path(folder, file).is_file():
        return None
    if key not in _samples_cache:
        _samples_cache[key] = samples.load(Path(folder, file), "samples")
    return _samples_cache[key]


@dataclass(frozen=True)
class ArtifactRun:
    """A model file to run on the samples of the source model.

    Attributes:
        runtime: The name of the runtime.
        path: The model file, absolute.
        signature: The signature of the file.
        source_folder: The folder of the source model, absolute.
        tests: The number of test samples to run; None for all.
    """

    runtime: str
    path: str
    signature: Signature
    source_folder: str
    tests: int | None = None


@worker_job
def make_float_base(request: ConvertRequest, _emit: Listener) -> FloatBase:
    """Convert the float file; runs in the environment of the source or the bridge.

    Args:
        request: The conversion.

    Returns:
        The float file in the request's folder.
    """
    target, loaded, job = prepare_conversion(request)
    path = target.float_base(loaded, job)
    return FloatBase(str(path), target.layers(path), loaded.signature)


@worker_job
def run_artifact(request: ArtifactRun, _emit: Listener) -> TrialResult:
    """Run a file on the samples of the source model; runs in the environment of its runtime.

    Args:
        request: The file and the samples.

    Returns:
        Its size and outputs.
    """
    path, source_folder, tests = Path(request.path), request.source_folder, request.tests
    session = RUNTIMES.load(request.runtime).open(path, threads=THREADS, signature=request.signature)
    golden, test = _load_samples(source_folder, GOLDEN_FILE), _load_samples(source_folder, TEST_FILE)
    assert golden is not None  # every source folder has golden samples
    test_outputs = None
    if test is not None and tests != 0:
        signature = load_source(Path(source_folder)).signature
        test_outputs = session.infer(batching.select_samples(signature, test.inputs, 0, tests))
    return TrialResult(path.stat().st_size, sha256_file(path), session.infer(golden.inputs), test_outputs)


def _pixel_form(trial: Trial, source: SourceModel, target: Target) -> PixelForm:
    """Return how the quantized file takes images, which its float file takes as bytes or as real numbers."""
    steps = source.preprocessing
    names = {item.spec.name for item in steps}
    if any(spec.dtype == "uint8" for spec in trial.base.signature.inputs if spec.name in names):
        return PixelForm(steps, USUAL_FORM)
    supported = target.forms.get(trial.recipe.precision, SupportedForms())
    return replace(pixel_form(steps, source.signature, USUAL_FORM, supported), steps=in_float(steps))


@worker_job
def run_trial(trial: Trial, emit: Listener) -> TrialResult:
    """Quantize the float file by a recipe and run the result; runs in the environment of the target's runtime.

    Args:
        trial: The recipe and the float file.
        emit: The listener for events.

    Returns:
        The size and outputs of the quantized file.
    """
    recipe = trial.recipe
    target = TARGETS.load(recipe.target)
    pool = _load_samples(trial.source_folder, CALIBRATION_FILE)
    source = load_source(Path(trial.source_folder))
    pixels = _pixel_form(trial, source, target)
    calibration = None
    if recipe.precision in target.calibrated and pool is not None:
        chosen = batching.select_samples(source.signature, pool.inputs, 0, recipe.calibration_samples)
        calibration = with_pixels(chosen, pixels.steps, full_range=True)
    job = ConversionRequest(
        recipe.precision,
        Path(trial.folder),
        calibration,
        recipe=recipe,
        cache_folder=Path(trial.cache_folder),
        form=pixels.form,
    )
    converted = target.select(Path(trial.base.path), trial.base.signature, job)
    path = Path(trial.folder, converted.file)
    request = ArtifactRun(target.runtime, str(path), converted.signature, trial.source_folder, trial.tests)
    return run_artifact(request, emit)

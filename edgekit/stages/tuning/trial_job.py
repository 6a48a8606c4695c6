"""What a precision search runs inside workers: the float file once, then one quantized file after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS, ConversionRequest, QuantizableLayer
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records import samples
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import load_source
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, TEST_FILE
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature
from edgekit.stages.conversion.convert_job import ConvertRequest, prepare_conversion
from edgekit.workers.job import worker_job

THREADS = 1


@dataclass(frozen=True)
class FloatBase:
    """A float file that recipes start from, the layers that they can name, and the source's signature."""

    path: str
    layers: tuple[QuantizableLayer, ...]
    signature: Signature


@dataclass(frozen=True)
class Trial:
    """A recipe to try. `tests` is how many test samples to run, None all of them; folders are absolute."""

    base: FloatBase
    recipe: Recipe
    source_folder: str
    folder: str
    known: str
    tests: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """A file and what it computes: outputs by name for the golden samples, and for test samples where there are any."""

    size_bytes: int
    sha256: str
    golden: Mapping[str, Array]
    test: Mapping[str, Array] | None


_read: dict[tuple[str, str], Samples] = {}


def _samples(folder: str, file: str) -> Samples | None:
    """The source's samples, read once a worker: hundreds of trials look at them."""
    key = (folder, file)
    if not Path(folder, file).is_file():
        return None
    if key not in _read:
        _read[key] = samples.load(Path(folder, file), "samples")
    return _read[key]


@dataclass(frozen=True)
class ArtifactRun:
    """A file to run on the source's samples; `tests` is how many test samples, None for all. Paths are absolute."""

    runtime: str
    path: str
    signature: Signature
    source_folder: str
    tests: int | None = None


@worker_job
def make_float_base(request: ConvertRequest, _emit: Listener) -> FloatBase:
    """Write the float file into the request's folder; in the environment of the source or the bridge."""
    target, loaded, job = prepare_conversion(request)
    path = target.float_base(loaded, job)
    return FloatBase(str(path), target.layers(path), loaded.signature)


@worker_job
def run_artifact(request: ArtifactRun, _emit: Listener) -> TrialResult:
    """Run a file on the source's samples; in the environment of its runtime."""
    path, source_folder, tests = Path(request.path), request.source_folder, request.tests
    session = RUNTIMES.load(request.runtime).open(path, threads=THREADS, signature=request.signature)
    golden, test = _samples(source_folder, GOLDEN_FILE), _samples(source_folder, TEST_FILE)
    assert golden is not None  # every source folder has some
    found = None
    if test is not None and tests != 0:
        found = session.infer(
            batching.select_samples(load_source(Path(source_folder)).signature, test.inputs, 0, tests)
        )
    return TrialResult(path.stat().st_size, sha256_file(path), session.infer(golden.inputs), found)


@worker_job
def run_trial(trial: Trial, emit: Listener) -> TrialResult:
    """Make the file that a recipe describes and run it; in the environment of the target's runtime."""
    recipe = trial.recipe
    target = TARGETS.load(recipe.target)
    pool = _samples(trial.source_folder, CALIBRATION_FILE)
    signature = load_source(Path(trial.source_folder)).signature
    chosen = None
    if recipe.precision in target.calibrated and pool is not None:
        chosen = batching.select_samples(signature, pool.inputs, 0, recipe.calibration_samples)
    job = ConversionRequest(recipe.precision, Path(trial.folder), chosen, recipe=recipe, known=Path(trial.known))
    converted = target.select(Path(trial.base.path), trial.base.signature, job)
    path = Path(trial.folder, converted.file)
    request = ArtifactRun(target.runtime, str(path), converted.signature, trial.source_folder, trial.tests)
    return run_artifact(request, emit)

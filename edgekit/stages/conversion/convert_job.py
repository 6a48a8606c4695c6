"""Conversion of a source to one variant; runs inside a worker."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.contracts.bridge import BRIDGES, Bridge
from edgekit.contracts.source import SOURCES, LoadedModel, SourceKind
from edgekit.contracts.target import TARGETS, ConversionRequest, ConversionResult, SupportedForms, Target
from edgekit.core.environment.requirements import require, versions
from edgekit.core.environment.user_code import RecordedCode
from edgekit.core.errors import InputError, MissingDependency
from edgekit.core.events import Listener
from edgekit.core.numerics import tensor_layout
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.records import samples
from edgekit.core.records.source import SourceModel
from edgekit.core.values.deployment_presets import find_preset
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.preprocessing import Preprocessing
from edgekit.core.values.quantization_form import USUAL_FORM, QuantizationForm
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature
from edgekit.stages.conversion import repair, trial_run
from edgekit.stages.conversion.explained_errors import explained_errors
from edgekit.stages.conversion.pixels import PixelForm, pixel_form, with_pixels
from edgekit.stages.conversion.preset_lint import preset_findings
from edgekit.workers.job import worker_job

_log = logging.getLogger(__name__)

# The last loaded source of this worker, by (folder, sha256, bridge, signature, preprocessing): a run exports many
# variants of it.
_loaded: dict[tuple[str, str, str | None, Signature, tuple[Preprocessing, ...]], LoadedModel] = {}


@dataclass(frozen=True)
class ConvertRequest:
    """A conversion of one source to one variant. Folders are absolute.

    Attributes:
        source_folder: The source folder.
        source: The description of the source.
        code: The code that builds the network, if the source needs it.
        target: Name of the target.
        precision: Name of the precision.
        folder: The folder to write the model file into.
        bridge: Name of the bridge between source and target, or None.
        calibration: Calibration samples by input name, shape (N, ...), for precisions that need them.
        sizes: Sizes of symbolic dimensions that become fixed, by name.
        layout: Layout of images in the artifact, `NCHW` or `NHWC`; None keeps that of the source.
        options: Values of the target's own options, by name.
        recipe: Per-layer exceptions from the precision.
        selection: Samples that ways to quantize are compared on; None for the target's default way.
        measured: Samples that ranges of channels are measured with, for a recipe that scales them.
        fixed_sizes: Whether a bridge gives all dimensions but the batch the size of the samples.
        form: The form of the file, as the user asked for it.
    """

    source_folder: str
    source: SourceModel
    code: RecordedCode | None
    target: str
    precision: str
    folder: str
    bridge: str | None = None
    calibration: Mapping[str, Array] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    layout: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None
    selection: repair.SelectionSamples | None = None
    measured: Mapping[str, Array] | None = None
    fixed_sizes: bool = False
    form: QuantizationForm = USUAL_FORM


@dataclass(frozen=True)
class ConvertAnswer:
    """The result of a conversion, and the versions of the packages that took part.

    Attributes:
        converted: The result of the target.
        versions: Distribution -> version.
        orders: The permutation of each input and output whose layout was changed.
        transposes: Number of transposes in the file, if a layout was requested.
        transposes_unmoved: Number of transposes in a file with the source's own layout, for comparison.
        findings: What of the file does not run where it is for.
    """

    converted: ConversionResult
    versions: Mapping[str, str]
    orders: Mapping[str, Permutation] = field(default_factory=dict)
    transposes: int = 0
    transposes_unmoved: int = 0
    findings: tuple[str, ...] = ()


def _load_source(request: ConvertRequest) -> tuple[LoadedModel, SourceModel]:
    """Load the source, through the bridge if there is one, or return it as it was loaded before.

    A bridge keeps symbolic dimensions if the target does and the model's graph is one for all sizes; otherwise, all but
    the batch get the size of the samples.
    """
    source = request.source
    signature = source.signature.sized(request.sizes)
    if request.bridge is None:
        return _load(request, signature), source
    fixed = signature.sized(source.sizes)
    if TARGETS.load(request.target).symbolic and not request.fixed_sizes and fixed.symbols != signature.symbols:
        try:
            return _load(request, signature), source
        except MissingDependency:
            raise
        except Exception as error:  # noqa: BLE001 - torch.export raises any class for a graph of one size only
            _log.info("source %s: not for every size by the bridge %s: %s", source.name, request.bridge, error)
    return _load(request, fixed), source


def _load(request: ConvertRequest, signature: Signature) -> LoadedModel:
    folder, bridge, source = Path(request.source_folder), request.bridge, request.source
    steps = _pixel_form(request).steps
    key = (str(folder), source.sha256, bridge, signature, steps)
    if key in _loaded:
        _log.info("source %s: used as this worker has loaded it before", source.name)
    else:
        how = f"by the bridge {bridge}" if bridge else f"as {source.kind}"
        reason = "this worker has loaded another source or size" if _loaded else "this worker has loaded none"
        _log.info("source %s: loaded %s, since %s", source.name, how, reason)
        plugin: SourceKind | Bridge = BRIDGES.load(bridge) if bridge else SOURCES.load(source.kind)
        require(plugin.requires, f"loading {source.kind} models" + (f" by the bridge {bridge}" if bridge else ""))
        _loaded.clear()
        build = None if request.code is None else request.code.call
        loaded = plugin.load(source.weights_path(folder), source.all_inputs(signature), build)
        loaded = loaded.with_fixed(source.fixed).with_preprocessing(steps)
        loaded = loaded.at(loaded.signature, source.sizes)  # a bridge may have fixed the batch
        golden = folder / GOLDEN_FILE
        if golden.is_file():
            loaded = loaded.with_examples(samples.load(golden, "golden samples").inputs)
        loaded.keep_state(source.state)  # after the examples, which may wrap the model and so rename its state
        if bridge is not None:
            trial_run.check_bridge(bridge, loaded, folder)
        _loaded[key] = loaded
    return _loaded[key]


def _pixel_form(request: ConvertRequest) -> PixelForm:
    """Return how the conversion takes images of preprocessed inputs."""
    supported = TARGETS.load(request.target).forms.get(request.precision, SupportedForms())
    source = request.source
    return pixel_form(source.preprocessing, source.signature, request.form.resolved(), supported)


def _with_pixels(request: ConvertRequest) -> ConvertRequest:
    """Return the request with samples of images in the type that the source is loaded with."""
    steps = _pixel_form(request).steps
    selection = request.selection
    return replace(
        request,
        calibration=with_pixels(request.calibration, steps, full_range=True),
        measured=with_pixels(request.measured, steps),
        selection=selection
        and replace(
            selection,
            inputs=with_pixels(selection.inputs, steps),
            measured=with_pixels(selection.measured, steps),
            calibration=with_pixels(selection.calibration, steps, full_range=True),
        ),
    )


def prepare_conversion(request: ConvertRequest) -> tuple[Target, LoadedModel, ConversionRequest]:
    """Prepare a conversion without running it.

    Args:
        request: The conversion.

    Returns:
        The target, the loaded source with the dimensions that the target supports, and the target's request.

    Raises:
        InputError: The source's files or code are invalid.
        MissingDependency: A package is not installed.
    """
    target, loaded, _, conversion = _prepare(_with_pixels(request))
    return target, loaded, conversion


def _prepare(request: ConvertRequest) -> tuple[Target, LoadedModel, LoadedModel, ConversionRequest]:
    """Return as `prepare_conversion` does for a request of `_with_pixels`, and in between the source as loaded."""
    target = TARGETS.load(request.target)
    original, source = _load_source(request)
    if request.recipe is not None and request.recipe.migration is not None:
        original = _scaled(original, request.recipe.migration, request.measured)
    signature = original.signature
    if not target.symbolic or (request.form.preset is not None and find_preset(request.form.preset).fixed_shapes):
        signature = signature.sized({**source.sizes, signature.batch or "": 1})
    folder = Path(request.folder)
    conversion = ConversionRequest(
        request.precision,
        folder,
        request.calibration,
        request.options,
        request.recipe,
        form=_pixel_form(request).form,
    )
    return target, original.at(signature, source.sizes), original, conversion


def _scaled(loaded: LoadedModel, migration: float, measured: Mapping[str, Array] | None) -> LoadedModel:
    """Return the source with its channels scaled as a recipe says."""
    scaled = None if measured is None else loaded.equalized(measured, migration)
    if scaled is None:
        reason = "there are no calibration samples" if measured is None else "no channels of this model can be scaled"
        raise InputError(f"the recipe scales channels (migration {migration:g}), but {reason}")
    return scaled


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable cyclic garbage collection.

    Converters build graphs of a million objects. Repeated collections over all of them take a fifth of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@worker_job
def convert(request: ConvertRequest, _emit: Listener) -> ConvertAnswer:
    """Convert the source into the request's folder.

    Args:
        request: The conversion.
        _emit: Receives no events.

    Raises:
        InputError: The source's files or code are invalid, or do not have what the target needs.
        MissingDependency: A package is not installed.
        StepFailed: The conversion failed.
    """
    with _without_garbage_collection():
        try:
            answer = _convert(request)
        except Exception as error:  # converters raise any class
            symbols = {*_loaded_symbols()} - {request.source.signature.batch}
            if request.bridge is None or request.fixed_sizes or not symbols or isinstance(error, MissingDependency):
                raise
            # A converter may take the bridged graph for one size, if not for all.
            _log.info("conversion for every size failed, trying that of the samples: %s", error)
            for left in Path(request.folder).iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            answer = _convert(replace(request, fixed_sizes=True))
        return replace(answer, findings=_findings(request, answer.converted))


def _loaded_symbols() -> tuple[str, ...]:
    """Return the symbolic dimensions of the source that this worker has loaded."""
    return next((model.signature.symbols for model in _loaded.values()), ())


def _findings(request: ConvertRequest, converted: ConversionResult) -> tuple[str, ...]:
    """Return what of the file does not run where it is for."""
    if request.form.preset is None:
        return ()
    description = TARGETS.load(request.target).describe(Path(request.folder) / converted.file)
    return preset_findings(find_preset(request.form.preset), description)


def _convert(request: ConvertRequest) -> ConvertAnswer:
    request = _with_pixels(request)
    target, loaded, original, conversion = _prepare(request)
    loaded.reset()  # an earlier conversion may have run it
    package_versions = versions(target.requires[loaded.kind])
    source_folder = Path(request.source_folder)
    if request.selection is not None:
        with explained_errors(target, loaded):
            best = repair.convert_best(target, original, loaded, conversion, request.selection)
            best = _with_size_note(request, target, best)
        return ConvertAnswer(trial_run.run_once(target, best, conversion, source_folder), package_versions)
    if request.layout is None:
        with explained_errors(target, loaded):
            converted = _with_size_note(request, target, target.convert(loaded, conversion))
        return ConvertAnswer(trial_run.run_once(target, converted, conversion, source_folder), package_versions)
    signature, orders = tensor_layout.relayout_signature(loaded.signature, request.layout)
    unmoved = _count_transposes_unmoved(target, loaded, conversion)
    calibration = conversion.calibration and tensor_layout.transpose_arrays(conversion.calibration, orders)
    moved = loaded.with_layout(orders, signature)
    with explained_errors(target, loaded):
        converted = target.convert(moved, replace(conversion, calibration=calibration))
    transposes = _count_transposes(target, converted, conversion.folder)
    converted = _with_size_note(request, target, converted)
    converted = trial_run.run_once(target, converted, conversion, source_folder, orders)
    return ConvertAnswer(converted, package_versions, orders, transposes, unmoved)


def _with_size_note(request: ConvertRequest, target: Target, converted: ConversionResult) -> ConversionResult:
    """Add a note if symbolic dimensions of the source became fixed without the user having asked for it."""
    source = request.source
    kept = {*request.sizes, *converted.signature.symbols, source.signature.batch}
    fixed = {name: source.sizes[name] for name in source.signature.symbols if name in source.sizes and name not in kept}
    if not fixed:
        return converted
    listed = ", ".join(f"{name}={size}" for name, size in fixed.items())
    if not target.symbolic:
        reason = f"{target.title} files have one size; export again for another"
    elif request.bridge is not None:
        reason = f"the graph of the bridge {request.bridge} is one for this size only"
    else:
        reason = "the converted graph is one for this size only"
    return replace(converted, notes=(*converted.notes, f"{listed}: fixed to the size in the samples, since {reason}"))


def _count_transposes(target: Target, converted: ConversionResult, folder: Path) -> int:
    """Return the number of operators in the file that only move data."""
    if converted.transposes is not None:
        return converted.transposes
    path = folder / converted.file
    return sum(op.count for op in target.describe(path).ops if op.name in target.transposes)


def _count_transposes_unmoved(target: Target, loaded: LoadedModel, conversion: ConversionRequest) -> int:
    """Return the number of such operators in a file with the source's own layout."""
    with tempfile.TemporaryDirectory(dir=conversion.folder) as folder:
        converted = target.convert(loaded, replace(conversion, folder=Path(folder)))
        return _count_transposes(target, converted, Path(folder))

"""Converting a source to one variant; runs inside a worker."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from edgekit.contracts.bridge import BRIDGES, Bridge
from edgekit.contracts.source import SOURCES, LoadedModel, SourceKind
from edgekit.contracts.target import TARGETS, ConversionRequest, ConversionResult, Target
from edgekit.core.environment.requirements import require, versions
from edgekit.core.environment.user_code import Factory
from edgekit.core.events import Listener
from edgekit.core.numerics import tensor_layout
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.records.source import SourceModel
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature
from edgekit.workers.job import worker_job

_loaded: dict[tuple[str, str, str | None, Signature], LoadedModel] = {}


@dataclass(frozen=True)
class ConvertRequest:
    """A conversion. Folders are absolute; `base` is what the source's code is relative to.

    `sizes` fixes symbolic dimensions by name, `layout` puts images into another one, `options` are the target's own,
    `recipe` says which layers are made otherwise.
    """

    source_folder: str
    source: SourceModel
    base: str
    target: str
    precision: str
    folder: str
    bridge: str | None = None
    calibration: Mapping[str, Array] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    layout: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None


@dataclass(frozen=True)
class ConvertAnswer:
    """What a conversion made, and the versions of its tools.

    Where a layout was asked for: the order of dimensions of each tensor that was relaid, and the transposes in the file
    and in one of the source's own layout.
    """

    converted: ConversionResult
    versions: Mapping[str, str]
    orders: Mapping[str, Permutation] = field(default_factory=dict)
    transposes: int = 0
    transposes_unmoved: int = 0


def _source(request: ConvertRequest) -> tuple[LoadedModel, SourceModel]:
    """The source, over the bridge if there is one; loaded once a worker: a run exports many variants of it."""
    folder, bridge = Path(request.source_folder), request.bridge
    source = request.source
    signature = source.signature.sized(request.sizes)
    if bridge is not None:  # a bridge keeps the batch, and carries other dimensions as the samples have them
        signature = signature.sized(source.sizes)
    key = (str(folder), source.sha256, bridge, signature)
    if key not in _loaded:
        plugin: SourceKind | Bridge = BRIDGES.load(bridge) if bridge else SOURCES.load(source.kind)
        require(plugin.requires, f"loading {source.kind} models" + (f" by the bridge {bridge}" if bridge else ""))
        _loaded.clear()
        build = None if source.code is None else partial(Factory.parse(source.code).call, Path(request.base))
        loaded = plugin.load(source.weights_path(folder), signature, build)
        _loaded[key] = loaded.at(loaded.signature, source.sizes)  # a bridge may have had to fix the batch
    return _loaded[key], source


def prepare_conversion(request: ConvertRequest) -> tuple[Target, LoadedModel, ConversionRequest]:
    """The target, the source as it takes it, and what it is asked for."""
    target = TARGETS.load(request.target)
    loaded, source = _source(request)
    signature = loaded.signature
    if not target.symbolic:
        signature = signature.sized({**source.sizes, signature.batch or "": 1})
    folder = Path(request.folder)
    job = ConversionRequest(request.precision, folder, request.calibration, request.options, request.recipe)
    return target, loaded.at(signature, source.sizes), job


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Puts off the search for garbage: converters make graphs of a million objects, and it goes through all of them
    over and over, a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@worker_job
def convert(request: ConvertRequest, _emit: Listener) -> ConvertAnswer:
    """Convert the source into the request's folder."""
    with _without_garbage_collection():
        return _convert(request)


def _convert(request: ConvertRequest) -> ConvertAnswer:
    target, loaded, job = prepare_conversion(request)
    signature = loaded.signature
    used = versions(target.requires[loaded.kind])
    if request.layout is None:
        return ConvertAnswer(target.convert(loaded, job), used)
    moved, orders = tensor_layout.relayout_signature(signature, request.layout)
    before = _transposes_unmoved(target, loaded, job)
    calibration = job.calibration and tensor_layout.transpose_arrays(job.calibration, orders)
    converted = target.convert(loaded.with_layout(orders, moved), replace(job, calibration=calibration))
    return ConvertAnswer(converted, used, orders, _transposes(target, converted, job.folder), before)


def _transposes(target: Target, converted: ConversionResult, folder: Path) -> int:
    """How many operators of the file only move data."""
    if converted.transposes is not None:
        return converted.transposes
    path = folder / converted.file
    return sum(op.count for op in target.describe(path).ops if op.name in target.transposes)


def _transposes_unmoved(target: Target, loaded: LoadedModel, job: ConversionRequest) -> int:
    """How many there would be in the source's own layout."""
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        converted = target.convert(loaded, replace(job, folder=Path(folder)))
        return _transposes(target, converted, Path(folder))

"""Opening any model file to compare it with another; runs inside a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contracts.runtime import RUNTIMES, UnknownSignature
from edgekit.contracts.source import SOURCES, LoadedModel, UserModel
from edgekit.contracts.target import TARGETS
from edgekit.core.environment.requirements import require
from edgekit.core.environment.user_code import Factory
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.rounding_error import Rounding, measure_rounding
from edgekit.core.records.source import load_source
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.models.import_job import observed_outputs
from edgekit.workers.job import worker_job


@dataclass(frozen=True)
class ModelRef:
    """A model to compare: a file of a target for its runtime, or a source of a kind, or both. Paths are absolute.

    `folder` is that of a source that edgekit has taken in or trained; `signature` is known beforehand where a manifest
    tells it.
    """

    label: str
    target: str | None = None
    runtime: str | None = None
    folder: str | None = None
    kind: str | None = None
    path: str | None = None
    code: str | None = None
    base: str = "."
    signature: Signature | None = None
    stamp: tuple[int, ...] = ()
    """Changes when the file does: a worker keeps what it has opened."""


def stamp_of(path: Path) -> tuple[int, ...]:
    """Modification time, size and inode of the file, or of the newest one in the folder."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return max(((found := item.stat()).st_mtime_ns, found.st_size, found.st_ino) for item in files) if files else ()


_KEPT = 2


@dataclass
class _Opened:
    signature: Signature
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    trace: Callable[[Mapping[str, Array]], dict[str, Array]]
    run_float64: Callable[[Mapping[str, Array]], dict[str, Array] | None] = lambda _inputs: None
    keep: tuple[Any, ...] = ()


_opened: dict[ModelRef, _Opened] = {}


@dataclass(frozen=True)
class ModelCall:
    """A model and samples for it: real values by input name, shape (N, ...)."""

    model: ModelRef
    inputs: Mapping[str, Array]


def _open(call: ModelCall) -> _Opened:
    """Open the model, or return it as it was opened before."""
    model = call.model
    if model not in _opened:
        while len(_opened) >= _KEPT:
            del _opened[next(iter(_opened))]
        opener = _open_runtime if model.runtime else _open_folder if model.folder else _open_source
        _opened[model] = opener(model, call.inputs)
    return _opened[model]


@worker_job
def read_signature(call: ModelCall, _emit: Listener) -> Signature:
    """Return the model's signature. Where its file has none, the samples in their order are its inputs.

    Raises:
        InputError: The file is damaged, or does not take such samples.
    """
    return _open(call).signature


@worker_job
def run_model(call: ModelCall, _emit: Listener) -> dict[str, Array]:
    """Return the outputs as real values by the model's own names, shape (N, ...)."""
    return _open(call).run(call.inputs)


@worker_job
def run_with_rounding(call: ModelCall, _emit: Listener) -> tuple[dict[str, Array], dict[str, Rounding]]:
    """Return the outputs of a source, and the rounding error of float32 on these samples by output."""
    opened = _open(call)
    outputs = opened.run(call.inputs)
    return outputs, measure_rounding(outputs, opened.run_float64(call.inputs))


@worker_job
def trace_model(call: ModelCall, _emit: Listener) -> dict[str, Array]:
    """Return every intermediate tensor by name in the order of computation, shape (N, 1, ...).

    Raises:
        InputError: The format does not expose its intermediates.
    """
    return _open(call).trace(call.inputs)


def _open_runtime(operand: ModelRef, samples: Mapping[str, Array]) -> _Opened:
    runtime = RUNTIMES.load(str(operand.runtime))
    path = Path(str(operand.path))
    opened = partial(runtime.open, path, threads=1)
    try:
        session = opened(signature=operand.signature)
    except UnknownSignature:
        session = opened(signature=_numbered(opened, samples))
    return _Opened(session.signature, session.infer, partial(_traced, operand, session.signature))


def _traced(operand: ModelRef, signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the runtime of the file's target computes inside."""
    target = TARGETS.load(str(operand.target))
    require(target.reads_with, f"reading {target.suffixes[0]} files")
    runtime = RUNTIMES.load(target.runtime)
    with tempfile.TemporaryDirectory(prefix="edgekit-trace-") as folder:
        return runtime.trace(target.expose_intermediates(Path(str(operand.path)), Path(folder)), inputs, signature)


def _numbered(opened: Callable[..., Any], samples: Mapping[str, Array]) -> Signature:
    """Inputs as the samples are, outputs numbered, for files that keep no names: seen by running one sample."""
    inputs = tuple(TensorSpec(name, ("batch", *array.shape[1:]), str(array.dtype)) for name, array in samples.items())
    one = [array[:1] for array in samples.values()]
    results = opened(signature=Signature(inputs, ()))._run(one)
    outputs = [
        TensorSpec(f"output_{index}", ("batch", *array.shape[1:]), str(array.dtype))
        for index, array in enumerate(results)
    ]
    return Signature(inputs, tuple(outputs))


def _open_folder(operand: ModelRef, samples: Mapping[str, Array]) -> _Opened:
    """A source as it was trained or taken in."""
    folder = Path(str(operand.folder))
    source = load_source(folder)
    kind = SOURCES.load(source.kind)
    require(kind.requires, f"loading {kind.name} models")
    build = None if source.code is None else partial(Factory.parse(source.code).call, Path(operand.base))
    loaded = kind.load(source.weights_path(folder), source.signature, build).at(source.signature, source.sizes)
    traced = partial(_traced, operand, source.signature) if operand.target else loaded.trace
    return _Opened(source.signature, loaded.run, traced, loaded.run_float64)


def _open_source(operand: ModelRef, samples: Mapping[str, Array]) -> _Opened:
    kind = SOURCES.load(str(operand.kind))
    require(kind.requires, f"loading {kind.name} models")
    build = None if operand.code is None else partial(Factory.parse(operand.code).call, Path(operand.base))
    folder = tempfile.TemporaryDirectory(prefix="edgekit-compare-")
    given = UserModel(None if operand.path is None else Path(operand.path), build, examples=samples)
    file, signature = kind.import_model(given, Path(folder.name))
    sizes = {
        dim: size
        for spec in signature.inputs
        if spec.name in samples and samples[spec.name].ndim == len(spec.shape)
        for dim, size in zip(spec.shape[1:], samples[spec.name].shape[1:], strict=True)
        if isinstance(dim, str)
    }
    loaded = kind.load(Path(folder.name, file), signature, build).at(signature, sizes)

    def ready(inputs: Mapping[str, Array]) -> LoadedModel:
        fresh = {
            dim: size
            for spec in signature.inputs
            for dim, size in zip(spec.shape[1:], inputs[spec.name].shape[1:], strict=True)
            if isinstance(dim, str)
        }
        seen = observed_outputs(loaded.at(signature, fresh), batching.select_samples(signature, inputs, 0, 1))
        return loaded.at(Signature(signature.inputs, seen), fresh)

    # A source that is a file of a target's format shows its inside by that target's runtime.
    traced = partial(_traced, operand, signature) if operand.target else lambda inputs: ready(inputs).trace(inputs)
    return _Opened(signature, lambda inputs: ready(inputs).run(inputs), traced, keep=(folder,))

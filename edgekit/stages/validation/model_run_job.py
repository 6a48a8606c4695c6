"""Opening any model file to compare it with another; runs inside a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import SOURCES, LoadedModel, UserModel
from edgekit.contracts.target import TARGETS
from edgekit.core.environment.requirements import require
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.rounding_error import Rounding, measure_rounding
from edgekit.core.records.source import load_source
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.models.import_job import observed_outputs


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


def read_signature(operand: ModelRef, inputs: Mapping[str, Array], *, emit: Listener) -> Signature:
    """The model's signature. Where its file tells none, the samples in their order are its inputs.

    Raises InputError when the file is damaged, or does not take such samples.
    """
    if operand not in _opened:
        while len(_opened) >= _KEPT:
            del _opened[next(iter(_opened))]
        opener = _open_runtime if operand.runtime else _open_folder if operand.folder else _open_source
        _opened[operand] = opener(operand, inputs)
    return _opened[operand].signature


def run(operand: ModelRef, inputs: Mapping[str, Array], *, emit: Listener) -> dict[str, Array]:
    """Real values in, real values out, by the model's own names, for samples of shape (N, ...)."""
    if operand not in _opened:
        read_signature(operand, inputs, emit=emit)
    return _opened[operand].run(inputs)


def run_exactly(
    operand: ModelRef, inputs: Mapping[str, Array], *, emit: Listener
) -> tuple[dict[str, Array], dict[str, Rounding]]:
    """Outputs of a source in a folder by name, and how far float32 moves each of them on these samples."""
    if operand not in _opened:
        read_signature(operand, inputs, emit=emit)
    outputs = _opened[operand].run(inputs)
    return outputs, measure_rounding(outputs, _opened[operand].run_float64(inputs))


def trace(operand: ModelRef, inputs: Mapping[str, Array], *, emit: Listener) -> dict[str, Array]:
    """What is computed inside, by inner tensor in the order of computation, shape (N, 1, ...).

    Raises InputError where the format does not show it.
    """
    if operand not in _opened:
        read_signature(operand, inputs, emit=emit)
    return _opened[operand].trace(inputs)


def _open_runtime(operand: ModelRef, samples: Mapping[str, Array]) -> _Opened:
    runtime = RUNTIMES.load(str(operand.runtime))
    path = Path(str(operand.path))
    opened = partial(runtime.open, path, threads=1)
    try:
        session = opened(signature=operand.signature)
    except InputError as error:
        if "does not tell its inputs" not in str(error):
            raise
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

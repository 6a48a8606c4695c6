"""Execution of any model that is compared with another one; runs inside a worker."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contracts.runtime import RUNTIMES, UnknownSignature
from edgekit.contracts.source import SOURCES, LoadedModel, UserModel
from edgekit.contracts.target import TARGETS
from edgekit.core.environment.damaged_files import damage_reported
from edgekit.core.environment.requirements import require
from edgekit.core.environment.user_code import Factory, RecordedCode
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
    """A model to compare: a file of a target, a source of a kind, or both. Paths are absolute.

    Attributes:
        label: The model as the user named it.
        target: The target whose format the file has.
        runtime: The runtime that runs the file; None for a source, which its framework runs.
        folder: The folder of a trained or imported source.
        kind: The source kind.
        path: The model file.
        code: `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
        base: The folder that `code` is relative to.
        recorded_code: The code that the record in `folder` names.
        signature: The signature of the manifest, if there is one.
        stamp: Changes when the file does, so that a worker does not reuse an earlier version that it has opened.
    """

    label: str
    target: str | None = None
    runtime: str | None = None
    folder: str | None = None
    kind: str | None = None
    path: str | None = None
    code: str | None = None
    base: str = "."
    recorded_code: RecordedCode | None = None
    signature: Signature | None = None
    stamp: tuple[int, ...] = ()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Return modification time in ns, size in bytes and inode of a file, or of the newest file in a folder."""
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    return max(((status := file.stat()).st_mtime_ns, status.st_size, status.st_ino) for file in files) if files else ()


# A worker keeps this many models open: the two of one comparison.
_MAX_OPEN = 2


@dataclass
class _OpenModel:
    """A model that is ready to run; `resources` must stay alive as long as it is used."""

    signature: Signature
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    trace: Callable[[Mapping[str, Array]], dict[str, Array]]
    run_float64: Callable[[Mapping[str, Array]], dict[str, Array] | None] = lambda _inputs: None
    resources: tuple[Any, ...] = ()
    run_stream: Callable[[Mapping[str, Array]], dict[str, Array]] | None = None


_open_models: dict[ModelRef, _OpenModel] = {}


@dataclass(frozen=True)
class ModelCall:
    """A model and inputs for it.

    Attributes:
        model: The model.
        inputs: Real values by input name, shape (N, ...).
    """

    model: ModelRef
    inputs: Mapping[str, Array]


def _open(call: ModelCall) -> _OpenModel:
    """Open a model, or return it if it is open."""
    model = call.model
    if model not in _open_models:
        while len(_open_models) >= _MAX_OPEN:
            del _open_models[next(iter(_open_models))]  # the oldest one
        opener = _open_runtime if model.runtime else _open_folder if model.folder else _open_source
        _open_models[model] = opener(model, call.inputs)
    return _open_models[model]


@worker_job
def read_signature(call: ModelCall, _emit: Listener) -> Signature:
    """Return the signature of a model. If its file has none, the samples define the inputs, in their order.

    Args:
        call: The model and samples.
        _emit: Receives no events.

    Raises:
        InputError: The file is damaged, or does not accept these samples.
        MissingDependency: A package is not installed.
    """
    return _open(call).signature


@worker_job
def run_model(call: ModelCall, _emit: Listener) -> dict[str, Array]:
    """Run a model.

    Args:
        call: The model and its inputs.
        _emit: Receives no events.

    Returns:
        The outputs as real values by the model's own names, shape (N, ...).

    Raises:
        InputError: The model does not accept these inputs.
        MissingDependency: A package is not installed.
    """
    return _open(call).run(call.inputs)


@worker_job
def run_stream(call: ModelCall, _emit: Listener) -> dict[str, Array]:
    """Run a source that keeps state on samples that follow one another.

    Args:
        call: The source folder and its inputs.
        _emit: Receives no events.

    Returns:
        The outputs as real values by the model's own names, shape (N, ...).

    Raises:
        InputError: The model does not accept these inputs.
        MissingDependency: A package is not installed.
    """
    model = _open(call)
    return (model.run_stream or model.run)(call.inputs)


@worker_job
def run_with_rounding(call: ModelCall, _emit: Listener) -> tuple[dict[str, Array], dict[str, Rounding]]:
    """Run a source in float32 and in float64.

    Args:
        call: The source and its inputs.
        _emit: Receives no events.

    Returns:
        The float32 outputs by name, shape (N, ...), and their rounding error by output.

    Raises:
        InputError: The model does not accept these inputs.
        MissingDependency: A package is not installed.
    """
    model = _open(call)
    outputs = model.run(call.inputs)
    return outputs, measure_rounding(outputs, model.run_float64(call.inputs))


@worker_job
def trace_model(call: ModelCall, _emit: Listener) -> dict[str, Array]:
    """Compute every intermediate tensor of a model.

    Args:
        call: The model and its inputs.
        _emit: Receives no events.

    Returns:
        The tensors by name in the order of computation, shape (N, 1, ...).

    Raises:
        InputError: The format does not expose its intermediates.
    """
    return _open(call).trace(call.inputs)


def _open_runtime(model: ModelRef, samples: Mapping[str, Array]) -> _OpenModel:
    runtime = RUNTIMES.load(str(model.runtime))
    path = Path(str(model.path))
    open_session = partial(runtime.open, path, threads=1)
    try:
        session = open_session(signature=model.signature)
    except UnknownSignature:
        session = open_session(signature=_probe_signature(open_session, samples))
    return _OpenModel(session.signature, session.infer, partial(_trace_file, model, session.signature))


def _trace_file(model: ModelRef, signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the intermediate tensors of a file, computed by the runtime of its target."""
    target = TARGETS.load(str(model.target))
    require(target.reads_with, f"reading {target.suffixes[0]} files")
    runtime = RUNTIMES.load(target.runtime)
    with tempfile.TemporaryDirectory(prefix="edgekit-trace-") as folder:
        return runtime.trace(target.expose_intermediates(Path(str(model.path)), Path(folder)), inputs, signature)


def _probe_signature(open_session: Callable[..., Any], samples: Mapping[str, Array]) -> Signature:
    """Return the signature of a file without names by running one sample: inputs as the samples, outputs numbered."""
    inputs = tuple(TensorSpec(name, ("batch", *array.shape[1:]), str(array.dtype)) for name, array in samples.items())
    first_sample = [array[:1] for array in samples.values()]
    results = open_session(signature=Signature(inputs, ()))._run(first_sample)
    outputs = [
        TensorSpec(f"output_{index}", ("batch", *array.shape[1:]), str(array.dtype))
        for index, array in enumerate(results)
    ]
    return Signature(inputs, tuple(outputs))


def _open_folder(model: ModelRef, samples: Mapping[str, Array]) -> _OpenModel:
    """Open a trained or imported source."""
    folder = Path(str(model.folder))
    source = load_source(folder)
    kind = SOURCES.load(source.kind)
    require(kind.requires, f"loading {kind.name} models")
    build = None if model.recorded_code is None else model.recorded_code.call
    loaded = kind.load(source.weights_path(folder), source.all_inputs(source.signature), build)
    loaded = loaded.with_fixed(source.fixed).with_preprocessing(source.preprocessing)
    loaded = loaded.at(source.signature, source.sizes)
    loaded = loaded.with_examples(samples)  # before the state, which it may rename by wrapping the model
    loaded.one_by_one = source.one_by_one
    loaded.keep_state(source.state)
    trace = partial(_trace_file, model, source.signature) if model.target else loaded.trace
    return _OpenModel(source.signature, loaded.run, trace, loaded.run_float64, run_stream=loaded.run_stream)


def _open_source(model: ModelRef, samples: Mapping[str, Array]) -> _OpenModel:
    """Import and open a model file or code."""
    kind = SOURCES.load(str(model.kind))
    require(kind.requires, f"loading {kind.name} models")
    build = None if model.code is None else partial(Factory.parse(model.code).call, Path(model.base))
    folder = tempfile.TemporaryDirectory(prefix="edgekit-compare-")
    path = None if model.path is None else Path(model.path)
    user_model = UserModel(path, build, examples=samples, as_stored=True)
    with (
        contextlib.nullcontext()
        if model.path is None
        else damage_reported(Path(model.path), f"the source kind {model.kind}")
    ):
        file, signature = kind.import_model(user_model, Path(folder.name))
    sizes = {
        dim: size
        for spec in signature.inputs
        if spec.name in samples and samples[spec.name].ndim == len(spec.shape)
        for dim, size in zip(spec.shape[1:], samples[spec.name].shape[1:], strict=True)
        if isinstance(dim, str)
    }
    loaded = kind.load(Path(folder.name, file), signature, build).at(signature, sizes).with_examples(samples)

    def sized(inputs: Mapping[str, Array]) -> LoadedModel:
        """Return the model with the dimensions of these inputs, and outputs as they are computed."""
        dims = {
            dim: size
            for spec in signature.inputs
            for dim, size in zip(spec.shape[1:], inputs[spec.name].shape[1:], strict=True)
            if isinstance(dim, str)
        }
        outputs = observed_outputs(loaded.at(signature, dims), batching.select_samples(signature, inputs, 0, 1))
        return loaded.at(Signature(signature.inputs, outputs), dims)

    # A source that is a file of a target's format exposes its intermediates through that target's runtime.
    trace = partial(_trace_file, model, signature) if model.target else lambda inputs: sized(inputs).trace(inputs)
    return _OpenModel(signature, lambda inputs: sized(inputs).run(inputs), trace, resources=(folder,))

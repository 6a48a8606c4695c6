"""Opening any model file to compare it with another; runs inside a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.core import calls, plugins
from edgekit.core.code import Factory
from edgekit.core.errors import InputError
from edgekit.core.events import Listener
from edgekit.core.metrics import Array
from edgekit.core.requirements import require
from edgekit.core.specs import Signature, TensorSpec
from edgekit.runtimes._base import Runtime
from edgekit.sources._base import Given, SourceKind
from edgekit.stages._adoption import observed_outputs


@dataclass(frozen=True)
class Operand:
    """A model to compare: a file for a runtime, or a source of a kind. Paths are absolute.

    `signature` is known beforehand where a manifest tells it.
    """

    label: str
    runtime: str | None = None
    kind: str | None = None
    path: str | None = None
    code: str | None = None
    base: str = "."
    signature: Signature | None = None


@dataclass
class _Opened:
    signature: Signature
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    keep: tuple[Any, ...] = ()


_opened: dict[Operand, _Opened] = {}


def look(operand: Operand, samples: Mapping[str, Array], *, emit: Listener) -> Signature:
    """The model's signature. Where its file tells none, the samples in their order are its inputs.

    Raises InputError when the file is damaged, or does not take such samples.
    """
    if operand not in _opened:
        opener = _open_runtime if operand.runtime else _open_source
        _opened[operand] = opener(operand, samples)
    return _opened[operand].signature


def run(operand: Operand, inputs: Mapping[str, Array], *, emit: Listener) -> dict[str, Array]:
    """Real values in, real values out, by the model's own names, for samples of shape (N, ...)."""
    if operand not in _opened:
        look(operand, inputs, emit=emit)
    return _opened[operand].run(inputs)


def _open_runtime(operand: Operand, samples: Mapping[str, Array]) -> _Opened:
    runtime: Runtime = plugins.load("edgekit.runtimes", str(operand.runtime), "RUNTIME")
    path = Path(str(operand.path))
    opened = partial(runtime.open, path, threads=1)
    try:
        session = opened(signature=operand.signature)
    except InputError as error:
        if "does not tell its inputs" not in str(error):
            raise
        session = opened(signature=_numbered(opened, samples))
    return _Opened(session.signature, session.infer)


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


def _open_source(operand: Operand, samples: Mapping[str, Array]) -> _Opened:
    kind: SourceKind = plugins.load("edgekit.sources", str(operand.kind), "SOURCE")
    require(kind.requires, f"loading {kind.name} models")
    build = None if operand.code is None else partial(Factory.parse(operand.code).call, Path(operand.base))
    folder = tempfile.TemporaryDirectory(prefix="edgekit-compare-")
    given = Given(None if operand.path is None else Path(operand.path), build, examples=samples)
    file, signature = kind.adopt(given, Path(folder.name))
    sizes = {
        dim: size
        for spec in signature.inputs
        if spec.name in samples and samples[spec.name].ndim == len(spec.shape)
        for dim, size in zip(spec.shape[1:], samples[spec.name].shape[1:], strict=True)
        if isinstance(dim, str)
    }
    loaded = kind.load(Path(folder.name, file), signature, build).at(signature, sizes)

    def outputs(inputs: Mapping[str, Array]) -> dict[str, Array]:
        fresh = {
            dim: size
            for spec in signature.inputs
            for dim, size in zip(spec.shape[1:], inputs[spec.name].shape[1:], strict=True)
            if isinstance(dim, str)
        }
        ready = loaded.at(signature, fresh)
        seen = Signature(signature.inputs, observed_outputs(ready, calls.take(signature, inputs, 0, 1)))
        return loaded.at(seen, fresh).run(inputs)

    return _Opened(signature, outputs, (folder,))

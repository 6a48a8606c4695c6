"""Samples cut into the calls that a signature allows, and the outputs of the calls put together again.

An input of shape (3, ...) takes three rows a call, one whose first dimension is symbolic as many as there are, a scalar
one value. Samples of an input are stored one after another: (N * rows, ...), scalars as (N,).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec


def samples_per_call(spec: TensorSpec, batch: int = 1) -> int:
    """How many rows of its samples an input or output takes a call."""
    return (spec.fixed_batch or batch) if spec.shape else 1


def has_symbolic_batch(signature: Signature) -> bool:
    """Whether samples can share a call: one symbol is the first dimension of everything that goes in and comes out."""
    symbol = signature.batch
    return symbol is not None and all(spec.shape[:1] == (symbol,) for spec in signature.outputs)


def n_samples(signature: Signature, samples: Mapping[str, Array]) -> int:
    """The number of samples N.

    Raises InputError when inputs have different numbers of them. The last one of a fixed batch need not be full.
    """
    counts = {spec.name: -(-len(samples[spec.name]) // samples_per_call(spec)) for spec in signature.inputs}
    if len(set(counts.values())) > 1:
        raise InputError(
            "the inputs have different numbers of samples: "
            + ", ".join(f"{name} {number}" for name, number in counts.items())
        )
    return next(iter(counts.values()))


def select_samples(
    signature: Signature, samples: Mapping[str, Array], start: int, stop: int | None
) -> dict[str, Array]:
    """The samples from `start` up to `stop`, in every input."""
    last = n_samples(signature, samples) if stop is None else stop
    return {
        spec.name: samples[spec.name][start * samples_per_call(spec) : last * samples_per_call(spec)]
        for spec in signature.inputs
    }


def iter_batches(signature: Signature, samples: Mapping[str, Array], batch: int = 1) -> Iterator[list[Array]]:
    """The inputs of each call, in the signature's order; a symbolic batch takes up to `batch` samples.

    A fixed batch that the last samples do not fill is filled up with the very last one.
    """
    together = batch if has_symbolic_batch(signature) else 1
    for call in range(-(-n_samples(signature, samples) // together)):
        yield [_part(spec, samples[spec.name], call, together) for spec in signature.inputs]


def _part(spec: TensorSpec, array: Array, call: int, batch: int) -> Array:
    if not spec.shape:
        return np.asarray(array[call])
    size = samples_per_call(spec, batch)
    part = array[call * size : (call + 1) * size]
    missing = (spec.fixed_batch or len(part)) - len(part)
    filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
    return np.ascontiguousarray(filled)


def stack_traces(calls: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Inner tensors, of floats, call by call under the same names, as arrays of shape (calls, ...).

    One whose shape differs from call to call, or that is not in every call, is left out.
    """
    found: dict[str, list[Array]] = {}
    count = 0
    for call in calls:
        count += 1
        for name, array in call.items():
            found.setdefault(name, []).append(array)
    return {
        name: np.stack(arrays)
        for name, arrays in found.items()
        if len(arrays) == count
        and np.issubdtype(arrays[0].dtype, np.floating)
        and len({array.shape for array in arrays}) == 1
    }


def concat_outputs(
    signature: Signature, samples: Mapping[str, Array], calls: Sequence[Sequence[Array]]
) -> dict[str, Array]:
    """The outputs of all calls by name, without what was computed for filled-up rows."""
    wanted = len(samples[signature.inputs[0].name])
    first = samples_per_call(signature.inputs[0])
    joined = {}
    for index, spec in enumerate(signature.outputs):
        parts = [np.asarray(call[index]) for call in calls]
        whole = np.concatenate(parts) if parts[0].ndim else np.stack(parts)
        # Rows of the output stand for rows of the input where a call has as many of the one as of the other.
        paired = parts[0].ndim and (spec.fixed_batch is None or spec.fixed_batch == first)
        joined[spec.name] = whole[:wanted] if paired else whole
    return joined

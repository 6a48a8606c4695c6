"""Splitting samples into batches that a signature allows, and joining the outputs.

A call takes three rows of an input of shape (3, ...), any number of rows where the first dimension is symbolic, and one
value of a scalar. The N samples of an input are stored along axis 0: (N * rows, ...), those of a scalar as (N,).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec


def samples_per_call(spec: TensorSpec, batch: int = 1) -> int:
    """Return how many rows of a tensor belong to one call.

    Args:
        spec: The input or output.
        batch: Number of rows where the first dimension is symbolic.

    Returns:
        The number of rows; 1 for a scalar.
    """
    return (spec.fixed_batch or batch) if spec.shape else 1


def contiguous(array: Array) -> Array:
    """Return an array whose buffer a runtime can read, which ignores strides.

    Args:
        array: The array, also of rank 0: `np.ascontiguousarray` would make a vector of it.

    Returns:
        The array itself, or a copy in C order, of the same shape.
    """
    return np.asarray(array, order="C")


def has_symbolic_batch(signature: Signature) -> bool:
    """Return whether several samples can share a call.

    Args:
        signature: Inputs and outputs of the model.

    Returns:
        True where all inputs and outputs have the same symbolic first dimension, and no output has it again: in a
        matrix of all pairs of samples, each value belongs to two samples.
    """
    symbol = signature.batch
    # Outputs too: with a fixed first dimension they cannot be assigned to samples.
    return symbol is not None and all(
        spec.shape[:1] == (symbol,) and symbol not in spec.shape[1:] for spec in signature.outputs
    )


def n_samples(signature: Signature, samples: Mapping[str, Array]) -> int:
    """Return the number of samples N.

    Args:
        signature: Inputs and outputs of the model.
        samples: Arrays by input name, shape (N * rows, ...). The last fixed batch may be incomplete.

    Returns:
        The number of samples.

    Raises:
        InputError: The inputs have different numbers of samples.
    """
    # -(-a // b) is the quotient rounded up.
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
    """Return a range of the samples of all inputs.

    Args:
        signature: Inputs and outputs of the model.
        samples: Arrays by input name, shape (N * rows, ...).
        start: Index of the first sample.
        stop: Index behind the last sample; None for all that follow.

    Returns:
        Views of the arrays by input name.
    """
    end = n_samples(signature, samples) if stop is None else stop
    return {
        spec.name: samples[spec.name][start * samples_per_call(spec) : end * samples_per_call(spec)]
        for spec in signature.inputs
    }


def take_samples(signature: Signature, samples: Mapping[str, Array], indices: Array) -> dict[str, Array]:
    """Return some of the samples of all inputs.

    Args:
        signature: Inputs and outputs of the model.
        samples: Arrays by input name, shape (N * rows, ...).
        indices: Indices of the samples, shape (M,) of integers, in the order of the result; an incomplete fixed batch
            may only be the last of them.

    Returns:
        Copies by input name, shape (M * rows, ...).
    """
    taken = {}
    for spec in signature.inputs:
        array, size = samples[spec.name], samples_per_call(spec)
        rows: NDArray[np.int64] = (indices.astype(np.int64)[:, None] * size + np.arange(size)).reshape(-1)
        taken[spec.name] = array[rows[rows < len(array)]]
    return taken


def iter_batches(signature: Signature, samples: Mapping[str, Array], batch: int = 1) -> Iterator[list[Array]]:
    """Iterate over the inputs of each call.

    Args:
        signature: Inputs and outputs of the model.
        samples: Arrays by input name, shape (N * rows, ...).
        batch: Most samples of a call where the batch is symbolic.

    Yields:
        Contiguous arrays in the order of the signature's inputs. An incomplete fixed batch is padded with copies of the
        last sample.
    """
    n_per_call = batch if has_symbolic_batch(signature) else 1
    for call in range(-(-n_samples(signature, samples) // n_per_call)):
        yield [_call_input(spec, samples[spec.name], call, n_per_call) for spec in signature.inputs]


def _call_input(spec: TensorSpec, array: Array, call: int, batch: int) -> Array:
    if not spec.shape:
        return np.asarray(array[call])
    size = samples_per_call(spec, batch)
    rows = array[call * size : (call + 1) * size]
    missing = (spec.fixed_batch or len(rows)) - len(rows)
    # Padding with a real sample and not with zeros, which may be far outside the range of the data.
    padded = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
    return contiguous(padded)


def stack_traces(calls: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Stack the inner tensors of several calls.

    Args:
        calls: For each call, the inner tensors by name.

    Returns:
        Arrays by name, shape (calls, ...). Only floating-point tensors that are in every call with the same shape are
        included.
    """
    traces: dict[str, list[Array]] = {}
    count = 0
    for call in calls:
        count += 1
        for name, array in call.items():
            traces.setdefault(name, []).append(array)
    return {
        name: np.stack(arrays)
        for name, arrays in traces.items()
        if len(arrays) == count
        and np.issubdtype(arrays[0].dtype, np.floating)
        and len({array.shape for array in arrays}) == 1
    }


def concat_outputs(
    signature: Signature, samples: Mapping[str, Array], calls: Sequence[Sequence[Array]]
) -> dict[str, Array]:
    """Join the outputs of all calls and drop the rows that were computed for padding.

    A call whose output has other rows than its inputs (hidden states of shape (layers, 1, H), a list of boxes) keeps
    them all: they follow those of the call before, (N * layers, 1, H). What a dimension is named in the file does not
    matter.

    Args:
        signature: Inputs and outputs of the model.
        samples: The samples that were split, by input name.
        calls: For each call, its outputs in the order of the signature.

    Returns:
        Arrays by output name, shape (N * rows, ...); scalars as (N,).
    """
    first = signature.inputs[0]
    n_rows = len(samples[first.name])
    # The rows that all calls took, with those of the padding.
    taken_rows = len(calls) * samples_per_call(first) if first.fixed_batch is not None else n_rows
    joined = {}
    for index, spec in enumerate(signature.outputs):
        parts = [np.asarray(call[index]) for call in calls]
        whole = np.concatenate(parts) if parts[0].ndim else np.stack(parts)
        # Only where there are as many output rows as input rows do they correspond, so that padding can be cut off.
        joined[spec.name] = whole[:n_rows] if parts[0].ndim and len(whole) == taken_rows else whole
    return joined

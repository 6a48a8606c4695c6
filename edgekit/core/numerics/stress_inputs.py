"""Stress inputs, which real samples rarely contain: extremes, zeros, noise, values out of range, denormals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature

# Distance of out-of-range inputs, in widths of the data's range: far enough to saturate sigmoid and tanh, yet within
# float16 (at most 65504) for normalized data and for pixels of 0..255.
_OUT_OF_RANGE_WIDTHS = 8.0
# Below the smallest normal float32 (1.18e-38): kernels that flush denormals to zero differ from those that do not.
_DENORMAL = 1e-40
# Noise finds errors that depend on the values by chance only, so it gets several samples.
_NOISE_CASES = 4
_SEED = 0

# Called with shape, lowest and highest real value, and a random generator.
Generator = Callable[[tuple[int, ...], float, float, np.random.Generator], Array]

# Values within the range of the real samples.
IN_RANGE: Mapping[str, Generator] = {
    "zeros": lambda shape, _low, _high, _rng: np.zeros(shape),
    "lowest": lambda shape, low, _high, _rng: np.full(shape, low),
    "highest": lambda shape, _low, high, _rng: np.full(shape, high),
    "alternating extremes": lambda shape, low, high, _rng: np.where(np.indices(shape).sum(0) % 2, low, high),
    **{
        f"noise {index}": lambda shape, low, high, rng: rng.uniform(low, high, shape)
        for index in range(1, _NOISE_CASES + 1)
    },
    "noise of few values": lambda shape, low, high, rng: rng.choice([low, (low + high) / 2, high], shape),
}

# For inputs in floating point only: quantized inputs are clipped to the calibrated range, which is no error.
OUT_OF_RANGE: Mapping[str, Generator] = {
    "far above": lambda shape, low, high, _rng: np.full(shape, high + _OUT_OF_RANGE_WIDTHS * (high - low)),
    "far below": lambda shape, low, high, _rng: np.full(shape, low - _OUT_OF_RANGE_WIDTHS * (high - low)),
    "far noise": lambda shape, low, high, rng: (
        (low + high) / 2 + _OUT_OF_RANGE_WIDTHS * (high - low) * rng.standard_normal(shape)
    ),
    "denormals": lambda shape, _low, _high, rng: _DENORMAL * rng.standard_normal(shape),
}


def stress_inputs(
    signature: Signature, real: Mapping[str, Array], *, outside: bool
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Generate one stress sample for each case.

    Args:
        signature: Inputs and outputs of the model.
        real: Real samples by input name, shape (N * rows, ...); they determine shapes, dtypes and ranges.
        outside: Whether to include values out of the range of the real samples.

    Returns:
        The names of the cases, and arrays by input name with one sample for each case. Integer inputs (tokens, flags)
        stay within the range of the real samples.
    """
    cases = {**IN_RANGE, **OUT_OF_RANGE} if outside else dict(IN_RANGE)
    inputs: dict[str, Array] = {}
    for index, spec in enumerate(signature.inputs):
        array = real[spec.name]
        shape = (batching.samples_per_call(spec), *array.shape[1:]) if spec.shape else ()
        low, high = float(array.min()), float(array.max())
        rng = np.random.default_rng([_SEED, index])  # one stream per input, so that inputs of equal shape differ
        values = [_with_dtype(generate(shape, low, high, rng), low, high, array.dtype) for generate in cases.values()]
        inputs[spec.name] = np.concatenate(values) if spec.shape else np.stack(values)
    return tuple(cases), inputs


def _with_dtype(values: Array, low: float, high: float, dtype: np.dtype[np.generic]) -> Array:
    if np.issubdtype(dtype, np.floating):
        return np.asarray(values).astype(dtype)
    # An index outside the embedding table is invalid input and no stress.
    return np.clip(np.rint(np.asarray(values, np.float64)), low, high).astype(dtype)

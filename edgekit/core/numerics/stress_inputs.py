"""Inputs that real samples seldom hold: the ends of the range, silence, noise, values beyond the range, denormals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature

BEYOND = 8.0
DENORMAL = 1e-40
NOISES = 4
_SEED = 0

Generator = Callable[[tuple[int, ...], float, float, np.random.Generator], Array]

WITHIN: Mapping[str, Generator] = {
    "zeros": lambda shape, _low, _high, _rng: np.zeros(shape),
    "lowest": lambda shape, low, _high, _rng: np.full(shape, low),
    "highest": lambda shape, _low, high, _rng: np.full(shape, high),
    "alternating extremes": lambda shape, low, high, _rng: np.where(np.indices(shape).sum(0) % 2, low, high),
    **{f"noise {index}": lambda shape, low, high, rng: rng.uniform(low, high, shape) for index in range(1, NOISES + 1)},
    "noise of few values": lambda shape, low, high, rng: rng.choice([low, (low + high) / 2, high], shape),
}
"""What lies within the range that the model's data has."""

OUTSIDE: Mapping[str, Generator] = {
    "far above": lambda shape, low, high, _rng: np.full(shape, high + BEYOND * (high - low)),
    "far below": lambda shape, low, high, _rng: np.full(shape, low - BEYOND * (high - low)),
    "far noise": lambda shape, low, high, rng: (low + high) / 2 + BEYOND * (high - low) * rng.standard_normal(shape),
    "denormals": lambda shape, _low, _high, rng: DENORMAL * rng.standard_normal(shape),
}
"""What only float arithmetic can take: a quantized input clips it, as it should."""


def stress_inputs(
    signature: Signature, real: Mapping[str, Array], *, outside: bool
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """The names of the cases, and samples of them by input name, one a case, shapes as the real samples have them.

    The range of each input is that of its real samples; inputs of whole numbers (tokens, flags) stay within it.
    """
    cases = {**WITHIN, **OUTSIDE} if outside else dict(WITHIN)
    made: dict[str, Array] = {}
    for index, spec in enumerate(signature.inputs):
        array = real[spec.name]
        shape = (batching.samples_per_call(spec), *array.shape[1:]) if spec.shape else ()
        low, high = float(array.min()), float(array.max())
        rng = np.random.default_rng([_SEED, index])
        values = [_fitting(maker(shape, low, high, rng), low, high, array.dtype) for maker in cases.values()]
        made[spec.name] = np.concatenate(values) if spec.shape else np.stack(values)
    return tuple(cases), made


def _fitting(values: Array, low: float, high: float, dtype: np.dtype[np.generic]) -> Array:
    if np.issubdtype(dtype, np.floating):
        return np.asarray(values).astype(dtype)
    return np.clip(np.rint(np.asarray(values, np.float64)), low, high).astype(dtype)

"""The rounding error of a network in float32, measured against the same network in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgekit.core.numerics.metrics import Array, max_abs_error, rmse
from edgekit.core.values.typed_json import Count, NotNegative

# Further digits depend on the order of summation, which differs between machines: records would not be reproducible.
_SIGNIFICANT_DIGITS = 3
# Fixed, so that records are reproducible.
_SEED = 0


@dataclass(frozen=True)
class Rounding:
    """The difference between one output in float32 and in float64, on real samples.

    Where inputs that differ in their last digit move the output further than that, it is the distance which they move
    it: no file can be expected to be nearer to the source than the source is to itself.

    It grows with the network's depth, the length of its sums and the gain of its weights, which is why it is measured
    and not estimated from the graph.

    Attributes:
        max_abs_error: Largest absolute difference, in the unit of the output.
        rmse: Root mean square difference, in the unit of the output.
        scale: Largest absolute value of the output in float64.
        samples: Number of samples.
        exact: Whether there was a float64 run. Otherwise the distance by inputs is all that is known: a lower bound.
    """

    max_abs_error: NotNegative
    rmse: NotNegative
    scale: NotNegative
    samples: Count
    exact: bool = True


def measure_rounding(single: Mapping[str, Array], double: Mapping[str, Array] | None) -> dict[str, Rounding]:
    """Measure the rounding error of all outputs that are known in float32 and in float64.

    Args:
        single: Outputs of the network by name, shape (N, ...).
        double: Outputs of the same network in float64; None where it cannot be run in float64.

    Returns:
        The rounding error by output name. Outputs that are not float32, not finite, empty or missing in `double` are
        left out.
    """
    roundings = {}
    for name, array in single.items():
        exact = None if double is None else double.get(name)
        if exact is None or array.dtype != np.float32 or exact.dtype != np.float64 or exact.shape != array.shape:
            continue
        if array.size and np.isfinite(array).all() and np.isfinite(exact).all():
            largest = float(np.max(np.abs(exact)))
            roundings[name] = Rounding(
                _rounded(max_abs_error(exact, array)), _rounded(rmse(exact, array)), _rounded(largest), len(array)
            )
    return roundings


def perturbed(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs whose float32 values are moved by one unit in the last place, up or down at random.

    Args:
        inputs: Samples by input name, shape (N, ...).

    Returns:
        Arrays of the same shapes and dtypes; zeros, integers and other types are unchanged.
    """
    rng = np.random.default_rng(_SEED)
    moved: dict[str, Array] = {}
    for name, array in inputs.items():
        up = rng.random(array.shape) < 0.5  # drawn for all inputs, so that one does not change the others
        if array.dtype == np.float32:
            steps = np.nextafter(array, np.where(up, np.float32(np.inf), np.float32(-np.inf)))
            moved[name] = np.where(array == 0, array, steps).astype(np.float32)
        else:
            moved[name] = array
    return moved


def with_conditioning(
    roundings: Mapping[str, Rounding], outputs: Mapping[str, Array], moved: Mapping[str, Array]
) -> dict[str, Rounding]:
    """Widen rounding errors to what one unit in the last place of the inputs moves the outputs.

    Args:
        roundings: Rounding errors by output, as `measure_rounding` returns them.
        outputs: Outputs of the network in float32 by name, shape (N, ...).
        moved: Its outputs for `perturbed` inputs, shape (M, ...) with M <= N: the first samples.

    Returns:
        The rounding errors by output name, also of outputs that have no float64 run.
    """
    widened = dict(roundings)
    for name, other in moved.items():
        array = outputs[name][: len(other)]
        if array.dtype != np.float32 or array.shape != other.shape or not array.size:
            continue
        if not (np.isfinite(array).all() and np.isfinite(other).all()):
            continue
        distance, spread = _rounded(max_abs_error(array, other)), _rounded(rmse(array, other))
        known = roundings.get(name)
        if known is None:
            scale = _rounded(float(np.max(np.abs(outputs[name]))))
            widened[name] = Rounding(distance, spread, scale, len(other), exact=False)
        elif distance > known.max_abs_error:
            widened[name] = replace(known, max_abs_error=distance, rmse=max(spread, known.rmse))
    return widened


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")

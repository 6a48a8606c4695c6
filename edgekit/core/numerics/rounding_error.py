"""The rounding error of a network in float32, measured against the same network in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.core.numerics.metrics import Array, max_abs_error, rmse
from edgekit.core.values.typed_json import Count, NotNegative

# Further digits depend on the order of summation, which differs between machines: records would not be reproducible.
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True)
class Rounding:
    """The difference between one output in float32 and in float64, on real samples.

    It grows with the network's depth, the length of its sums and the gain of its weights, which is why it is measured
    and not estimated from the graph.

    Attributes:
        max_abs_error: Largest absolute difference, in the unit of the output.
        rmse: Root mean square difference, in the unit of the output.
        scale: Largest absolute value of the output in float64.
        samples: Number of samples.
    """

    max_abs_error: NotNegative
    rmse: NotNegative
    scale: NotNegative
    samples: Count


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


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")

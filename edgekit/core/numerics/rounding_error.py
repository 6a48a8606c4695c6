"""How far float32 arithmetic moves a network's outputs: its own, against the same network in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array, max_abs_error, rmse

DIGITS = 3
"""Significant digits that are kept: the order of summation depends on the machine, and the rest of them with it."""


@dataclass(frozen=True)
class Rounding:
    """The distance of one output in float32 from the same in float64, on real samples.

    `max_abs_error` and `rmse` are in the unit of the output, `scale` is the largest output. It grows with the network's
    depth and with the length of its sums, and with how much the weights amplify an error, which neither of these tells.
    """

    max_abs_error: float
    rmse: float
    scale: float
    samples: int


def measure_rounding(single: Mapping[str, Array], double: Mapping[str, Array] | None) -> dict[str, Rounding]:
    """The rounding of each float32 output, shape (N, ...), for which `double` has the same in float64.

    An output that is no float32, or not finite, has none.
    """
    found = {}
    for name, array in single.items():
        exact = None if double is None else double.get(name)
        if exact is None or array.dtype != np.float32 or exact.dtype != np.float64 or exact.shape != array.shape:
            continue
        if array.size and np.isfinite(array).all() and np.isfinite(exact).all():
            largest = float(np.max(np.abs(exact)))
            found[name] = Rounding(
                _short(max_abs_error(exact, array)), _short(rmse(exact, array)), _short(largest), len(array)
            )
    return found


def _short(figure: float) -> float:
    return float(f"{figure:.{DIGITS}g}")


def rounding_from_dict(data: Mapping[str, Any]) -> dict[str, Rounding]:
    """The inverse of `dataclasses.asdict` after a trip through JSON."""
    return {name: Rounding(**item) for name, item in data.items()}

"""Tolerances that apply to an artifact, and where each limit comes from."""

from __future__ import annotations

from edgekit.core.numerics.rounding_error import Rounding
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.tolerances import Tolerances

# The error of a float32 artifact may be this multiple of the rounding error of its source. Both deviate from the exact
# result, each with its own order of summation and its own approximation of exp and tanh. Over the reference models the
# largest multiple is 12 and the median 1.2 (`make matrix`): XNNPACK adds the 5,408 products of `simple_cnn`'s dense
# layer in one sum, PyTorch in blocks. Twice the largest multiple leaves a margin for deeper networks.
ROUNDING_FACTOR = 24.0
# Lower bound of such a tolerance, times the largest output: eight units in the last place of float32 (2^-23 = 1.2e-7).
ROUNDING_FLOOR = 1e-6
# Upper bound, times the largest output: what float16 is granted. A source whose own rounding is larger (a step
# function at its step, a quantized source) does not lift the limit for all samples to the size of that step.
_CEILING = 1e-2


def tolerances_for_precision(
    precision: str, override: Tolerances | None = None, rounding: Rounding | None = None
) -> Tolerances:
    """Return the tolerances that apply to an artifact.

    Args:
        precision: Name of the precision.
        override: Limits of the model's `model.toml`, which take precedence.
        rounding: Rounding error of the source in float32; where known, it determines `max_abs_error` of float32.

    Returns:
        The tolerances; absolute ones still have to be multiplied by the largest output where that exceeds 1.
    """
    return find_precision(precision).tolerances.merged(_from_rounding(precision, rounding)).merged(override)


def _from_rounding(precision: str, rounding: Rounding | None) -> Tolerances | None:
    if precision != "float32" or rounding is None:
        return None
    # Comparisons multiply absolute tolerances by the largest output where it exceeds 1, so divide by it here.
    relative = rounding.max_abs_error / max(1.0, rounding.scale)
    # The rounding was measured, with that of larger intermediate values: outputs below 1 need no floor for these, and
    # with one that does not shrink with them, outputs of 1e-6 would be equal to zeros.
    floor = ROUNDING_FLOOR * min(1.0, rounding.scale)
    if not rounding.exact:  # the network's own rounding comes on top of what its inputs' rounding does
        floor = max(floor, find_precision(precision).tolerances.max_abs_error or 0.0)
    return Tolerances(max_abs_error=min(_CEILING, max(floor, ROUNDING_FACTOR * relative)))


def explain_limit(precision: str, name: str, override: Tolerances | None, rounding: Rounding | None) -> str:
    """Explain where a limit comes from.

    Args:
        precision: Name of the precision.
        name: Name of the limit, a field of `Tolerances`.
        override: Limits of the model's `model.toml`.
        rounding: Rounding error of the source in float32, where known.

    Returns:
        One sentence without a full stop.
    """
    if override is not None and name in override.limits():
        return "set by the model's model.toml"
    if precision != "float32" or name != "max_abs_error":
        return f"default of {precision}: {find_precision(precision).tolerance_reason}"
    if rounding is None:
        return (
            "default of float32, times the largest output: this source could not be run in float64, so its rounding"
            " error is unknown"
        )
    measurement = (
        f"in float32 the source differs by up to {rounding.max_abs_error:.2g} from its float64 outputs, on"
        f" {rounding.samples} samples with outputs up to {rounding.scale:.3g}"
    )
    if not rounding.exact:
        return (
            "default of float32, times the largest output: this source could not be run in float64; one unit in the"
            f" last place of its inputs moves the output by up to {rounding.max_abs_error:.2g}, and"
            f" {ROUNDING_FACTOR:g} times that is granted at least"
        )
    if ROUNDING_FACTOR * rounding.max_abs_error > _CEILING * max(1.0, rounding.scale):
        return f"{measurement}; no more than {_CEILING:g} of the largest output is granted"
    if ROUNDING_FACTOR * rounding.max_abs_error < ROUNDING_FLOOR * rounding.scale:
        return f"{measurement}; the floor of {ROUNDING_FLOOR:g} of the largest output applies"
    return f"{measurement}; another order of summation may differ {ROUNDING_FACTOR:g} times as much"

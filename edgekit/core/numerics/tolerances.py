"""Tolerances of equivalence for each precision, which `model.toml` can override."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from edgekit.core.numerics.rounding_error import Rounding


@dataclass(frozen=True)
class Tolerances:
    """Limits on the distance between an artifact's outputs and its source's; None sets no limit.

    Attributes:
        max_abs_error: Largest absolute error, in the unit of the output.
        mean_abs_error: Largest mean absolute error, in the unit of the output.
        rmse: Largest root mean square error, in the unit of the output.
        min_sqnr_db: Smallest signal to quantization noise ratio, in dB.
        min_cosine: Smallest cosine similarity, in [-1, 1].
        min_top1_agreement: Smallest share of samples with the same top class, in [0, 1]; for classifiers only.
    """

    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    rmse: float | None = None
    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_top1_agreement: float | None = None

    __pydantic_config__ = {
        "extra": "forbid",
        "strict": True,
    }  # read by edgekit.config; a plain dict, since core does not import pydantic

    def __post_init__(self) -> None:
        for name, value in self.limits().items():
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number (got {value})")
        for name in ("max_abs_error", "mean_abs_error", "rmse"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative (got {value})")
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine must lie between -1 and 1 (got {self.min_cosine})")
        if self.min_top1_agreement is not None and not 0 <= self.min_top1_agreement <= 1:
            raise ValueError(f"min_top1_agreement must lie between 0 and 1 (got {self.min_top1_agreement})")

    def merged(self, override: Tolerances | None) -> Tolerances:
        """Return a copy in which the limits of another set replace those of this one.

        Args:
            override: Limits that take precedence where they are set, or None.

        Returns:
            The merged limits.
        """
        if override is None:
            return self
        return replace(self, **{key: value for key, value in asdict(override).items() if value is not None})

    def limits(self) -> Mapping[str, float]:
        """Return the limits that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


# float32: only the order of summation differs. float16: the weights have 11 significant bits (relative error 2^-11 =
# 4.9e-4), which adds up over a few layers. dynamic, int8: 20 dB is an error of a tenth of the signal; correct int8
# networks reach 25 to 45 dB, broken ones (wrong scale, clipped range) less than 15. int16x8: only the int8 weights add
# noise. int4: 16 levels a weight; 10 dB is an error of a third of the signal.
DEFAULT_TOLERANCES: Mapping[str, Tolerances] = {
    "float32": Tolerances(max_abs_error=1e-5, min_cosine=0.9999999, min_top1_agreement=1.0),
    "float16": Tolerances(max_abs_error=1e-2, min_cosine=0.9999, min_top1_agreement=0.99),
    "dynamic": Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_top1_agreement=0.98),
    "int8": Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_top1_agreement=0.98),
    "int16x8": Tolerances(min_sqnr_db=25.0, min_cosine=0.995, min_top1_agreement=0.98),
    "int4": Tolerances(min_sqnr_db=10.0, min_cosine=0.95, min_top1_agreement=0.9),
}


# The error of a float32 artifact may be this multiple of the rounding error of its source. Both deviate from the exact
# result, each with its own order of summation and its own approximation of exp and tanh. Over the reference models the
# largest multiple is 12 and the median 1.2 (`make matrix`): XNNPACK adds the 5,408 products of `simple_cnn`'s dense
# layer in one sum, PyTorch in blocks. Twice the largest multiple leaves a margin for deeper networks.
ROUNDING_FACTOR = 24.0
# Lower bound of such a tolerance, times the largest output: eight units in the last place of float32 (2^-23 = 1.2e-7).
ROUNDING_FLOOR = 1e-6


def tolerances_for_precision(
    precision: str, override: Tolerances | None = None, rounding: Rounding | None = None
) -> Tolerances:
    """Return the tolerances that apply to an artifact.

    Args:
        precision: One of `PRECISIONS`.
        override: Limits of the model's `model.toml`, which take precedence.
        rounding: Rounding error of the source in float32; where known, it determines `max_abs_error` of float32.

    Returns:
        The tolerances; absolute ones still have to be multiplied by the largest output where that exceeds 1.
    """
    return DEFAULT_TOLERANCES[precision].merged(_from_rounding(precision, rounding)).merged(override)


def _from_rounding(precision: str, rounding: Rounding | None) -> Tolerances | None:
    if precision != "float32" or rounding is None:
        return None
    # Comparisons multiply absolute tolerances by the largest output where it exceeds 1, so divide by it here.
    relative = rounding.max_abs_error / max(1.0, rounding.scale)
    return Tolerances(max_abs_error=max(ROUNDING_FLOOR, ROUNDING_FACTOR * relative))


# Printed by `edgekit validate --explain`.
_REASONS = {
    "float16": "float16 keeps 11 bits of each weight (relative error 2^-11 = 4.9e-4), added up over a few layers",
    "dynamic": "20 dB is an error of a tenth of the signal; correct int8 weights reach 25 to 45 dB",
    "int8": "20 dB is an error of a tenth of the signal; correct int8 networks reach 25 to 45 dB, broken ones below 15",
    "int16x8": "with 16-bit activations only the int8 weights add noise",
    "int4": "weights of 16 levels: 10 dB is an error of a third of the signal",
}


def explain_limit(precision: str, name: str, override: Tolerances | None, rounding: Rounding | None) -> str:
    """Explain where a limit comes from.

    Args:
        precision: One of `PRECISIONS`.
        name: Name of the limit, a field of `Tolerances`.
        override: Limits of the model's `model.toml`.
        rounding: Rounding error of the source in float32, where known.

    Returns:
        One sentence without a full stop.
    """
    if override is not None and name in override.limits():
        return "set by the model's model.toml"
    if precision != "float32":
        return f"default of {precision}: {_REASONS[precision]}"
    if name != "max_abs_error":
        return "default of float32: only the order of summation differs"
    if rounding is None:
        return (
            "default of float32, times the largest output: this source could not be run in float64, so its rounding"
            " error is unknown"
        )
    measurement = (
        f"in float32 the source differs by up to {rounding.max_abs_error:.2g} from its float64 outputs, on"
        f" {rounding.samples} samples with outputs up to {rounding.scale:.3g}"
    )
    if ROUNDING_FACTOR * rounding.max_abs_error < ROUNDING_FLOOR * max(1.0, rounding.scale):
        return f"{measurement}; the floor of {ROUNDING_FLOOR:g} of the largest output applies"
    return f"{measurement}; another order of summation may differ {ROUNDING_FACTOR:g} times as much"

"""What counts as equivalent, by precision. A model's `model.toml` may set its own figure for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from edgekit.core.numerics.rounding_error import Rounding


@dataclass(frozen=True)
class Tolerances:
    """Limits on the distance between an artifact's outputs and its source's; None does not limit.

    Errors are in the unit of the output, `min_sqnr_db` in dB, `min_top1_agreement` a share between 0 and 1 that is
    judged on classifiers only.
    """

    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    rmse: float | None = None
    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_top1_agreement: float | None = None

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # read by the door; plain data, so no import

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
        """These, with what `override` sets put in their place."""
        if override is None:
            return self
        return replace(self, **{key: value for key, value in asdict(override).items() if value is not None})

    def limits(self) -> Mapping[str, float]:
        """The limits that are set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


# float32: the same network in another summation order. float16: 11 bits of mantissa in the weights (2^-11 = 4.9e-4
# relative, a few layers deep). int8 and the like: 20 dB is an error of a tenth of the signal; a healthy int8 network
# has 25-45 dB, a broken one (wrong scale, clipped range) falls below 15. int16 activations leave the int8 weights as
# the only noise.
DEFAULT_TOLERANCES: Mapping[str, Tolerances] = {
    "float32": Tolerances(max_abs_error=1e-5, min_cosine=0.9999999, min_top1_agreement=1.0),
    "float16": Tolerances(max_abs_error=1e-2, min_cosine=0.9999, min_top1_agreement=0.99),
    "dynamic": Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_top1_agreement=0.98),
    "int8": Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_top1_agreement=0.98),
    "int16x8": Tolerances(min_sqnr_db=25.0, min_cosine=0.995, min_top1_agreement=0.98),
    "int4": Tolerances(min_sqnr_db=10.0, min_cosine=0.95, min_top1_agreement=0.9),
}


ROUNDING_FACTOR = 24.0
"""How many times its source's own rounding a float32 artifact may be away from it.

Both are as far from the exact result as float32 takes them, each in its own order of summation, with its own
approximation of exp and tanh. Over the reference models, artifacts are at most 12 times that far, half of them 1.2
times (`make matrix`): XNNPACK adds up the 5,408 products of `simple_cnn`'s dense layer in one go, PyTorch in blocks.
"""
ROUNDING_FLOOR = 1e-6
"""What no tolerance is below, times the largest output: eight units in the last place of float32."""


def tolerances_for_precision(
    precision: str, override: Tolerances | None = None, rounding: Rounding | None = None
) -> Tolerances:
    """The default tolerances of a precision; for float32 what the source's own rounding allows, where that is known;
    with a model's own figures in their place where it sets some."""
    return DEFAULT_TOLERANCES[precision].merged(_from_rounding(precision, rounding)).merged(override)


def _from_rounding(precision: str, rounding: Rounding | None) -> Tolerances | None:
    """Absolute errors are judged times the largest output where that is above one."""
    if precision != "float32" or rounding is None:
        return None
    relative = rounding.max_abs_error / max(1.0, rounding.scale)
    return Tolerances(max_abs_error=max(ROUNDING_FLOOR, ROUNDING_FACTOR * relative))


_WHY = {
    "float16": "float16 keeps 11 bits of each weight (2^-11 = 4.9e-4), a few layers deep",
    "dynamic": "20 dB is an error of a tenth of the signal; healthy int8 weights have 25 to 45 dB",
    "int8": "20 dB is an error of a tenth of the signal; a healthy int8 network has 25 to 45 dB, a broken one below 15",
    "int16x8": "with 16-bit activations the int8 weights are the only noise",
    "int4": "weights of 16 levels: 10 dB is an error of a third of the signal",
}


def explain_limit(precision: str, name: str, override: Tolerances | None, rounding: Rounding | None) -> str:
    """Why the limit of that name is what it is, in a sentence without a full stop."""
    if override is not None and name in override.limits():
        return "set by the model's model.toml"
    if precision != "float32":
        return f"default of {precision}: {_WHY[precision]}"
    if name != "max_abs_error":
        return "default of float32: the same network in another order of summation"
    if rounding is None:
        return (
            "default of float32, times the largest output: this source could not be run in float64 to see its rounding"
        )
    told = (
        f"the source's own float32 lies {rounding.max_abs_error:.2g} from its float64, on {rounding.samples} samples"
        f" with outputs up to {rounding.scale:.3g}"
    )
    if ROUNDING_FACTOR * rounding.max_abs_error < ROUNDING_FLOOR * max(1.0, rounding.scale):
        return f"{told}; the floor of {ROUNDING_FLOOR:g} of the largest output holds"
    return f"{told}; another order of summation may be {ROUNDING_FACTOR:g} times as far"

"""A recipe: how one variant is made, layer by layer where it matters, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgekit.core.values.specs import PRECISIONS, TUNED, Variant

RECIPE_FILE = "recipe.json"
"""Beside an artifact that was made by one."""

Calibration = Literal["minmax", "moving-average", "percentile", "entropy"]


@dataclass(frozen=True)
class Recipe:
    """A variant, and what of it is made otherwise. Layers are named as the target names them in its float file.

    `float_layers` keep float weights and activations, `int16_layers` int8 weights and int16 activations. `calibration`
    is how ranges are taken from real inputs, `calibration_samples` from how many; None leaves both to the target.
    """

    target: str
    precision: str
    float_layers: tuple[str, ...] = ()
    int16_layers: tuple[str, ...] = ()
    calibration: Calibration | None = None
    calibration_samples: int | None = None

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # read by the door; plain data, so no import

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)} (got {self.precision!r})")
        if self.calibration_samples is not None and self.calibration_samples < 1:
            raise ValueError(f"calibration_samples must be at least 1 (got {self.calibration_samples})")
        both = sorted({*self.float_layers} & {*self.int16_layers})
        if both:
            raise ValueError(f"float_layers and int16_layers have layers in common: {', '.join(both)}")

    @property
    def selective(self) -> bool:
        """Whether it asks for more than the variant as every export makes it."""
        return bool(self.float_layers or self.int16_layers or self.calibration)

    @property
    def variant(self) -> Variant:
        """What it makes: a variant of its own beside the target's at that precision."""
        return Variant(self.target, self.precision, TUNED)

    def to_dict(self) -> dict[str, Any]:
        """For a file, the manifest and --json; without what is left to the target."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    def __str__(self) -> str:
        """`int8 minmax/200 2 float`: the precision, how ranges are taken and from how many samples, layers in float."""
        parts = [self.precision]
        if self.calibration or self.calibration_samples:
            method = (self.calibration or "ranges").removeprefix("moving-")
            parts.append(method + (f"/{self.calibration_samples}" if self.calibration_samples else ""))
        counts = ((len(self.float_layers), "float"), (len(self.int16_layers), "int16"))
        return " ".join([*parts, *(f"{count} {kind}" for count, kind in counts if count)])


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """The inverse of `to_dict` after a trip through JSON, for what edgekit wrote itself."""
    layers = {key: tuple(data.get(key, ())) for key in ("float_layers", "int16_layers")}
    return Recipe(**{**data, **layers})

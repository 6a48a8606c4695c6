"""Quantization recipes: the per-layer options of one variant, so that its conversion can be repeated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgekit.core.values.precisions import is_precision, precision_names
from edgekit.core.values.specs import TUNED, Variant

# Copy of the recipe in the folder of an artifact that was converted with one.
RECIPE_FILE = "recipe.json"

# Half of the differences between channels move into the weights.
EVEN_MIGRATION = 0.5

Calibration = Literal["minmax", "moving-average", "percentile", "entropy"]


@dataclass(frozen=True)
class Recipe:
    """A target, a precision and the layers that deviate from it.

    Layers have the names that the target gives them in its float32 file.

    Attributes:
        target: Name of the target.
        precision: Precision of all layers that are not listed.
        float_layers: Layers that keep float weights and activations.
        int16_layers: Layers with int8 weights and int16 activations.
        calibration: How activation ranges are determined from calibration samples; None for the target's default.
        calibration_samples: Number of calibration samples; None for the target's default.
        migration: How far differences between ranges of channels move from activations into weights of the float
            network, from 0 to 1, before it is quantized; None leaves the network as it is.
    """

    target: str
    precision: str
    float_layers: tuple[str, ...] = ()
    int16_layers: tuple[str, ...] = ()
    calibration: Calibration | None = None
    calibration_samples: int | None = None
    migration: float | None = None

    __pydantic_config__ = {
        "extra": "forbid",
        "strict": True,
    }  # read by edgekit.config; a plain dict, since core does not import pydantic

    def __post_init__(self) -> None:
        if not is_precision(self.precision):
            raise ValueError(f"precision must be one of {', '.join(precision_names())} (got {self.precision!r})")
        if self.calibration_samples is not None and self.calibration_samples < 1:
            raise ValueError(f"calibration_samples must be at least 1 (got {self.calibration_samples})")
        if self.migration is not None and not 0 <= self.migration <= 1:
            raise ValueError(f"migration must be from 0 to 1 (got {self.migration})")
        duplicates = sorted({*self.float_layers} & {*self.int16_layers})
        if duplicates:
            raise ValueError(f"float_layers and int16_layers have layers in common: {', '.join(duplicates)}")

    @property
    def selective(self) -> bool:
        """Whether the recipe differs from the target's default conversion at that precision."""
        # The number of samples alone does not count: each target can calibrate with any number. Nor does a migration,
        # which changes the source.
        return bool(self.float_layers or self.int16_layers or self.calibration)

    @property
    def variant(self) -> Variant:
        """The tuned variant that the recipe produces, separate from the default one of that precision."""
        return Variant(self.target, self.precision, TUNED)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for recipe files, the manifest and `--json`."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    def __str__(self) -> str:
        """Return precision, calibration method and samples, and layer counts: `int8 minmax/200 2 float`."""
        words = [self.precision]
        if self.calibration or self.calibration_samples:
            method = (self.calibration or "ranges").removeprefix("moving-")
            words.append(method + (f"/{self.calibration_samples}" if self.calibration_samples else ""))
        if self.migration is not None:
            words.append("scaled" if self.migration == EVEN_MIGRATION else f"scaled {self.migration:g}")
        counts = ((len(self.float_layers), "float"), (len(self.int16_layers), "int16"))
        return " ".join([*words, *(f"{count} {kind}" for count, kind in counts if count)])

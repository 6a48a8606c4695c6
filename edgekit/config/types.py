"""Types of keys that several file formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from edgekit.config.loader import STRICT
from edgekit.core.units import parse_bytes
from edgekit.core.values.budgets import BudgetTable
from edgekit.core.values.precisions import PRECISIONS, is_precision, precision_names
from edgekit.core.values.tiers import TIER_NAMES


def _parse_size(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError('must be a size in quotes, such as "500 KB"')
    size = parse_bytes(value)
    if size == 0:
        raise ValueError("must be more than 0 bytes")
    return size


# For editors, which cannot run `_parse_size`.
_SIZE_SCHEMA = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(B|KB|MB|GB|KiB|MiB|GiB)\s*$", "examples": ["500 KB"]}

# Bytes, written as "500 KB" or "1 MiB".
Size = Annotated[int, BeforeValidator(_parse_size), WithJsonSchema(_SIZE_SCHEMA)]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]


def _literal_error(names: Sequence[str]) -> PydanticCustomError:
    """Return the error of a `Literal`, for names that are listed in a table and not in a type."""
    quoted = [f"'{name}'" for name in names]
    return PydanticCustomError(
        "literal_error", "Input should be {expected}", {"expected": f"{', '.join(quoted[:-1])} or {quoted[-1]}"}
    )


def _parse_tier(value: Any) -> str:
    if isinstance(value, str) and value in TIER_NAMES:
        return value
    raise _literal_error(TIER_NAMES)


def _parse_precision(value: Any) -> str:
    if isinstance(value, str) and is_precision(value):
        return value
    raise _literal_error(precision_names())


# The name of a tier.
TierName = Annotated[str, PlainValidator(_parse_tier), WithJsonSchema({"enum": list(TIER_NAMES), "type": "string"})]
# The name of a precision. Targets of other packages register further ones at run time; the schema lists the built-in
# ones.
PrecisionName = Annotated[
    str,
    PlainValidator(_parse_precision),
    WithJsonSchema({"enum": [precision.name for precision in PRECISIONS], "type": "string"}),
]


@dataclass(frozen=True)
class Budgets:
    """A `[budgets]` table: limits of the variants that match a pattern.

    Attributes:
        variant: The pattern.
        size: The largest size of the model files, in bytes.
        peak_memory: The largest peak memory, in bytes.
        drift: The largest drop of the task metric, in the metric's unit.
        latency_ms: Tier -> the largest latency in ms.
        instructions: The largest number of instructions of one inference on the emulated core.
    """

    variant: str = "*"
    size: Size | None = None
    peak_memory: Size | None = None
    drift: NotNegative | None = None
    latency_ms: dict[TierName, Positive] = field(default_factory=dict)
    instructions: PositiveInt | None = None

    __pydantic_config__ = STRICT

    def table(self) -> BudgetTable:
        """Return the table as a `BudgetTable`, the core's type without pydantic."""
        return BudgetTable(
            self.variant,
            self.size,
            self.peak_memory,
            self.drift,
            tuple(sorted(self.latency_ms.items())),
            self.instructions,
        )

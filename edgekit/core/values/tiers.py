"""The table of tiers: how a device figure was obtained, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgekit.core.values.typed_json import Pattern


@dataclass(frozen=True)
class Tier:
    """A way to obtain figures of a device.

    Attributes:
        name: Name on the command line, in rules (`latency_ms.<name>`) and on disk.
        title: A short description, printed below tables.
        worth: What a figure of the tier is worth, in whole sentences.
        noise: Relative difference up to which two latencies count as equal.
        repeatable: Whether the same artifact gives the same figure again, apart from `noise`. Gates allow the figures
            of other tiers more, and prefer those that are repeatable.
        measured: Whether latencies are measured, not computed from a model of the device.
        is_bound: Whether a figure is a bound that does not tell which of two artifacts is faster.
        unit: Unit of the latencies.
    """

    name: str
    title: str
    worth: str
    noise: float
    repeatable: bool
    measured: bool
    is_bound: bool = False
    unit: str = "ms"


# From rough to exact; reports list them in the opposite order.
TIERS: tuple[Tier, ...] = (
    Tier(
        "analytic",
        "the device's roofline, rough, not a prediction",
        "The roofline of the device: multiply-accumulates over the peak rate, or bytes over the memory bandwidth. A"
        " rough bound, not a prediction.",
        noise=0.0,
        repeatable=True,
        measured=False,
        is_bound=True,
    ),
    Tier(
        "host",
        "measured on this machine",
        "Measured on the machine that ran the bench, with the threads and the memory limit of the device profile. It"
        " says nothing about the device's own speed.",
        # Medians on a shared machine differ by that much from run to run.
        noise=0.1,
        repeatable=False,
        measured=True,
    ),
    Tier(
        "emulated",
        "predicted from counts on the device's emulated core",
        "Predicted from the instructions and cache misses counted on the device's core under QEMU, by a cost model"
        " fitted to published timings. The interval is the error of that model. A core without published timings is"
        " uncalibrated: its figure has no interval.",
        # Counts under emulation repeat within 0.1 %.
        noise=1e-3,
        repeatable=True,
        measured=False,
    ),
    Tier(
        "device",
        "measured on the device itself",
        "Measured on the device itself, in several processes; the interval is the range of their medians.",
        # What two benches of a board may differ by; gates add the noise that each of them has measured.
        noise=0.1,
        repeatable=False,
        measured=True,
    ),
)

_BY_NAME = {tier.name: tier for tier in TIERS}
TIER_NAMES = tuple(_BY_NAME)
# The name of a tier in a record.
TierName = Annotated[str, Pattern("|".join(TIER_NAMES), f"one of {', '.join(TIER_NAMES)}")]

_LATENCY = "latency_ms."
# Rules whose figures one tier alone produces. Peak memory is compared between runs by what the host measured.
_TIERS_OF_RULES = {"instructions": "emulated", "peak_memory_bytes": "host"}


def find_tier(name: str) -> Tier:
    """Return the row of a tier.

    Args:
        name: The name.

    Returns:
        The tier.

    Raises:
        KeyError: There is no such tier.
    """
    return _BY_NAME[name]


def tier_of_rule(rule: str) -> Tier | None:
    """Return the tier that the figures of a rule belong to.

    Args:
        rule: The rule of a budget or of a change, for example `latency_ms.host`.

    Returns:
        The tier; None where the figure belongs to none, as `size_bytes`.
    """
    return _BY_NAME.get(_TIERS_OF_RULES.get(rule, rule.removeprefix(_LATENCY) if rule.startswith(_LATENCY) else ""))


def is_repeatable(rule: str) -> bool:
    """Return whether the figures of a rule repeat from run to run.

    Args:
        rule: The rule of a budget or of a change.

    Returns:
        True for figures of repeatable tiers, and for those that belong to no tier.
    """
    tier = tier_of_rule(rule)
    return tier is None or tier.repeatable

"""The costs of single operators, which `bench-<device>.json` contains, and comparisons of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.units import format_ms
from edgekit.core.values.typed_json import MeanCount, Milliseconds, Name

# Separates the kinds of operators that a runtime fuses.
JOINED = " + "

# The most operators that an explanation names.
_MAX_NAMED = 3

# The smallest share of the whole slowdown that is named: a smaller one does not explain it.
_MIN_SHARE = 0.05


@dataclass(frozen=True)
class Operator:
    """An operator of a model file.

    Attributes:
        kind: The operator's type, such as `CONV_2D`.
        name: The name of its first output.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class OperatorCost:
    """The cost of one operator of an inference, or of several that the runtime fuses.

    Attributes:
        kind: The operator's type; the types of fused operators, separated by ` + `.
        name: The name of the first output of the last operator.
        latency_ms: The latency in ms, in the tier that measured it.
        instructions: The number of instructions (emulated tier only).
        memory_misses: Lines of 64 bytes that are read from memory (emulated tier only).
    """

    kind: Name
    name: Name
    latency_ms: Milliseconds
    instructions: MeanCount | None = None
    memory_misses: MeanCount | None = None

    @property
    def title(self) -> str:
        """Type and name, such as `CONV_2D model/conv1`."""
        return f"{self.kind} {self.name}".strip()


def explain_slowdown(before: Sequence[OperatorCost], now: Sequence[OperatorCost]) -> str:
    """Name the operators that account for most of a slowdown.

    Args:
        before: The operators of the earlier measurement.
        now: The operators of the later one.

    Returns:
        Up to three operators with both latencies, such as `CONV_2D b 2 ms -> 5 ms`; empty if none is slower.
    """
    pairs = pair_operators(before, now)
    growths = [(new.latency_ms - (old.latency_ms if old else 0.0), old, new) for old, new in pairs]
    slower = sorted((growth for growth in growths if growth[0] > 0), key=lambda growth: -growth[0])
    total_ms = sum(growth_ms for growth_ms, _, _ in slower)
    named = [growth for growth in slower if growth[0] > _MIN_SHARE * total_ms][:_MAX_NAMED]
    return "; ".join(_format_change(old, new) for _, old, new in named)


def pair_operators(
    before: Sequence[OperatorCost], now: Sequence[OperatorCost]
) -> list[tuple[OperatorCost | None, OperatorCost]]:
    """Pair operators by kind and name; the others by kind in the order of computation, since converters renumber.

    Args:
        before: The operators of the earlier measurement.
        now: The operators of the later one.

    Returns:
        Each operator of `now` with its partner, or None if there is none.
    """
    by_title = {cost.title: cost for cost in before}
    same_titles = {cost.title for cost in now} & by_title.keys()
    unpaired: dict[str, list[OperatorCost]] = {}
    for cost in before:
        if cost.title not in same_titles:
            unpaired.setdefault(cost.kind, []).append(cost)
    pairs: list[tuple[OperatorCost | None, OperatorCost]] = []
    for cost in now:
        candidates = unpaired.get(cost.kind)
        counterpart = by_title[cost.title] if cost.title in same_titles else (candidates.pop(0) if candidates else None)
        pairs.append((counterpart, cost))
    return pairs


def _format_change(old: OperatorCost | None, new: OperatorCost) -> str:
    if old is None:
        return f"{new.title} is new ({format_ms(new.latency_ms)})"
    return f"{new.title} {format_ms(old.latency_ms)} -> {format_ms(new.latency_ms)}"


def operator_count_changes(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Describe how the numbers of operators differ.

    Args:
        before: Operator kind -> number, in the earlier file.
        now: The same, in the later file.

    Returns:
        The kinds that differ, such as `TRANSPOSE 0 -> 2`; empty if none does.
    """
    old, new = Counter(before), Counter(now)
    return ", ".join(f"{kind} {old[kind]} -> {new[kind]}" for kind in sorted(old | new) if old[kind] != new[kind])

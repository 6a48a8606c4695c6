"""What single operators of a model cost, and which of them became dearer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.units import format_ms

JOINED = " + "
"""Between operators that a runtime makes one of."""

_NAMED = 3
_WORTH_NAMING = 0.05
"""Of what all operators lost together: less is not the reason for it."""


@dataclass(frozen=True)
class Operator:
    """An operator of a file: what it is (`CONV_2D`), and what its first output is called."""

    kind: str
    name: str


@dataclass(frozen=True)
class OperatorCost:
    """One operator of an inference, or several that the runtime fused. Milliseconds are of the tier that tells them;
    instructions and lines from memory are counted in the emulated one only."""

    kind: str
    name: str
    latency_ms: float
    instructions: float | None = None
    memory_misses: float | None = None

    @property
    def title(self) -> str:
        """`CONV_2D model/conv1`"""
        return f"{self.kind} {self.name}".strip()


def explain_slowdown(before: Sequence[OperatorCost], now: Sequence[OperatorCost]) -> str:
    """The operators that make most of the difference, in words; empty where none costs more.

    Operators are the same when kind and name are; of the others, those of one kind are paired in the order of
    computation, since converters number names anew.
    """
    pairs = _paired(before, now)
    grown = [(new.latency_ms - (old.latency_ms if old else 0.0), old, new) for old, new in pairs]
    lost = sorted((item for item in grown if item[0] > 0), key=lambda item: -item[0])
    total = sum(item[0] for item in lost)
    told = [item for item in lost if item[0] > _WORTH_NAMING * total][:_NAMED]
    return "; ".join(_change(old, new) for _, old, new in told)


def _paired(
    before: Sequence[OperatorCost], now: Sequence[OperatorCost]
) -> list[tuple[OperatorCost | None, OperatorCost]]:
    by_title = {item.title: item for item in before}
    same = {item.title for item in now} & by_title.keys()
    left: dict[str, list[OperatorCost]] = {}
    for item in before:
        if item.title not in same:
            left.setdefault(item.kind, []).append(item)
    pairs: list[tuple[OperatorCost | None, OperatorCost]] = []
    for item in now:
        others = left.get(item.kind)
        known = by_title[item.title] if item.title in same else (others.pop(0) if others else None)
        pairs.append((known, item))
    return pairs


def _change(old: OperatorCost | None, new: OperatorCost) -> str:
    if old is None:
        return f"{new.title} is new ({format_ms(new.latency_ms)})"
    return f"{new.title} {format_ms(old.latency_ms)} -> {format_ms(new.latency_ms)}"


def operator_count_changes(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """How the numbers of operators by kind differ, in words: `TRANSPOSE 0 -> 2`; empty where they do not."""
    old, new = Counter(before), Counter(now)
    return ", ".join(f"{kind} {old[kind]} -> {new[kind]}" for kind in sorted(old | new) if old[kind] != new[kind])

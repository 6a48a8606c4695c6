"""A bench against an earlier one: what got worse by more than is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_json
from edgekit.core.errors import InputError
from edgekit.core.records.measurement import Measurement, measurement_from_dict
from edgekit.core.records.operator_costs import explain_slowdown, operator_count_changes
from edgekit.core.values.budgets import Verdict, format_rule
from edgekit.core.values.tiers import is_repeatable


def load_baseline(path: Path) -> tuple[Measurement, ...]:
    """The benches in the file: a bench-<device>.json, or what `edgekit bench --json` or `edgekit report` wrote.

    Raises InputError when it is none of these, or damaged.
    """
    data = read_json(path, "baseline")
    if "artifacts" in data:
        items: Any = [item for row in data["artifacts"] for item in row.get("measurements", ())]
    else:
        items = data.get("measurements", [data])
    found = tuple(measurement_from_dict(item, path) for item in items)
    if not found:
        raise InputError(f"{path}: there is no bench in this baseline")
    return found


def figures_of(item: Measurement) -> dict[str, float]:
    """What is compared, by rule."""
    found = {"size_bytes": float(item.size_bytes), **{f"latency_ms.{name}": ms for name, ms in item.latency_ms.items()}}
    if item.emulated is not None:
        found["instructions"] = item.emulated.counts.instructions
    return found


def _key(item: Measurement) -> tuple[str, ...]:
    return (item.model, item.kind, str(item.variant), item.device)


def regressions(
    baseline: Sequence[Measurement], done: Sequence[Measurement], allowed: float, origin: str
) -> tuple[Verdict, ...]:
    """A verdict for each figure that both benches have; one that only the baseline has is broken.

    `allowed` is relative: 0.02 lets a figure be 2 % higher. Raises InputError when the baseline is about nothing that
    was benched.
    """
    before = {_key(item): item for item in baseline}
    pairs = [(before[_key(item)], item) for item in done if _key(item) in before]
    if done and not pairs:
        raise InputError(f"{origin}: this baseline has none of the artifacts that were benched")
    return tuple(verdict for old, new in pairs for verdict in _judged(old, new, allowed, origin))


def _judged(old: Measurement, new: Measurement, allowed: float, origin: str) -> list[Verdict]:
    known, now = figures_of(old), figures_of(new)
    if "instructions" in known or "instructions" in now:
        # A measured latency changes by more from run to run than most changes of a model do.
        known = {rule: figure for rule, figure in known.items() if is_repeatable(rule)}
    same_threads = old.emulated is None or new.emulated is None or old.emulated.threads == new.emulated.threads
    if not same_threads:
        raise InputError(f"{origin}: this baseline was predicted for another number of threads")
    reason = _dearer(old, new)
    return [_verdict(new, rule, known[rule], now, allowed, origin, reason) for rule in sorted(known)]


def _dearer(old: Measurement, new: Measurement) -> str:
    """The operators that make the difference: those that cost more, or else how many there are of each kind now."""
    before, now = old.operators_by_tier, new.operators_by_tier
    tier = next((tier for tier in before if tier in now), None)
    if tier is not None:
        return explain_slowdown(before[tier], now[tier])
    kinds = operator_count_changes(old.kinds, new.kinds) if old.kinds else ""
    return kinds or "bench both with --per-op to see which operators"


def _verdict(
    item: Measurement, rule: str, before: float, now: Mapping[str, float], allowed: float, origin: str, reason: str
) -> Verdict:
    figure, limit = now.get(rule), before * (1 + allowed)
    passed = figure is not None and figure <= limit
    detail = "the baseline has this figure, and this bench has not" if figure is None else ""
    if figure is not None and not passed and rule != "size_bytes":
        detail = reason
    text = f"{origin} ({format_rule(rule, before)} and {100 * allowed:g} %)"
    variant = str(item.variant)
    return Verdict(item.model, item.kind, variant, rule, figure, limit, passed, text, item.device, detail)

"""The section Evidence: each figure of an artifact with its tolerance, its tier and the command that reproduces it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from edgekit.core.numerics.output_comparison import Comparison, format_figure
from edgekit.core.records.browser_figures import BrowserFigures
from edgekit.core.records.measurement import Measurement
from edgekit.core.records.report import ReportRow
from edgekit.core.records.validation import Drift
from edgekit.core.units import format_bytes, format_count, format_ms
from edgekit.reports._html.layers import ByLayer, by_layer
from edgekit.reports._html.tables import (
    drop_text,
    evidence_key,
    interval_text,
    metric_text,
    rule_text,
    spread,
    subject_of,
    threads_of,
    tiers_of,
    verdict_of,
)
from edgekit.reports._shared.cells import NOTHING, predicted
from edgekit.reports._shared.commands import (
    bench_command,
    check_command,
    diff_command,
    export_command,
    validate_command,
)

EXPORT, VALIDATE, DIFF, CHECK = "export", "validate", "diff", "check"


@dataclass(frozen=True)
class Fact:
    """One figure of an artifact.

    Attributes:
        figure: The name of the figure.
        limit: Its tolerance or budget as text.
        where: What the figure belongs to: an output, the test set, or a tier.
        command: The name of the command that reproduces it, as in `Evidence.commands`.
        verdict: `passed`, `FAILED`, with `, undecided` where that applies; empty for a figure without a limit.
    """

    figure: str
    value: str
    limit: str
    where: str
    command: str
    verdict: str = ""

    @property
    def mark(self) -> str:
        """The CSS class: `bad`, `doubt`, or empty for what passed."""
        return "bad" if "FAILED" in self.verdict else "doubt" if "undecided" in self.verdict else ""


@dataclass(frozen=True)
class Group:
    """Figures of one place that the same command reproduces."""

    command: str
    where: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Evidence:
    """Everything that the report holds on one artifact; `commands` maps the names that groups use to command lines."""

    key: str
    subject: str
    variant: str
    target: str
    precision: str
    verdict: str
    properties: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    failures: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    layers: ByLayer | None


def evidence(row: ReportRow) -> Evidence:
    """Return everything that the report holds on one artifact."""
    manifest = row.artifact.manifest
    stress = row.validation is not None and bool(row.validation.stress)
    benches = tuple((f"bench {bench.device}", bench_command(bench)) for bench in row.measurements)
    return Evidence(
        evidence_key(row),
        subject_of(row),
        str(manifest.variant),
        manifest.target,
        manifest.precision,
        verdict_of(row),
        tuple(_properties(row)),
        _grouped([*_exported(row), *_validated(row), *_emulated(row), *_benched(row), *_checked(row)]),
        tuple(verdict.sentence for verdict in row.verdicts if not verdict.passed),
        (
            (EXPORT, export_command(manifest)),
            *(((VALIDATE, validate_command(manifest, stress=stress)),) if row.validation else ()),
            *(
                (f"{VALIDATE} {validation.device}", validate_command(manifest, device=validation.device))
                for validation in row.emulated
            ),
            *(((DIFF, diff_command(row.layers)),) if row.layers else ()),
            *benches,
            *(((CHECK, check_command(manifest)),) if row.verdicts else ()),
        ),
        None if row.layers is None else by_layer(row.layers),
    )


def _grouped(facts: Sequence[Fact]) -> tuple[Group, ...]:
    runs = groupby(facts, key=lambda fact: (fact.command, fact.where))
    return tuple(Group(command, where, tuple(group)) for (command, where), group in runs)


def _properties(row: ReportRow) -> Iterator[tuple[str, str]]:
    manifest = row.artifact.manifest
    yield "file", manifest.file
    yield "sha256", manifest.sha256
    yield "route", " → ".join(manifest.route)
    yield "runtime", manifest.runtime
    if manifest.versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    yield "reproducible", "yes" if manifest.reproducible else f"no: {manifest.not_reproducible_because}"
    for note in manifest.notes:
        yield "note", note


def _exported(row: ReportRow) -> Iterator[Fact]:
    yield Fact("size", format_bytes(row.artifact.manifest.size_bytes), NOTHING, "model file", EXPORT)
    if row.measurements:
        compressed = row.measurements[0].compressed_bytes
        yield Fact(
            "size after gzip -9", format_bytes(compressed), NOTHING, "model file", f"bench {row.measurements[0].device}"
        )


def _validated(row: ReportRow) -> Iterator[Fact]:
    if row.validation is None:
        return
    for comparison in row.validation.comparisons:
        yield from _compared(comparison, f"output {comparison.output}, {comparison.samples} golden samples", VALIDATE)
    for comparison in row.validation.stress:
        where = f"output {comparison.output}, stress inputs, largest error on {row.validation.stress_case(comparison)}"
        yield from _compared(comparison, where, VALIDATE)
    for comparison in row.validation.batches:
        yield from _compared(comparison, f"output {comparison.output}, {comparison.samples} golden samples", VALIDATE)
    if row.validation.drift is not None:
        yield from _drifted(row.validation.drift)


def _emulated(row: ReportRow) -> Iterator[Fact]:
    """Yield the comparisons of outputs on emulated cores with those of the source, and of this host."""
    for validation in row.emulated:
        references = (("the source", validation.comparisons), ("the host", validation.against_host))
        for reference, comparisons in references:
            for comparison in comparisons:
                where = f"output {comparison.output}, emulated, against {reference}"
                yield from _compared(_main_figures(comparison), where, f"{VALIDATE} {validation.device}")


def _main_figures(comparison: Comparison) -> Comparison:
    """Return the comparison with the largest error and the figures that have a limit; the host has all others."""
    figures = (figure for figure in comparison.figures if figure.limit is not None or figure.name == "max_abs_error")
    return replace(comparison, figures=tuple(figures))


def _compared(comparison: Comparison, where: str, command: str) -> Iterator[Fact]:
    if comparison.problem is not None:
        yield Fact("comparison", comparison.problem, NOTHING, where, command, "FAILED")
    for channel in comparison.lost:
        yield Fact("channels", str(channel), NOTHING, where, command, "FAILED")
    for figure in comparison.figures:
        exact = figure.value is None and figure.name == "sqnr_db"
        value = "exact" if exact else format_figure(figure.value)
        verdict = "" if figure.limit is None else _word(figure.passed)
        yield Fact(figure.name, value, figure.limit_text or NOTHING, where, command, verdict)


def _drifted(drift: Drift) -> Iterator[Fact]:
    where = f"{drift.samples} test samples"
    yield Fact(f"{drift.metric}, source", metric_text(drift, drift.source), NOTHING, where, VALIDATE)
    yield Fact(f"{drift.metric}, artifact", metric_text(drift, drift.artifact), NOTHING, where, VALIDATE)
    yield Fact("drop", drop_text(drift, drift.drop), NOTHING, where, VALIDATE)
    if drift.interval is not None:
        yield Fact("drop, 95 % interval", interval_text(drift), NOTHING, where, VALIDATE)
    if drift.detectable is not None:
        yield Fact("smallest detectable drop", drop_text(drift, drift.detectable), NOTHING, where, VALIDATE)
    if drift.lost is not None:
        p_value = "" if drift.p_value is None else f", p {drift.p_value:.3g}"
        yield Fact("newly wrong, newly right", f"{drift.lost}, {drift.won}{p_value}", NOTHING, where, VALIDATE)
    if drift.top1_agreement is not None:
        limit = drift.min_top1_agreement
        verdict = "" if limit is None else _word(drift.passed)
        text = NOTHING if limit is None else f">= {limit:.4g}"
        yield Fact("top-1 agreement", f"{drift.top1_agreement:.4f}", text, where, VALIDATE, verdict)


def _benched(row: ReportRow) -> Iterator[Fact]:
    for bench in row.measurements:
        command = f"bench {bench.device}"
        for tier in tiers_of(bench):
            where = f"tier {tier}"
            value = f"{format_ms(bench.latency_ms[tier])} ({spread(bench, tier)})"
            yield Fact("latency", value, NOTHING, where, command)
            threads = threads_of(bench, tier)
            if threads is not None:
                yield Fact("threads", str(threads), NOTHING, where, command)
            for name, text in _tier_figures(bench, tier):
                yield Fact(name, text, NOTHING, where, command)
        for note in bench.notes:
            yield Fact("note", note, NOTHING, "", command)


def _tier_figures(bench: Measurement, tier: str) -> Iterator[tuple[str, str]]:
    """Yield the figures of a tier beside its latency and threads."""
    if tier == "host":
        yield "load", format_ms(bench.load_ms)
        yield "first inference", format_ms(bench.first_inference_ms)
        if bench.host_peak_memory_bytes is not None:
            yield "peak memory", format_bytes(bench.host_peak_memory_bytes)
    if tier == "emulated" and bench.emulated is not None:
        yield f"instructions, {bench.emulated.cpu}", format_count(bench.emulated.counts.instructions)
        yield "cache misses", format_count(bench.emulated.counts.memory_misses)
        if bench.emulated.peak_memory_bytes is not None:
            yield "peak memory", format_bytes(bench.emulated.peak_memory_bytes)
    execution = bench.execution(tier)
    if execution is not None:
        yield "machine", execution.description
        if execution.load_ms is not None:
            yield "load", format_ms(execution.load_ms)
        if execution.peak_memory_bytes is not None:
            yield "peak memory", format_bytes(execution.peak_memory_bytes)
        yield from _browser_figures(execution.browser)
        if predicted(bench, execution.latency_ms) != NOTHING:
            yield "prediction of the emulated tier", predicted(bench, execution.latency_ms)
        for note in execution.notes:
            yield "note", note


def _browser_figures(figures: BrowserFigures | None) -> Iterator[tuple[str, str]]:
    if figures is not None:
        yield "load of the runtime", format_ms(figures.runtime_load_ms)
        yield "transfer of runtime and model, brotli", format_bytes(figures.transfer.brotli_bytes)


def _checked(row: ReportRow) -> Iterator[Fact]:
    for verdict in row.verdicts:
        where = ", ".join(filter(None, (verdict.device, f"limits of {verdict.origin}")))
        limit = NOTHING if verdict.limit is None else f"<= {rule_text(verdict.rule, verdict.limit)}"
        value = rule_text(verdict.rule, verdict.figure) if verdict.limit is not None else verdict.detail or "holds"
        word = _word(verdict.passed) + (", undecided" if verdict.undecided else "")
        yield Fact(f"rule {verdict.rule}", value, limit, where, CHECK, word)


def _word(passed: bool) -> str:
    return "passed" if passed else "FAILED"

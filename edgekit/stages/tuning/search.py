"""Which layers to keep in float: put back one unit at a time, by what that gains at the output, then greedily.

The noise that quantized layers leave at the output adds up in power, so units are compared by the noise power that they
take away, and a gain that was measured before others were put back is still a good guess afterwards: only the best
guesses are measured again. Where a network is so far gone that no single unit gains anything, because the others drown
it out, each is quantized alone in a float network instead, and the noisiest goes first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgekit.contracts.target import QuantizableLayer
from edgekit.core.numerics import metrics
from edgekit.core.numerics.metrics import TASK_METRICS, Array
from edgekit.core.numerics.output_comparison import compare_outputs
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.records.tuning import Candidate, Constraints, LayerGroup, LayerSensitivity
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.tolerances import Tolerances
from edgekit.stages.tuning.trial_job import TrialResult
from edgekit.stages.validation.validate import drift_of, without_agreement

PROBE_TESTS = 200
"""So many test samples tell what a unit does to the metric; candidates run all of them."""
_ROUNDS = 12
_HALF_TITLE = 24
_LOOKS = 8  # units that are measured again before one is taken
_USELESS_DB = 0.5
_FREE_DB = 1.0  # a layer whose float gains less than this at the output goes back

Attempt = Callable[[Recipe, int | None], TrialResult | None]
"""Makes and runs a recipe's file, on so many test samples; None where that failed."""


@dataclass(frozen=True)
class Judge:
    """What candidates are judged by: the source's own outputs for golden and test samples."""

    source: SourceModel
    golden: Samples
    test: Samples | None
    tolerances: Callable[[str], Mapping[str, Tolerances]]

    @property
    def labelled(self) -> bool:
        """Whether there is a task metric to judge by."""
        return self.source.metric in TASK_METRICS and self.test is not None and self.test.labels is not None

    def sqnr_db(self, outcome: TrialResult) -> float:
        """Of the worst output on the golden samples; minus infinity where it is not even comparable."""
        found = []
        for name, reference in self.golden.outputs.items():
            actual = outcome.golden.get(name)
            if actual is None or actual.shape != reference.shape or not np.isfinite(actual.astype(np.float64)).all():
                return -math.inf
            found.append(metrics.sqnr_db(reference, actual))
        return min(found)

    def drop(self, outputs: Mapping[str, Array]) -> float | None:
        """The drop of the task metric on as many of the test samples as there are outputs."""
        if not self.labelled:
            return None
        assert self.test is not None
        assert self.test.labels is not None
        metric = TASK_METRICS[str(self.source.metric)]
        name, inputs = next(iter(self.test.outputs)), next(iter(self.test.inputs.values()))
        count = len(outputs[name])
        labels = self.test.labels[:count]
        if metric.per_sample is None and len(np.unique(labels)) < 2:
            return None  # an AUC needs both kinds
        pair = (self.test.outputs[name][:count], outputs[name])
        before, after = (metric.compute(array, labels, inputs[:count]) for array in pair)
        return metric.drop(before, after)

    def candidate(self, recipe: Recipe, outcome: TrialResult, float_share: float = 0.0) -> Candidate:
        """The verdict on a file that ran on everything."""
        tolerances = self.tolerances(recipe.precision)
        classifier = self.source.task == "classification"
        limits = tolerances if self.test is None else without_agreement(tolerances)
        compared = compare_outputs(self.golden.outputs, outcome.golden, limits, classifier=classifier)
        failures = [clause for item in compared for clause in item.failures]
        sqnr = self.sqnr_db(outcome)
        drift = None
        if self.labelled and outcome.test is not None and all(item.problem is None for item in compared):
            assert self.test is not None
            judged = tolerances[next(iter(self.test.outputs))]
            drift = drift_of(self.source.metric, self.source.task, self.test, outcome.test, judged)
        if drift is not None and not drift.passed:
            failures.append(f"top-1 agreement {drift.top1_agreement:.4f}, tolerance >= {drift.min_top1_agreement:g}")
        return Candidate(
            recipe,
            outcome.size_bytes,
            outcome.sha256,
            None if math.isinf(sqnr) and sqnr > 0 else max(sqnr, -999.0),
            _relative_error(sqnr) if drift is None else drift.drop,
            drift,
            tuple(failures),
            float_share,
        )


def _relative_error(sqnr_db: float) -> float:
    """Noise over signal, as amplitudes: 10^(-SQNR / 20); 40 dB is one per cent."""
    return float(10 ** (-max(sqnr_db, -999.0) / 20)) if math.isfinite(sqnr_db) else (0.0 if sqnr_db > 0 else 1e9)


def layer_groups(layers: Sequence[QuantizableLayer]) -> tuple[LayerGroup, ...]:
    """What is put back into float at a time: each layer, and each tensor's producer with its readers.

    A tensor between two quantized layers stays quantized while one of them is. Layers without weights that only pass
    one tensor on (activations, reshapes, pools) belong to the tensor: their neighbours join them.
    """
    by_name = {layer.name: layer for layer in layers}
    makers = {tensor: layer.name for layer in layers for tensor in layer.outputs}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for tensor in layer.inputs:
            readers.setdefault(tensor, []).append(layer.name)
    passing = {layer.name for layer in layers if not layer.weights and len(layer.inputs) == len(layer.outputs) == 1}
    groups: list[tuple[str, ...]] = [(layer.name,) for layer in layers]
    for tensor in makers:
        groups.append(_around(tensor, by_name, makers, readers, passing))
    unique = dict.fromkeys(group for group in groups if group)
    return tuple(
        LayerGroup(group, _title(group, by_name), sum(by_name[name].weights for name in group)) for group in unique
    )


def _around(
    tensor: str,
    by_name: Mapping[str, QuantizableLayer],
    makers: Mapping[str, str],
    readers: Mapping[str, Sequence[str]],
    passing: set[str],
) -> tuple[str, ...]:
    """The names of the layers that touch a tensor, and those beyond what only passes it on, in their order."""
    found: set[str] = set()
    tensors, seen = [tensor], {tensor}
    while tensors:
        current = tensors.pop()
        touching = {makers[current]} if current in makers else set()
        for name in touching | set(readers.get(current, ())):
            found.add(name)
            if name in passing:
                onward = {*by_name[name].inputs, *by_name[name].outputs} - seen
                seen |= onward
                tensors += sorted(onward)
    return tuple(name for name in by_name if name in found)


def _title(group: Sequence[str], by_name: Mapping[str, QuantizableLayer]) -> str:
    titles = [by_name[name].title for name in group]
    if len(titles) == 1:
        return titles[0]
    return " … ".join(
        text if len(text) <= _HALF_TITLE else f"…{text[1 - _HALF_TITLE :]}" for text in (titles[0], titles[-1])
    )


@dataclass
class Search:
    """One search for the layers of one precision. `deadline_s` is on the monotonic clock; None never comes."""

    attempt: Attempt
    judge: Judge
    constraints: Constraints
    layers: Sequence[QuantizableLayer]
    progress: Callable[[str, int, int], None]
    note: Callable[[str], None]
    deadline_s: float | None = None
    sensitivities: list[LayerSensitivity] = field(default_factory=list)
    _alone: dict[LayerGroup, float] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s

    def share(self, names: Iterable[str]) -> float:
        """The part of all weights that these layers hold."""
        wanted = set(names)
        whole = sum(layer.weights for layer in self.layers)
        return sum(layer.weights for layer in self.layers if layer.name in wanted) / whole if whole else 0.0

    def candidate(self, recipe: Recipe) -> Candidate | None:
        """A recipe made, run on everything and judged."""
        outcome = self.attempt(recipe, None)
        return None if outcome is None else self.judge.candidate(recipe, outcome, self.share(recipe.float_layers))

    def grow(self, start: Recipe) -> list[Candidate]:
        """Candidates with more and more layers in float, until one is accurate or nothing more may be put back."""
        base = self.attempt(start, PROBE_TESTS)
        if base is None:
            return []
        every = layer_groups(self.layers)
        noise = _noise(self.judge.sqnr_db(base))
        gains = self._measure_sensitivity(start, every, base)
        found: list[Candidate] = []
        kept: frozenset[str] = frozenset()
        for _ in range(_ROUNDS):
            unit = None if self.late else self._next(start, every, kept, noise, gains)
            if unit is None:
                break
            kept = kept | set(unit.names)
            item = self.candidate(self._with(start, kept))
            if item is None:
                break
            left = _noise(math.inf if item.sqnr_db is None else item.sqnr_db)
            if not found or left < noise or item.accurate(self.constraints):
                found.append(item)
            noise = left
            if item.accurate(self.constraints):
                return found
        self._note_heavy(gains, noise)
        return found

    def measure_sensitivity(self, start: Recipe) -> list[LayerSensitivity]:
        """What each unit gains when it alone is kept in float, the greatest gain first."""
        base = self.attempt(start, PROBE_TESTS)
        if base is not None:
            self._measure_sensitivity(start, layer_groups(self.layers), base)
        return self.sensitivities

    def _note_heavy(self, gains: Mapping[LayerGroup, float], noise: float) -> None:
        """Says so where layers would gain that are too heavy to stay in float."""
        heavy = [unit for unit, gain in gains.items() if gain > noise / 4 and self.share(unit.names) > self._limit]
        if heavy:
            lightest = min(heavy, key=lambda unit: unit.weights)
            self.note(
                f"{lightest.title} would gain too, but holds {self.share(lightest.names):.0%} of the weights:"
                f" more than --max-float {self._limit:.0%}"
            )

    @property
    def _limit(self) -> float:
        return self.constraints.max_float_share

    def _with(self, recipe: Recipe, names: Iterable[str]) -> Recipe:
        """The recipe with these layers in float, in the order of computation."""
        wanted = set(names)
        return replace(recipe, float_layers=tuple(layer.name for layer in self.layers if layer.name in wanted))

    def _measure_sensitivity(
        self, start: Recipe, every: Sequence[LayerGroup], base: TrialResult
    ) -> dict[LayerGroup, float]:
        """Puts back each unit alone: the noise power that it takes away. Fills `blames`, the greatest gain first."""
        before_db = self.judge.sqnr_db(base)
        before_drop = None if base.test is None else self.judge.drop(base.test)
        gains: dict[LayerGroup, float] = {}
        found = []
        for index, unit in enumerate(every):
            if self.late:
                break
            self.progress("sensitivity", index, len(every))
            outcome = self.attempt(self._with(start, unit.names), PROBE_TESTS)
            if outcome is None:
                continue
            sqnr = self.judge.sqnr_db(outcome)
            gains[unit] = _noise(before_db) - _noise(sqnr)
            drop = None if outcome.test is None else self.judge.drop(outcome.test)
            gained = None if drop is None or before_drop is None else before_drop - drop
            found.append(LayerSensitivity(unit, _difference(sqnr, before_db), self.share(unit.names), gained))
        self.sensitivities = sorted(found, key=lambda item: (-item.gain_db, item.share))
        return gains

    def _next(
        self,
        start: Recipe,
        every: Sequence[LayerGroup],
        kept: frozenset[str],
        noise: float,
        gains: dict[LayerGroup, float],
    ) -> LayerGroup | None:
        """The unit that takes away most of the noise that is left, of those that may still go back."""
        open_units = [unit for unit in every if unit in gains and self._may(unit, kept)]
        looked: dict[LayerGroup, float] = {}
        for _ in range(_LOOKS):
            ranked = sorted(open_units, key=lambda unit: (-looked.get(unit, gains[unit]), unit.weights))
            if not ranked or self.late:
                return None
            if ranked[0] in looked or not kept:
                break  # measured as things stand now, and still the best
            outcome = self.attempt(self._with(start, {*kept, *ranked[0].names}), 0)
            looked[ranked[0]] = -math.inf if outcome is None else noise - _noise(self.judge.sqnr_db(outcome))
        gains |= looked
        gain_db = _db(noise) - _db(noise - gains[ranked[0]])
        return ranked[0] if gain_db >= _USELESS_DB else self._noisiest(start, every, open_units)

    def _may(self, unit: LayerGroup, kept: frozenset[str]) -> bool:
        names = {*kept, *unit.names}
        return names != kept and self.share(names) <= self._limit

    def _noisiest(
        self, start: Recipe, every: Sequence[LayerGroup], open_units: Sequence[LayerGroup]
    ) -> LayerGroup | None:
        """The unit that leaves most noise when it alone is quantized."""
        if not self._alone:
            names = [layer.name for layer in self.layers]
            for index, unit in enumerate(every):
                if self.late:
                    break
                self.progress("alone", index, len(every))
                outcome = self.attempt(self._with(start, set(names) - set(unit.names)), 0)
                if outcome is not None:
                    self._alone[unit] = self.judge.sqnr_db(outcome)
            self.sensitivities = [replace(item, alone_db=self._alone.get(item.unit)) for item in self.sensitivities]
        known = [unit for unit in open_units if unit in self._alone]
        return min(known, key=lambda unit: (self._alone[unit], unit.weights), default=None)

    def prune(self, accurate: Candidate) -> Candidate:
        """The candidate without the layers in float that gain nothing, the heaviest tried first."""
        weights = {layer.name: layer.weights for layer in self.layers}
        best = accurate
        for name in sorted(accurate.recipe.float_layers, key=lambda name: -weights[name]):
            if self.late or len(best.recipe.float_layers) == 1:
                break
            item = self.candidate(self._with(best.recipe, set(best.recipe.float_layers) - {name}))
            if item is not None and item.accurate(self.constraints) and self._no_worse(item, accurate):
                best = item
        return best

    def _no_worse(self, item: Candidate, before: Candidate) -> bool:
        if item.drop > before.drop and self.judge.labelled:
            return False
        one, other = (140.0 if sqnr is None else sqnr for sqnr in (item.sqnr_db, before.sqnr_db))
        return one >= other - _FREE_DB

    def narrow(self, accurate: Candidate) -> Candidate | None:
        """The candidate with int16 activations and int8 weights where they do instead of float; None where nowhere."""
        able = {layer.name for layer in self.layers if layer.int16}
        best: Candidate | None = None
        recipe = accurate.recipe
        for name in accurate.recipe.float_layers:
            if name not in able or self.late:
                continue
            moved = tuple(layer.name for layer in self.layers if layer.name in {*recipe.int16_layers, name})
            item = self.candidate(replace(self._with(recipe, set(recipe.float_layers) - {name}), int16_layers=moved))
            if item is not None and item.accurate(self.constraints):
                best, recipe = item, item.recipe
        return best


def _noise(sqnr_db: float) -> float:
    """Noise power over signal power."""
    return 0.0 if sqnr_db == math.inf else float(10 ** (-max(sqnr_db, -300.0) / 10))


def _db(noise: float) -> float:
    return 10 * math.log10(max(noise, 1e-30))


def _difference(after: float, before: float) -> float:
    """In dB; what became exact counts as 140 dB, float32 against itself."""
    one, other = (min(max(value, -300.0), 140.0) for value in (after, before))
    return one - other

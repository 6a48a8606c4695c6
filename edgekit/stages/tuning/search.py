"""Searches for the layers to keep in float: a greedy search over groups of layers, by noise removed at the output.

The quantization noise of independent layers adds up in power at the output. Layer groups are therefore ranked by the
noise power that they remove when they are kept in float. A gain measured earlier remains a good estimate after other
groups were moved to float, so only the best candidates are measured again. In a network where no single group gains
anything, because the noise of the others dominates, each group is quantized alone and the noisiest one goes first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgekit.contracts.target import QuantizableLayer
from edgekit.core.numerics.metrics import TASK_METRICS, Array
from edgekit.core.numerics.output_comparison import compare_output, compare_outputs
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.records.tuning import Candidate, Constraints, LayerGroup, LayerSensitivity
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.tolerances import Tolerances
from edgekit.stages.tuning.trial_job import TrialResult
from edgekit.stages.validation.artifact_tolerances import without_agreement
from edgekit.stages.validation.drift import drift_of

# The test samples for the sensitivity of one layer group: enough for a ranking; candidates run on all samples.
PROBE_TESTS = 200
# The largest number of layer groups to move to float, which bounds the duration of a search.
_MAX_ROUNDS = 12
# The longest title of the first and last layer of a group, in characters, so that a table row stays on one line.
_HALF_TITLE = 24
# The largest number of groups to measure again per round, which bounds the number of trials.
_MAX_REMEASUREMENTS = 8
# A group that reduces the noise by less than this is not the cause: other noise dominates it.
_MIN_GAIN_DB = 0.5
# A layer is quantized again if keeping it in float gains less than this at the output.
_PRUNE_TOLERANCE_DB = 1.0
# The SQNR that an exact result counts as: float32 against itself, where the true value is infinite.
_EXACT_DB = 140.0

# Converts and runs a recipe on a number of test samples (None for all); returns None if that fails.
Attempt = Callable[[Recipe, int | None], TrialResult | None]


@dataclass(frozen=True)
class Judge:
    """The reference that candidates are compared with.

    Attributes:
        source: The source model.
        golden: The golden samples, with the source's outputs.
        test: The test samples, with the source's outputs; None if there are none.
        tolerances: A function that returns the tolerances by output for a precision.
    """

    source: SourceModel
    golden: Samples
    test: Samples | None
    tolerances: Callable[[str], Mapping[str, Tolerances]]

    @property
    def labelled(self) -> bool:
        """Whether candidates can be judged by a task metric."""
        return self.source.metric in TASK_METRICS and self.test is not None and self.test.labels is not None

    def sqnr_db(self, outcome: TrialResult) -> float:
        """Return the SQNR of the worst output on the golden samples, or of the worst channel that it has lost.

        Args:
            outcome: The outputs of a candidate.

        Returns:
            The SQNR in dB; minus infinity for an output that is missing, of another shape, or not finite.
        """
        values = []
        for name, reference in self.golden.outputs.items():
            actual = outcome.golden.get(name)
            if actual is None or actual.shape != reference.shape or not np.isfinite(actual.astype(np.float64)).all():
                return -math.inf
            layout = self.source.signature.output_layouts.get(name)
            limits = find_precision("int8").tolerances
            values.append(compare_output(name, reference, actual, limits, classifier=False, layout=layout).sqnr_db)
        return min(values)

    def drop(self, outputs: Mapping[str, Array]) -> float | None:
        """Compute the drop of the task metric on the first test samples.

        Args:
            outputs: The outputs by name, each of shape (N, ...) for the first N test samples.

        Returns:
            The drop in the unit of the metric; None without a task metric, or if it is undefined for these samples.
        """
        if not self.labelled:
            return None
        assert self.test is not None
        assert self.test.labels is not None
        metric = TASK_METRICS[str(self.source.metric)]
        name, inputs = next(iter(self.test.outputs)), next(iter(self.test.inputs.values()))
        count = len(outputs[name])
        labels = self.test.labels[:count]
        if metric.per_sample is None and len(np.unique(labels)) < 2:
            return None  # an AUC is undefined unless both classes occur
        pair = (self.test.outputs[name][:count], outputs[name])
        before, after = (metric.compute(array, labels, inputs[:count]) for array in pair)
        return metric.drop(before, after)

    def candidate(self, recipe: Recipe, outcome: TrialResult, float_share: float = 0.0) -> Candidate:
        """Judge a file by its outputs on all samples.

        Args:
            recipe: The recipe that the file was made by.
            outcome: Its size and outputs.
            float_share: The share of the weights in float, from 0 to 1.

        Returns:
            The candidate.
        """
        tolerances = self.tolerances(recipe.precision)
        classifier = self.source.task == "classification"
        limits = tolerances if self.test is None else without_agreement(tolerances)
        layouts = self.source.signature.output_layouts
        compared = compare_outputs(self.golden.outputs, outcome.golden, limits, classifier=classifier, layouts=layouts)
        failures = [failure for comparison in compared for failure in comparison.failures]
        sqnr = self.sqnr_db(outcome)
        drift = None
        if self.labelled and outcome.test is not None and all(comparison.problem is None for comparison in compared):
            assert self.test is not None
            tolerance = tolerances[next(iter(self.test.outputs))]
            drift = drift_of(self.source.metric, self.source.task, self.test, outcome.test, tolerance)
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
    """Return noise over signal as amplitudes, 10^(-SQNR / 20); 40 dB is 1 %."""
    return float(10 ** (-max(sqnr_db, -999.0) / 20)) if math.isfinite(sqnr_db) else (0.0 if sqnr_db > 0 else 1e9)


def layer_groups(layers: Sequence[QuantizableLayer]) -> tuple[LayerGroup, ...]:
    """Group the layers that are moved to float together: each layer, and each tensor's producer with its consumers.

    A tensor between two layers stays quantized while either of them is. A layer without weights that has one input and
    one output (an activation, reshape or pooling) belongs to the tensor, so the group extends beyond it.

    Args:
        layers: The quantizable layers in execution order.

    Returns:
        The groups, without duplicates.
    """
    by_name = {layer.name: layer for layer in layers}
    producers = {tensor: layer.name for layer in layers for tensor in layer.outputs}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for tensor in layer.inputs:
            readers.setdefault(tensor, []).append(layer.name)
    pass_through = {
        layer.name for layer in layers if not layer.weights and len(layer.inputs) == len(layer.outputs) == 1
    }
    groups: list[tuple[str, ...]] = [(layer.name,) for layer in layers]
    for tensor in producers:
        groups.append(_tensor_neighbours(tensor, by_name, producers, readers, pass_through))
    unique = dict.fromkeys(group for group in groups if group)
    return tuple(
        LayerGroup(group, _title(group, by_name), sum(by_name[name].weights for name in group)) for group in unique
    )


def _tensor_neighbours(
    tensor: str,
    by_name: Mapping[str, QuantizableLayer],
    producers: Mapping[str, str],
    readers: Mapping[str, Sequence[str]],
    pass_through: set[str],
) -> tuple[str, ...]:
    """Return the layers that write or read a tensor, directly or through pass-through layers, in execution order."""
    neighbours: set[str] = set()
    tensors, visited = [tensor], {tensor}
    while tensors:
        current = tensors.pop()
        touching = {producers[current]} if current in producers else set()
        for name in touching | set(readers.get(current, ())):
            neighbours.add(name)
            if name in pass_through:
                onward = {*by_name[name].inputs, *by_name[name].outputs} - visited
                visited |= onward
                tensors += sorted(onward)
    return tuple(name for name in by_name if name in neighbours)


def _title(group: Sequence[str], by_name: Mapping[str, QuantizableLayer]) -> str:
    titles = [by_name[name].title for name in group]
    if len(titles) == 1:
        return titles[0]
    return " … ".join(
        text if len(text) <= _HALF_TITLE else f"…{text[1 - _HALF_TITLE :]}" for text in (titles[0], titles[-1])
    )


@dataclass
class Search:
    """A search for the layers to keep in float at one precision.

    Attributes:
        attempt: The function that converts and runs a recipe.
        judge: The reference that candidates are compared with.
        constraints: The limits of the user.
        layers: The quantizable layers in execution order.
        progress: A callback with the phase, the number of completed trials and their total.
        note: A callback for notes.
        deadline_s: The end of the search on the monotonic clock in seconds; None for no limit.
        sensitivities: The sensitivity of each layer group, the largest gain first; filled by the search.
    """

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
        """Whether the deadline has passed."""
        return self.deadline_s is not None and time.monotonic() >= self.deadline_s

    def share(self, names: Iterable[str]) -> float:
        """Return the share of all weights that some layers hold, from 0 to 1."""
        selected = set(names)
        total = sum(layer.weights for layer in self.layers)
        return sum(layer.weights for layer in self.layers if layer.name in selected) / total if total else 0.0

    def candidate(self, recipe: Recipe) -> Candidate | None:
        """Convert a recipe, run it on all samples and judge it.

        Args:
            recipe: The recipe.

        Returns:
            The candidate, or None if the conversion fails.
        """
        outcome = self.attempt(recipe, None)
        return None if outcome is None else self.judge.candidate(recipe, outcome, self.share(recipe.float_layers))

    def grow(self, start: Recipe) -> list[Candidate]:
        """Move one layer group after another to float.

        Args:
            start: The recipe without layers in float.

        Returns:
            The candidates, each with more layers in float, up to the first one that is accurate enough; empty if the
            start cannot be converted.
        """
        base = self.attempt(start, PROBE_TESTS)
        if base is None:
            return []
        groups = layer_groups(self.layers)
        noise = _noise_power(self.judge.sqnr_db(base))
        gains = self._measure_sensitivity(start, groups, base)
        candidates: list[Candidate] = []
        kept: frozenset[str] = frozenset()
        for _ in range(_MAX_ROUNDS):
            group = None if self.late else self._next_group(start, groups, kept, noise, gains)
            if group is None:
                break
            kept = kept | set(group.names)
            candidate = self.candidate(self._with_float(start, kept))
            if candidate is None:
                break
            remaining = _noise_power(math.inf if candidate.sqnr_db is None else candidate.sqnr_db)
            accurate = candidate.accurate(self.constraints)
            if not candidates or remaining < noise or accurate:
                candidates.append(candidate)
            noise = remaining
            if accurate:
                return candidates
        self._note_heavy_groups(gains, noise)
        return candidates

    def measure_sensitivity(self, start: Recipe) -> list[LayerSensitivity]:
        """Measure the gain of each layer group when it alone is kept in float.

        Args:
            start: The recipe without layers in float.

        Returns:
            The sensitivities, the largest gain first; empty if the start cannot be converted.
        """
        base = self.attempt(start, PROBE_TESTS)
        if base is not None:
            self._measure_sensitivity(start, layer_groups(self.layers), base)
        return self.sensitivities

    def _note_heavy_groups(self, gains: Mapping[LayerGroup, float], noise: float) -> None:
        """Emit a note about layers that would help in float but have too many weights."""
        # A quarter of the remaining noise is 1.2 dB at the output.
        heavy = [group for group, gain in gains.items() if gain > noise / 4 and self.share(group.names) > self._limit]
        if heavy:
            lightest = min(heavy, key=lambda group: group.weights)
            self.note(
                f"{lightest.title} would also reduce the error in float, but holds {self.share(lightest.names):.0%} of"
                f" the weights: more than --max-float {self._limit:.0%}"
            )

    @property
    def _limit(self) -> float:
        return self.constraints.max_float_share

    def _with_float(self, recipe: Recipe, names: Iterable[str]) -> Recipe:
        """Return the recipe with these layers in float, in execution order."""
        selected = set(names)
        return replace(recipe, float_layers=tuple(layer.name for layer in self.layers if layer.name in selected))

    def _measure_sensitivity(
        self, start: Recipe, groups: Sequence[LayerGroup], base: TrialResult
    ) -> dict[LayerGroup, float]:
        """Return the noise power that each group alone removes in float; fill `sensitivities`."""
        before_db = self.judge.sqnr_db(base)
        before_drop = None if base.test is None else self.judge.drop(base.test)
        gains: dict[LayerGroup, float] = {}
        sensitivities = []
        for index, group in enumerate(groups):
            if self.late:
                break
            self.progress("sensitivity", index, len(groups))
            outcome = self.attempt(self._with_float(start, group.names), PROBE_TESTS)
            if outcome is None:
                continue
            sqnr = self.judge.sqnr_db(outcome)
            gains[group] = _noise_power(before_db) - _noise_power(sqnr)
            drop = None if outcome.test is None else self.judge.drop(outcome.test)
            metric_gain = None if drop is None or before_drop is None else before_drop - drop
            gain_db = _clamped_difference_db(sqnr, before_db)
            sensitivities.append(LayerSensitivity(group, gain_db, self.share(group.names), metric_gain))
        self.sensitivities = sorted(sensitivities, key=lambda sensitivity: (-sensitivity.gain_db, sensitivity.share))
        return gains

    def _next_group(
        self,
        start: Recipe,
        groups: Sequence[LayerGroup],
        kept: frozenset[str],
        noise: float,
        gains: dict[LayerGroup, float],
    ) -> LayerGroup | None:
        """Return the group that removes most of the remaining noise within the limit of weights in float."""
        open_groups = [group for group in groups if group in gains and self._may_add(group, kept)]
        remeasured: dict[LayerGroup, float] = {}
        for _ in range(_MAX_REMEASUREMENTS):
            ranked = sorted(open_groups, key=lambda group: (-remeasured.get(group, gains[group]), group.weights))
            if not ranked or self.late:
                return None
            if ranked[0] in remeasured or not kept:
                break  # its gain is up to date, and it is still the best
            outcome = self.attempt(self._with_float(start, {*kept, *ranked[0].names}), 0)
            gain = -math.inf if outcome is None else noise - _noise_power(self.judge.sqnr_db(outcome))
            remeasured[ranked[0]] = gain
        gains |= remeasured
        gain_db = _power_db(noise) - _power_db(noise - gains[ranked[0]])
        return ranked[0] if gain_db >= _MIN_GAIN_DB else self._noisiest_group(start, groups, open_groups)

    def _may_add(self, group: LayerGroup, kept: frozenset[str]) -> bool:
        names = {*kept, *group.names}
        return names != kept and self.share(names) <= self._limit

    def _noisiest_group(
        self, start: Recipe, groups: Sequence[LayerGroup], open_groups: Sequence[LayerGroup]
    ) -> LayerGroup | None:
        """Return the open group that causes the most noise when it alone is quantized."""
        if not self._alone:
            names = [layer.name for layer in self.layers]
            for index, group in enumerate(groups):
                if self.late:
                    break
                self.progress("alone", index, len(groups))
                outcome = self.attempt(self._with_float(start, set(names) - set(group.names)), 0)
                if outcome is not None:
                    self._alone[group] = self.judge.sqnr_db(outcome)
            self.sensitivities = [
                replace(sensitivity, alone_db=self._alone.get(sensitivity.group)) for sensitivity in self.sensitivities
            ]
        measured = [group for group in open_groups if group in self._alone]
        return min(measured, key=lambda group: (self._alone[group], group.weights), default=None)

    def prune(self, accurate: Candidate) -> Candidate:
        """Quantize the layers again that gain nothing in float, those with most weights first.

        Args:
            accurate: A candidate that is accurate enough.

        Returns:
            The candidate with the fewest layers in float that is still about as accurate.
        """
        weights = {layer.name: layer.weights for layer in self.layers}
        best = accurate
        for name in sorted(accurate.recipe.float_layers, key=lambda name: -weights[name]):
            if self.late or len(best.recipe.float_layers) == 1:
                break
            candidate = self.candidate(self._with_float(best.recipe, set(best.recipe.float_layers) - {name}))
            if candidate is None or not candidate.accurate(self.constraints):
                continue
            if self._about_as_accurate(candidate, accurate):
                best = candidate
        return best

    def _about_as_accurate(self, candidate: Candidate, before: Candidate) -> bool:
        if candidate.drop > before.drop and self.judge.labelled:
            return False
        sqnr, sqnr_before = (_EXACT_DB if sqnr is None else sqnr for sqnr in (candidate.sqnr_db, before.sqnr_db))
        return sqnr >= sqnr_before - _PRUNE_TOLERANCE_DB

    def narrow(self, accurate: Candidate) -> Candidate | None:
        """Replace float by int16 activations with int8 weights, layer by layer, where the result stays accurate.

        Args:
            accurate: A candidate that is accurate enough.

        Returns:
            The candidate with the most int16 layers, or None if no layer can be replaced.
        """
        supported = {layer.name for layer in self.layers if layer.int16}
        best: Candidate | None = None
        recipe = accurate.recipe
        for name in accurate.recipe.float_layers:
            if name not in supported or self.late:
                continue
            int16_layers = tuple(layer.name for layer in self.layers if layer.name in {*recipe.int16_layers, name})
            narrowed = self._with_float(recipe, set(recipe.float_layers) - {name})
            candidate = self.candidate(replace(narrowed, int16_layers=int16_layers))
            if candidate is not None and candidate.accurate(self.constraints):
                best, recipe = candidate, candidate.recipe
        return best


def _noise_power(sqnr_db: float) -> float:
    """Return noise power over signal power, 10^(-SQNR / 10)."""
    return 0.0 if sqnr_db == math.inf else float(10 ** (-max(sqnr_db, -300.0) / 10))


def _power_db(power: float) -> float:
    return 10 * math.log10(max(power, 1e-30))


def _clamped_difference_db(after_db: float, before_db: float) -> float:
    """Return the difference of two SQNRs in dB, each limited to a finite range."""
    after_db, before_db = (min(max(value, -300.0), _EXACT_DB) for value in (after_db, before_db))
    return after_db - before_db

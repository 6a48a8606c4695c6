"""Tests of the search for layers to keep in float, on simulated networks whose noise is known."""

import math

import numpy as np
import pytest

from edgekit.contracts.target import QuantizableLayer
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import SourceModel
from edgekit.core.records.tuning import Constraints
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature
from edgekit.core.values.tolerances import Tolerances
from edgekit.stages.tuning.search import Judge, Search, layer_groups
from edgekit.stages.tuning.trial_job import TrialResult

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(0, 1, (64, 8))
START = Recipe("tflite", "int8")


def chain(*weights, operator="CONV", int16=False):
    """Return layers a, b, c, ... in sequence."""
    names = "abcdefgh"[: len(weights)]
    return tuple(
        QuantizableLayer(name, operator, name, (f"t{index}",), (f"t{index + 1}",), weight, int16)
        for index, (name, weight) in enumerate(zip(names, weights, strict=True))
    )


class Network:
    """A network in which each set of sensitive layers adds noise while one of them is quantized, up to a ceiling."""

    def __init__(self, layers, noises, ceiling=math.inf):
        self.layers = layers
        self.noises = noises  # (names, noise power): all of them must be float
        self.ceiling = ceiling
        self.tried = []

    def attempt(self, recipe, tests):
        kept = {*recipe.float_layers}
        coarse = 1.0 if not recipe.int16_layers else 1e-3
        self.tried.append(recipe)
        power = 0.0
        for names, noise in self.noises:
            left = set(names) - kept
            power += noise * (coarse if left <= {*recipe.int16_layers} else 1.0) if left else 0.0
        noise = np.random.default_rng(1).normal(0, math.sqrt(min(power, self.ceiling) + 1e-8), REFERENCE.shape)
        size = 1000 + 3 * sum(layer.weights for layer in self.layers if layer.name in kept)
        return TrialResult(size, repr(recipe), {"y": REFERENCE + noise}, None)

    def search(self, **limits):
        source = SourceModel("m", "keras", "f", "s", Signature((), ()), None, None, None, 0)
        tolerances = {"y": Tolerances(min_sqnr_db=20)}
        judge = Judge(source, Samples({"x": REFERENCE}, {"y": REFERENCE}), None, lambda _: tolerances)
        constraints = Constraints(**{"max_drop": 0.05, "max_float_share": 1.0, **limits})  # 26 dB
        self.notes = []
        return Search(self.attempt, judge, constraints, self.layers, lambda *_: None, self.notes.append)


def floats(candidates):
    return [candidate.recipe.float_layers for candidate in candidates]


def test_groups_are_layers_and_the_neighbours_of_each_tensor():
    assert [group.names for group in layer_groups(chain(1, 2, 3))] == [("a",), ("b",), ("c",), ("a", "b"), ("b", "c")]
    assert [group.weights for group in layer_groups(chain(1, 2, 3))] == [1, 2, 3, 3, 5]


def test_a_group_extends_beyond_pass_through_layers():
    assert [group.names for group in layer_groups(chain(1, 0, 0, 2))][4:] == [("a", "b", "c", "d")]


def test_an_addition_ends_the_chain():
    first, second = chain(1, 1)
    add = QuantizableLayer("add", "ADD", "add", ("t1", "t2"), ("t3",), 0)
    last = QuantizableLayer("last", "CONV", "last", ("t3",), ("t4",), 1)
    groups = {group.names for group in layer_groups((first, second, add, last))}
    assert {("a", "b", "add"), ("b", "add"), ("add", "last")} <= groups
    assert not any({"a", "last"} <= set(group) for group in groups)


def test_the_one_sensitive_tensor_is_found_and_no_other_layer_is_kept():
    network = Network(chain(10, 10, 10, 10, 10), [("bc", 1.0), ("e", 1e-4)])
    search = network.search()
    grown = search.grow(START)
    assert floats(grown) == [("b", "c")]
    assert grown[0].accurate(search.constraints)
    assert (search.sensitivities[0].group.names, search.sensitivities[0].share) == (("b", "c"), 0.4)
    assert search.sensitivities[0].gain_db == pytest.approx(40, abs=1)


def test_several_groups_are_kept_in_float_in_the_order_of_the_noise_that_they_remove():
    network = Network(chain(*[10] * 8), [("ab", 0.2), ("e", 1.0), ("g", 0.05)])
    search = network.search()
    grown = search.grow(START)
    assert floats(grown) == [("e",), ("a", "b", "e"), ("a", "b", "e", "g")]
    assert [candidate.accurate(search.constraints) for candidate in grown] == [False, False, True]


def test_layers_whose_noise_hides_that_of_others_are_measured_alone():
    network = Network(chain(*[10] * 6), [("b", 40.0), ("e", 40.0)], ceiling=20.0)
    search = network.search()
    grown = search.grow(START)
    assert grown[-1].accurate(search.constraints)
    assert set(grown[-1].recipe.float_layers) >= {"b", "e"}
    assert search.prune(grown[-1]).recipe.float_layers == ("b", "e")
    alone = {sensitivity.group.names: sensitivity.alone_db for sensitivity in search.sensitivities}
    assert alone["b",] < 0 < 60 < alone["a",]


def test_a_layer_with_too_many_weights_for_float_is_noted():
    network = Network(chain(10, 90), [("b", 1.0)])
    search = network.search(max_float_share=0.25)
    assert all("b" not in kept for kept in floats(search.grow(START)))
    assert network.notes == [
        "b would also reduce the error in float, but holds 90% of the weights: more than --max-float 25%"
    ]


def test_layers_that_gain_nothing_are_pruned():
    network = Network(chain(10, 10, 10), [("b", 1.0)])
    search = network.search()
    start = search.candidate(Recipe("tflite", "int8", ("a", "b", "c")))
    assert start
    assert search.prune(start).recipe.float_layers == ("b",)


def test_int16_replaces_float_where_it_is_accurate_enough():
    network = Network(chain(10, 10, 10, int16=True), [("b", 1.0)])
    search = network.search()
    (accurate,) = search.grow(START)
    narrowed = search.narrow(accurate)
    assert (narrowed.recipe.float_layers, narrowed.recipe.int16_layers) == ((), ("b",))
    assert Network(chain(10, 10, 10), [("b", 1.0)]).search().narrow(accurate) is None


def test_a_deadline_ends_the_search_with_the_candidates_so_far():
    network = Network(chain(10, 10), [("a", 1.0)])
    search = network.search()
    search.deadline_s = 0.0
    assert search.grow(START) == []
    assert len(network.tried) == 1


def test_trials_that_fail_are_not_candidates():
    network = Network(chain(10, 10), [("a", 1.0)])
    search = network.search()
    attempt = search.attempt
    search.attempt = lambda recipe, tests: None if "a" in recipe.float_layers else attempt(recipe, tests)
    assert not any("a" in kept for kept in floats(search.grow(START)))


def test_outputs_that_are_not_finite_have_the_worst_sqnr():
    search = Network(chain(10), []).search()
    outcome = TrialResult(1, "s", {"y": np.full_like(REFERENCE, np.nan)}, None)
    assert search.judge.sqnr_db(outcome) == -math.inf
    candidate = search.judge.candidate(START, outcome)
    assert candidate.breaks(search.constraints) == ("drop", "outputs")
    assert "NaN" in candidate.failures[0]

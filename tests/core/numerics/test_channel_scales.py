"""Factors of channels that move from one layer into the next one."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.numerics.channel_scales import ChannelGroups, Operation, Parameter


def dense(number: int, before: str, after: str, size: int = 4) -> Operation:
    return Operation(
        "weights",
        (before,),
        after,
        ((2, size),),
        (2, size),
        reads=(Parameter(f"w{number}", 0),),
        writes=(Parameter(f"w{number}", 1), Parameter(f"b{number}", 0)),
    )


def relu(before: str, after: str) -> Operation:
    return Operation("same", (before,), after, ((2, 4),), (2, 4))


CHAIN = (dense(1, "x", "a"), relu("a", "b"), dense(2, "b", "y"))


@pytest.fixture
def parameters():
    rng = np.random.default_rng(0)
    values = {f"w{number}": rng.normal(size=(4, 4)).astype(np.float32) for number in (1, 2, 3)}
    return values | {f"b{number}": rng.normal(size=4).astype(np.float32) for number in (1, 2, 3)}


def run(values, x):
    hidden = np.maximum(x @ values["w1"] + values["b1"], 0)
    return hidden, hidden @ values["w2"] + values["b2"]


def test_factors_even_out_ranges_and_leave_the_result_as_it_is_to_the_last_bit(parameters):
    parameters["w1"][:, 2] *= 300
    parameters["b1"][2] *= 300
    parameters["w2"][2] /= 300
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    hidden, expected = run(parameters, x)
    groups = ChannelGroups.of(CHAIN, ["y"])
    ((group, tensors),) = groups.free.items()
    assert tensors == ("b",)
    factors = groups.factors({"b": hidden.max(axis=0)}, parameters)
    changed = {**parameters, **groups.scaled(factors, parameters)}
    new_hidden, actual = run(changed, x)
    assert np.array_equal(actual, expected)
    spread, new_spread = (np.ptp(np.log2(array.max(axis=0))) for array in (hidden, new_hidden))
    assert spread > 8
    assert new_spread < spread - 3
    assert np.array_equal(np.exp2(np.rint(np.log2(factors[group]))), factors[group])


def test_what_a_sigmoid_or_the_caller_reads_is_not_scaled():
    sigmoid = Operation("opaque", ("b",), "c")
    assert not ChannelGroups.of((*CHAIN, sigmoid), ["y", "c"]).free
    assert not ChannelGroups.of(CHAIN, ["y", "b"]).free


def test_parameters_that_are_used_twice_are_not_scaled():
    assert not ChannelGroups.of(CHAIN, ["y"], shared=["w2"]).free


def test_both_sides_of_a_sum_have_the_same_factors(parameters):
    operations = (
        dense(1, "x", "a"),
        dense(2, "x", "b"),
        Operation("sum", ("a", "b"), "c", ((2, 4), (2, 4)), (2, 4)),
        dense(3, "c", "y"),
    )
    groups = ChannelGroups.of(operations, ["y"])
    ((group, _),) = groups.free.items()
    changed = groups.scaled({group: np.array([1.0, 2.0, 4.0, 8.0])}, parameters)
    for name in ("w1", "w2"):
        assert np.array_equal(changed[name] * [1, 2, 4, 8], parameters[name])
    assert np.array_equal(changed["w3"], parameters["w3"] * np.array([[1], [2], [4], [8]]))
    # One side that is read elsewhere fixes the other one, too.
    assert not ChannelGroups.of((*operations, Operation("opaque", ("a",), "d")), ["y"]).free


@pytest.mark.parametrize("last", [True, False])
def test_channels_are_followed_through_a_flattening(last, parameters):
    shape = (2, 3, 4) if last else (2, 4, 3)
    first = dense(1, "x", "a")
    first = Operation("weights", ("x",), "a", (shape,), shape, axis=-1 if last else 1, writes=first.writes)
    flatten = Operation("reshape", ("a",), "b", (shape,), (2, 12))
    groups = ChannelGroups.of((first, flatten, dense(2, "b", "y", 12)), ["y"])
    ((group, _),) = groups.free.items()
    factors = np.array([1.0, 2.0, 4.0, 8.0])
    weights = {"w1": np.ones((4, 4)), "b1": np.ones(4), "w2": np.ones((12, 4))}
    along = groups.scaled({group: factors}, weights)["w2"][:, 0]
    assert np.array_equal(along, np.tile(factors, 3) if last else np.repeat(factors, 3))


def test_channels_that_a_reshape_divides_are_not_scaled():
    heads = Operation("reshape", ("a",), "b", ((2, 4),), (2, 2, 2))
    assert not ChannelGroups.of((dense(1, "x", "a"), heads, dense(2, "b", "y", 2)), ["y"]).free


def test_a_tensor_that_is_multiplied_by_itself_is_not_scaled():
    square = Operation("gate", ("a", "a"), "b", ((2, 4), (2, 4)), (2, 4))
    assert not ChannelGroups.of((dense(1, "x", "a"), square, dense(2, "b", "y")), ["y"]).free


def test_pooling_over_the_axis_of_the_channels_fixes_them():
    pooled = Operation("same", ("a",), "b", ((2, 4),), (2, 1), reduced=(1,), keeps_axes=True)
    assert not ChannelGroups.of((dense(1, "x", "a"), pooled, dense(2, "b", "y")), ["y"]).free

"""Which operators of a graph stay in float beside integers."""

import numpy as np

from edgekit.core.numerics.exact_values import GraphOperation, Role, exact_values, is_mask

DECIDES, FORWARDS, APPROXIMATES = Role.DECIDES, Role.FORWARDS, Role.APPROXIMATES


def test_a_comparison_of_the_input_is_kept_with_all_that_leads_to_it():
    exact = exact_values(
        [
            GraphOperation(FORWARDS, ("x",), ("flat",)),
            GraphOperation(APPROXIMATES, ("flat",), ("hidden",)),
            GraphOperation(DECIDES, ("flat",), ("mask",)),
            GraphOperation(FORWARDS, ("hidden", "mask"), ("y",)),
        ],
        ["x"],
    )
    assert exact.operations == {0, 2}
    assert exact.tensors == {"x", "flat"}


def test_a_comparison_of_an_approximation_is_not():
    operations = [GraphOperation(APPROXIMATES, ("x",), ("h",)), GraphOperation(DECIDES, ("h",), ("positive",))]
    assert not exact_values(operations, ["x"])


def test_a_masking_constant_keeps_all_up_to_the_first_approximation():
    exact = exact_values(
        [
            GraphOperation(APPROXIMATES, ("x",), ("scores",)),
            GraphOperation(FORWARDS, ("scores",), ("masked",), masks=True),
            GraphOperation(FORWARDS, ("masked",), ("moved",)),
            GraphOperation(APPROXIMATES, ("moved",), ("weights",)),
            GraphOperation(APPROXIMATES, ("weights", "x"), ("y",)),
        ],
        ["x"],
    )
    assert exact.operations == {1, 2, 3}
    assert exact.tensors == {"masked", "moved"}


def test_masks_are_large_or_infinite_floats():
    assert is_mask(np.array([0, -np.inf], np.float32))
    assert is_mask(np.array([0, -1e4], np.float16))
    assert not is_mask(np.array([1.5, -200], np.float32))
    assert not is_mask(np.array([2**31], np.int64))
    assert not is_mask(np.zeros(0, np.float32))

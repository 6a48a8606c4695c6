"""Samples cut into calls, and the outputs put together again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.values.specs import Signature, TensorSpec

SEEDED = settings(derandomize=True, deadline=None, max_examples=150)

numbers = st.integers(1, 17)
inner = st.lists(st.integers(1, 3), max_size=2).map(tuple)
dtypes = st.sampled_from(["float32", "int64", "bool"])


def signature(inputs, outputs=None):
    """Tensors of these shapes, called in0, in1 … and out0, out1 …; outputs like the inputs unless they are given."""
    outputs = inputs if outputs is None else outputs
    return Signature(
        tuple(TensorSpec(f"in{index}", shape, "float32") for index, shape in enumerate(inputs)),
        tuple(TensorSpec(f"out{index}", shape, "float32") for index, shape in enumerate(outputs)),
    )


def counted(*shape, dtype="float32"):
    """An array in which no two rows are equal (but for bool)."""
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def passed_through(made, samples, batch=1):
    """The outputs of a model that returns its inputs, by the names of the inputs."""
    joined = batching.concat_outputs(made, samples, list(batching.iter_batches(made, samples, batch)))
    return {f"in{name.removeprefix('out')}": array for name, array in joined.items()}


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@SEEDED
@given(st.lists(st.tuples(inner, dtypes), min_size=1, max_size=3), numbers, numbers)
def test_samples_of_a_symbolic_batch_survive_any_number_of_them_a_call(tensors, number, batch):
    made = signature([("batch", *shape) for shape, _ in tensors])
    samples = {f"in{i}": counted(number, *shape, dtype=dtype) for i, (shape, dtype) in enumerate(tensors)}
    assert_same(passed_through(made, samples, batch), samples)
    parts = list(batching.iter_batches(made, samples, batch))
    assert [len(part[0]) for part in parts] == [min(batch, number - start) for start in range(0, number, batch)]


@SEEDED
@given(st.lists(inner, min_size=1, max_size=3), st.integers(1, 5), numbers, numbers)
def test_samples_of_a_fixed_batch_survive_though_the_last_call_is_filled_up(shapes, size, rows, batch):
    made = signature([(size, *shape) for shape in shapes])
    samples = {f"in{index}": counted(rows, *shape) for index, shape in enumerate(shapes)}
    assert_same(passed_through(made, samples, batch), samples)
    for part in batching.iter_batches(made, samples, batch):
        assert all(len(array) == size for array in part)


firsts = st.sampled_from([(), ("batch",), (1,), (2,), (3,), ("seq",)])


@SEEDED
@given(st.lists(firsts, min_size=1, max_size=4), numbers, numbers)
def test_scalars_fixed_and_symbolic_inputs_go_together(shapes, number, batch):
    made = signature(shapes)
    samples = {f"in{i}": counted(number * batching.samples_per_call(spec)) for i, spec in enumerate(made.inputs)}
    assert batching.n_samples(made, samples) == number
    assert_same(passed_through(made, samples, batch), samples)
    for part in batching.iter_batches(made, samples, batch):
        for array, spec in zip(part, made.inputs, strict=True):
            assert array.ndim == len(spec.shape)
            assert spec.fixed_batch in (None, len(array) if array.ndim else None)


@SEEDED
@given(st.lists(firsts, min_size=1, max_size=3), numbers, st.data())
def test_what_is_taken_is_what_lies_between(shapes, number, data):
    made = signature(shapes)
    samples = {f"in{i}": counted(number * batching.samples_per_call(spec)) for i, spec in enumerate(made.inputs)}
    start = data.draw(st.integers(0, number))
    stop = data.draw(st.integers(start, number))
    taken = batching.select_samples(made, samples, start, stop)
    for spec in made.inputs:
        rows = batching.samples_per_call(spec)
        np.testing.assert_array_equal(taken[spec.name], samples[spec.name][start * rows : stop * rows])
    rest = batching.select_samples(made, samples, stop, None)
    both = {name: np.concatenate([taken[name], rest[name]]) for name in samples}
    assert_same(both, batching.select_samples(made, samples, start, None))


@pytest.mark.parametrize(
    ("shape", "batch", "expected"),
    [((), 1, 1), ((), 8, 1), ((3, 5), 1, 3), ((3, 5), 8, 3), (("batch", 5), 1, 1), (("batch", 5), 8, 8)],
)
def test_an_input_takes_as_many_rows_a_call_as_its_first_dimension_says(shape, batch, expected):
    assert batching.samples_per_call(TensorSpec("x", shape, "float32"), batch) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([("batch", 2)], [("batch", 5)], True),
        ([("n",), ("n", 2)], [("n",), ("n", 5)], True),
        ([("batch", 2), ("other", 2)], [("batch", 5)], False),
        ([("batch", 2)], [(1, 5)], False),
        ([("batch", 2)], [()], False),
        ([("batch", 2)], [("other", 5)], False),
        ([("batch", 2), ()], [("batch", 5)], False),
        ([(1, 2)], [(1, 5)], False),
    ],
)
def test_samples_share_a_call_only_where_one_symbol_leads_everything(inputs, outputs, expected):
    assert batching.has_symbolic_batch(signature(inputs, outputs)) is expected


def test_samples_that_cannot_share_a_call_go_one_by_one():
    made = signature([("batch", 2)], [(1, 5)])
    assert [len(part[0]) for part in batching.iter_batches(made, {"in0": counted(3, 2)}, 8)] == [1, 1, 1]


def test_a_last_call_is_filled_with_the_very_last_sample():
    made = signature([(4, 1)])
    _, last = batching.iter_batches(made, {"in0": counted(5, 1)})
    np.testing.assert_array_equal(last[0], [[4], [4], [4], [4]])


def test_a_scalar_input_is_handed_over_without_dimensions():
    made = signature([()], [("batch", 2)])
    parts = list(batching.iter_batches(made, {"in0": counted(3)}))
    assert [(part[0].shape, float(part[0])) for part in parts] == [((), 0.0), ((), 1.0), ((), 2.0)]


def test_outputs_without_dimensions_are_stacked():
    made = signature([("batch", 2)], [()])
    joined = batching.concat_outputs(made, {"in0": counted(3, 2)}, [[np.float32(5)], [np.float32(6)], [np.float32(7)]])
    np.testing.assert_array_equal(joined["out0"], [5, 6, 7])


def test_an_output_with_fewer_rows_than_the_input_keeps_all_of_them():
    made = signature([(4, 2)], [(1, 3)])
    joined = batching.concat_outputs(made, {"in0": counted(6, 2)}, [[counted(1, 3)], [counted(1, 3)]])
    assert joined["out0"].shape == (2, 3)


def test_parts_are_contiguous_however_the_samples_lie():
    made = signature([("batch", 2, 3)])
    samples = {"in0": counted(4, 3, 2).transpose(0, 2, 1)}
    assert all(part[0].flags.c_contiguous for part in batching.iter_batches(made, samples, 2))


def test_inputs_with_different_numbers_of_samples_are_refused_with_both():
    made = signature([("batch", 2), (4,)])
    with pytest.raises(InputError) as caught:
        batching.n_samples(made, {"in0": counted(3, 2), "in1": counted(8)})
    assert str(caught.value) == "the inputs have different numbers of samples: in0 3, in1 2"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_fixed_batch_that_is_not_full_counts_as_one(rows, expected):
    assert batching.n_samples(signature([(4, 2)]), {"in0": counted(rows, 2)}) == expected

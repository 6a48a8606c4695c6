"""Splitting samples into calls, and joining the outputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.values.specs import Signature, TensorSpec

SEEDED = settings(derandomize=True, max_examples=150)

numbers = st.integers(1, 17)
inner = st.lists(st.integers(1, 3), max_size=2).map(tuple)
dtypes = st.sampled_from(["float32", "int64", "bool"])


def make_signature(inputs, outputs=None):
    """Tensors of these shapes, called in0, in1 … and out0, out1 …; outputs like the inputs unless they are given."""
    outputs = inputs if outputs is None else outputs
    return Signature(
        tuple(TensorSpec(f"in{index}", shape, "float32") for index, shape in enumerate(inputs)),
        tuple(TensorSpec(f"out{index}", shape, "float32") for index, shape in enumerate(outputs)),
    )


def counted(*shape, dtype="float32"):
    """An array in which no two rows are equal (but for bool)."""
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def run_identity(signature, samples, batch=1):
    """The outputs of a model that returns its inputs, by the names of the inputs."""
    joined = batching.concat_outputs(signature, samples, list(batching.iter_batches(signature, samples, batch)))
    return {f"in{name.removeprefix('out')}": array for name, array in joined.items()}


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array)
        assert actual[name].dtype == array.dtype


@SEEDED
@given(st.lists(st.tuples(inner, dtypes), min_size=1, max_size=3), numbers, numbers)
def test_samples_of_a_symbolic_batch_survive_any_batch_size(tensors, number, batch):
    signature = make_signature([("batch", *shape) for shape, _ in tensors])
    samples = {f"in{i}": counted(number, *shape, dtype=dtype) for i, (shape, dtype) in enumerate(tensors)}
    assert_same(run_identity(signature, samples, batch), samples)
    parts = list(batching.iter_batches(signature, samples, batch))
    assert [len(part[0]) for part in parts] == [min(batch, number - start) for start in range(0, number, batch)]


@SEEDED
@given(st.lists(inner, min_size=1, max_size=3), st.integers(1, 5), numbers, numbers)
def test_samples_of_a_fixed_batch_survive_padding_of_the_last_call(shapes, size, rows, batch):
    signature = make_signature([(size, *shape) for shape in shapes])
    samples = {f"in{index}": counted(rows, *shape) for index, shape in enumerate(shapes)}
    assert_same(run_identity(signature, samples, batch), samples)
    for part in batching.iter_batches(signature, samples, batch):
        assert all(len(array) == size for array in part)


firsts = st.sampled_from([(), ("batch",), (1,), (2,), (3,), ("seq",)])


@SEEDED
@given(st.lists(firsts, min_size=1, max_size=4), numbers, numbers)
def test_scalar_fixed_and_symbolic_inputs_can_be_combined(shapes, number, batch):
    signature = make_signature(shapes)
    samples = {f"in{i}": counted(number * batching.samples_per_call(spec)) for i, spec in enumerate(signature.inputs)}
    assert batching.n_samples(signature, samples) == number
    assert_same(run_identity(signature, samples, batch), samples)
    for part in batching.iter_batches(signature, samples, batch):
        for array, spec in zip(part, signature.inputs, strict=True):
            assert array.ndim == len(spec.shape)
            assert spec.fixed_batch in (None, len(array) if array.ndim else None)


@SEEDED
@given(st.lists(firsts, min_size=1, max_size=3), numbers, st.data())
def test_selected_samples_are_those_of_the_range(shapes, number, data):
    signature = make_signature(shapes)
    samples = {f"in{i}": counted(number * batching.samples_per_call(spec)) for i, spec in enumerate(signature.inputs)}
    start = data.draw(st.integers(0, number))
    stop = data.draw(st.integers(start, number))
    selected = batching.select_samples(signature, samples, start, stop)
    for spec in signature.inputs:
        rows = batching.samples_per_call(spec)
        np.testing.assert_array_equal(selected[spec.name], samples[spec.name][start * rows : stop * rows])
    rest = batching.select_samples(signature, samples, stop, None)
    both = {name: np.concatenate([selected[name], rest[name]]) for name in samples}
    assert_same(both, batching.select_samples(signature, samples, start, None))


@pytest.mark.parametrize(
    ("shape", "batch", "expected"),
    [((), 1, 1), ((), 8, 1), ((3, 5), 1, 3), ((3, 5), 8, 3), (("batch", 5), 1, 1), (("batch", 5), 8, 8)],
)
def test_an_input_takes_as_many_rows_per_call_as_its_first_dimension(shape, batch, expected):
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
def test_samples_share_a_call_only_where_all_tensors_have_the_same_symbolic_batch(inputs, outputs, expected):
    assert batching.has_symbolic_batch(make_signature(inputs, outputs)) is expected


def test_samples_that_cannot_share_a_call_are_fed_one_by_one():
    signature = make_signature([("batch", 2)], [(1, 5)])
    assert [len(part[0]) for part in batching.iter_batches(signature, {"in0": counted(3, 2)}, 8)] == [1, 1, 1]


def test_the_last_call_is_padded_with_the_last_sample():
    signature = make_signature([(4, 1)])
    _, last = batching.iter_batches(signature, {"in0": counted(5, 1)})
    np.testing.assert_array_equal(last[0], [[4], [4], [4], [4]])


def test_a_scalar_input_is_fed_without_dimensions():
    signature = make_signature([()], [("batch", 2)])
    parts = list(batching.iter_batches(signature, {"in0": counted(3)}))
    assert [(part[0].shape, float(part[0])) for part in parts] == [((), 0.0), ((), 1.0), ((), 2.0)]


def test_outputs_without_dimensions_are_stacked():
    signature = make_signature([("batch", 2)], [()])
    joined = batching.concat_outputs(
        signature, {"in0": counted(3, 2)}, [[np.float32(5)], [np.float32(6)], [np.float32(7)]]
    )
    np.testing.assert_array_equal(joined["out0"], [5, 6, 7])


def test_an_output_with_fewer_rows_than_the_input_keeps_all_of_them():
    signature = make_signature([(4, 2)], [(1, 3)])
    joined = batching.concat_outputs(signature, {"in0": counted(6, 2)}, [[counted(1, 3)], [counted(1, 3)]])
    assert joined["out0"].shape == (2, 3)


def test_inputs_of_a_call_are_contiguous_for_any_memory_order():
    signature = make_signature([("batch", 2, 3)])
    samples = {"in0": counted(4, 3, 2).transpose(0, 2, 1)}
    assert all(part[0].flags.c_contiguous for part in batching.iter_batches(signature, samples, 2))


def test_inputs_with_different_numbers_of_samples_are_rejected_with_both_numbers():
    signature = make_signature([("batch", 2), (4,)])
    with pytest.raises(InputError) as caught:
        batching.n_samples(signature, {"in0": counted(3, 2), "in1": counted(8)})
    assert str(caught.value) == "the inputs have different numbers of samples: in0 3, in1 2"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_an_incomplete_fixed_batch_counts_as_one_sample(rows, expected):
    assert batching.n_samples(make_signature([(4, 2)]), {"in0": counted(rows, 2)}) == expected


def test_rows_that_do_not_follow_the_samples_are_never_cut_off():
    # Two rows of hidden state a call; the file calls the dimension `batch` or gives it no name at all.
    for dim in ("batch", "unk__0", 2):
        signature = make_signature([("batch", 3)], [("batch", 3), (dim, 1, 4)])
        samples = {"in0": counted(5, 3)}
        calls = [[call[0], counted(2, 1, 4) + 10 * index] for index, call in enumerate(_single_calls(samples))]
        joined = batching.concat_outputs(signature, samples, calls)
        assert joined["out0"].shape == (5, 3)
        np.testing.assert_array_equal(joined["out1"], np.concatenate([call[1] for call in calls]))


def _single_calls(samples):
    return [[samples["in0"][index : index + 1]] for index in range(len(samples["in0"]))]


def test_an_output_of_all_pairs_of_samples_has_no_symbolic_batch():
    assert not batching.has_symbolic_batch(make_signature([("batch", 3)], [("batch", "batch")]))
    assert batching.has_symbolic_batch(make_signature([("batch", 3)], [("batch", 4)]))

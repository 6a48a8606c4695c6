"""What a source does to its own outputs: state, dependence on the batch, random numbers, and where the batch is."""

from typing import Any

import numpy as np
import pytest

from edgekit.contracts.source import LoadedModel
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.models.import_job import observed_outputs
from edgekit.stages.models.repeatability import make_repeatable, snapshot

SAMPLES = {"x": np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)}


class Plain(LoadedModel):
    """A model of numpy; `model` is a function of the input and of the state."""

    kind = "plain"

    def __init__(self, model: Any, signature: Signature | None = None) -> None:
        outputs = (TensorSpec("y", ("batch", 3), "float32"),)
        super().__init__(model, signature or Signature((TensorSpec("x", ("batch", 3), "float32"),), outputs))
        self.values = {"count": np.zeros(1, np.float32), "still": np.ones(2, np.float32)}

    def _run(self, inputs):
        results = self.model(*inputs, self.values)
        return results if isinstance(results, list) else [results]

    def state(self):
        return self.values

    def _set_state(self, values):
        for name, value in values.items():
            self.values[name][:] = value

    def parameters(self):
        return {}

    def _permuted(self, inputs, outputs):
        raise NotImplementedError


def prepared(function):
    loaded = Plain(function)
    initial = snapshot(loaded)
    loaded._run([SAMPLES["x"][:2]])
    return loaded, make_repeatable(loaded, SAMPLES, initial)


def counting(x, values):
    values["count"] += 1
    return x / values["count"]


def test_a_plain_model_needs_nothing():
    loaded, found = prepared(lambda x, _values: 2 * x)
    assert (found.state, found.one_by_one, found.notes) == ((), False, ())
    np.testing.assert_array_equal(loaded.run(SAMPLES)["y"], 2 * SAMPLES["x"])


def test_state_is_found_named_and_reset_before_each_sample():
    loaded, found = prepared(counting)
    assert (found.state, found.one_by_one) == (("count",), True)
    assert "keeps state between calls (count)" in found.notes[0]
    for _ in range(2):
        np.testing.assert_array_equal(loaded.run(SAMPLES)["y"], SAMPLES["x"])
    streamed = SAMPLES["x"] / np.arange(1, 7, dtype=np.float32)[:, None]
    np.testing.assert_allclose(loaded.run_stream(SAMPLES)["y"], streamed, rtol=1e-6)


def test_a_sample_that_depends_on_its_batch_is_run_alone():
    loaded, found = prepared(lambda x, _values: x - x.mean(axis=0, keepdims=True) + x.sum(axis=1, keepdims=True))
    assert (found.state, found.one_by_one) == ((), True)
    alone = np.repeat(SAMPLES["x"].sum(axis=1, keepdims=True), 3, axis=1)
    np.testing.assert_allclose(loaded.run(SAMPLES)["y"], alone, rtol=1e-6)


def test_a_condition_on_all_samples_is_found_where_the_first_two_agree():
    function = lambda x, _values: x if x.sum() > 0 else -x  # noqa: E731
    samples = np.array([[1, 0, 0], [1, 0, 0], [-9, 0, 0], [1, 0, 0]], np.float32)
    loaded = Plain(function)
    assert make_repeatable(loaded, {"x": samples}, snapshot(loaded)).one_by_one
    np.testing.assert_array_equal(loaded.run({"x": samples})["y"], np.abs(samples))


def test_rounding_that_differs_with_the_batch_is_no_dependence():
    assert not prepared(lambda x, _values: x * np.float32(1 + 2e-7 * len(x)))[1].one_by_one


def test_a_model_that_draws_random_numbers_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"does not repeat itself: .* it draws random numbers or keeps state"):
        prepared(lambda x, _values: x + rng.standard_normal(x.shape).astype(np.float32))


def test_equal_infinities_and_nan_are_repetitions():
    assert not prepared(lambda x, _values: np.where(x > 0, np.float32(np.inf), np.float32(np.nan)))[1].one_by_one


def test_the_batch_of_an_output_is_measured_and_not_guessed():
    def model(x, _values):
        n = len(x)
        return [
            np.zeros((2, n, 4), np.float32),  # hidden states of two layers
            np.zeros((2, 5), np.float32),  # two rows for any number of samples
            np.zeros((2 * n, 3), np.float32),  # two rows a sample
            np.zeros((n, n), np.float32),  # all pairs
            np.zeros((n, 2), np.float32),
            np.float32(0),
        ]

    # Every file claims that the first dimension is the batch.
    claimed = tuple(TensorSpec(f"y{index}", ("batch", "d"), "") for index in range(6))
    loaded = Plain(model, Signature((TensorSpec("x", ("batch", 3), "float32"),), claimed))
    shapes = [spec.shape for spec in observed_outputs(loaded, SAMPLES)]
    assert shapes == [(2, "batch", 4), (2, 5), ("y2_dim0", 3), ("batch", "batch"), ("batch", 2), ()]


def test_random_calls_and_buffers_of_a_module_are_named():
    torch = pytest.importorskip("torch")
    from edgekit.sources._module import LoadedTorch

    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count += 1
            return torch.nn.functional.dropout(x, 0.5) + torch.randn_like(x)

    loaded = LoadedTorch(Noisy(), Plain(None).signature)
    initial = snapshot(loaded)
    names = loaded.random_operators({"x": SAMPLES["x"][:1]})
    assert [name.partition(" ")[0] for name in names] == ["bernoulli_", "randn_like"]
    assert "test_repeatability.py:" in names[0]
    assert loaded.state()["count"] == 1
    loaded.keep_state(("count",), initial)
    loaded.reset()
    assert loaded.state()["count"] == 0

"""The inputs from which converters trace a source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.contracts.source import LoadedModel
from edgekit.core.values.specs import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("x", ("batch", 3), "float32"), TensorSpec("lengths", ("batch",), "int64")),
    (TensorSpec("y", ("batch",), "float32"),),
)
SAMPLES = {
    "x": np.arange(6, dtype=np.float64).reshape(2, 3),
    "lengths": np.array([3, 1]),
    "rate": np.array([16000, 16000]),
}


class Nothing(LoadedModel):
    kind = "none"

    def _run(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def parameters(self) -> dict[str, Any]:
        return {}

    def _permuted(self, inputs: list[Any], outputs: list[Any]) -> Any:
        return self.model


def test_without_samples_they_are_zeros() -> None:
    assert [array.tolist() for array in Nothing(None, SIGNATURE).examples(1)] == [[[0, 0, 0]], [0]]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_with_samples_they_are_those_repeated_up_to_the_batch(batch: int) -> None:
    model = Nothing(None, SIGNATURE).with_examples(SAMPLES)
    x, lengths = model.at(SIGNATURE, {}).examples(batch)
    assert x.dtype == np.float32
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]][:batch]
    assert lengths.tolist() == [3, 1, 3][:batch]


def test_another_size_than_in_the_samples_repeats_them_along_the_axis() -> None:
    signature = Signature((TensorSpec("x", ("batch", 5), "float32"),), SIGNATURE.outputs)
    model = Nothing(None, signature).with_examples(SAMPLES)
    assert model.examples(1)[0].tolist() == [[0, 1, 2, 0, 1]]


def test_a_scalar_is_that_of_the_first_sample() -> None:
    signature = Signature((TensorSpec("rate", (), "int64"),), (TensorSpec("y", (), "float32"),))
    (rate,) = Nothing(None, signature).with_examples(SAMPLES).examples(1)
    assert rate.shape == ()
    assert rate == 16000

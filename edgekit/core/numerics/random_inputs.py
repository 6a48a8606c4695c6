"""Random samples for a model of which no real ones are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import dequantize
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec

# Enough for a figure of the error, and quick to run.
RANDOM_SAMPLES = 16
_SEED = 0


class UnknownSize(Exception):
    """A symbolic dimension of an input has no size.

    Attributes:
        input: The input's name.
        dim: The dimension.
    """

    def __init__(self, name: str, dim: str) -> None:
        super().__init__(f"the dimension {dim} of {name} has no size")
        self.input, self.dim = name, dim


def random_inputs(
    signature: Signature, sizes: Mapping[str, int], count: int = RANDOM_SAMPLES, seed: int | Sequence[int] = _SEED
) -> dict[str, Array]:
    """Draw samples for each input of a model, the same ones each time.

    Args:
        signature: Inputs and outputs of the model.
        sizes: The size of each symbolic dimension but the first of an input.
        count: The number N of samples.
        seed: The seed.

    Returns:
        Arrays by input name, shape (N * rows, ...): standard normal numbers, zeros and ones for integers, and for
        integers with a scale the real values of what they can hold.

    Raises:
        UnknownSize: A dimension has no size.
    """
    rng = np.random.default_rng(seed)
    return {spec.name: _random_input(spec, sizes, count, rng) for spec in signature.inputs}


def _random_input(spec: TensorSpec, sizes: Mapping[str, int], count: int, rng: np.random.Generator) -> Array:
    shape = [count * batching.samples_per_call(spec)]
    for dim in spec.shape[1:]:
        if isinstance(dim, str) and dim not in sizes:
            raise UnknownSize(spec.name, dim)
        shape.append(sizes[dim] if isinstance(dim, str) else dim)
    if spec.quantization is not None:
        bounds = np.iinfo(spec.dtype)
        integers = rng.integers(bounds.min, bounds.max, shape, endpoint=True, dtype=spec.dtype)
        return dequantize(integers, spec.quantization)
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.standard_normal(shape).astype(spec.dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype)  # valid as a flag, a token and an index alike

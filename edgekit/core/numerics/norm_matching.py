"""Inputs on which a network computes the statistics of its training, made without data.

Batch norm keeps the mean and the variance that its input had in training. Inputs are searched for which what enters all
batch norms has these statistics again (Cai et al., ZeroQ: A Novel Zero Shot Quantization Framework, CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Arrays of floating-point numbers by the name of an input.
Inputs = Mapping[str, NDArray[Any]]

# The size of the first step, relative to the standard deviation of the noise; it falls to 0 along half a cosine.
_RATE = 0.6
# Adam's own constants (Kingma and Ba, 2015).
_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
# Mean and standard deviation of inputs as networks take them: normalized, from 0 to 1, and from 0 to 255. Steps that
# suit one range are too long or too short for another.
_RANGES = ((0.0, 1.0), (0.5, 0.25), (127.5, 64.0))


# The least variance whose root has a finite slope; sources compute the loss with it.
LEAST_VARIANCE = 1e-12


class NotFinite(Exception):
    """A network computes no finite statistics on any noise."""


@dataclass(frozen=True)
class NormGradient:
    """How far what enters the batch norms of a network is from the statistics of its training.

    Attributes:
        loss: The mean over all batch norms of the mean over their channels of ((m - M) / S)^2 + (s / S - 1)^2, where m
            and s are the mean and the standard deviation of what enters, and M and S those of the training.
        norms: The number of batch norms.
        gradients: The derivative of the loss by the values of each input, in its shape.
    """

    loss: float
    norms: int
    gradients: Inputs


@dataclass(frozen=True)
class MatchedInputs:
    """Inputs that match the statistics of a network's batch norms.

    Attributes:
        inputs: Arrays of shape (N, ...) by input name.
        norms: The number of batch norms.
        noise_loss: The loss of the noise that the search began with.
        loss: The loss of the inputs.
    """

    inputs: Inputs
    norms: int
    noise_loss: float
    loss: float


def evaluations(steps: int) -> int:
    """Return how often `match_norms` evaluates the network in a search of so many steps."""
    return len(_RANGES) + steps


def match_norms(evaluate: Callable[[Inputs], NormGradient], noise: Inputs, steps: int) -> MatchedInputs:
    """Change noise until a network's batch norms receive the statistics of its training.

    The search begins with the noise in one of the ranges that networks usually take: the one with the lowest loss.

    Args:
        evaluate: Computes the loss of inputs.
        noise: Standard normal numbers of shape (N, ...) by input name.
        steps: The number of steps of Adam.

    Returns:
        The inputs with the lowest loss on the way.

    Raises:
        NotFinite: The loss is not a finite number in any range.
    """
    scaled = [
        ({name: (array * deviation + mean).astype(array.dtype) for name, array in noise.items()}, deviation)
        for mean, deviation in _RANGES
    ]
    finite = [
        (result.loss, index, result)
        for index, (inputs, _) in enumerate(scaled)
        if np.isfinite((result := evaluate(inputs)).loss)
    ]
    if not finite:
        raise NotFinite
    _, index, result = min(finite, key=lambda entry: entry[:2])
    inputs, deviation = scaled[index]
    return _descend(evaluate, inputs, result, _RATE * deviation, steps)


def _descend(
    evaluate: Callable[[Inputs], NormGradient], inputs: Inputs, result: NormGradient, rate: float, steps: int
) -> MatchedInputs:
    """Return the inputs with the lowest loss on Adam's way down from inputs and their result."""
    start, best = result.loss, (result.loss, inputs)
    means = {name: np.zeros_like(array) for name, array in inputs.items()}
    squares = {name: np.zeros_like(array) for name, array in inputs.items()}
    for step in range(1, steps + 1):
        size = rate * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
        moved = {}
        for name, gradient in result.gradients.items():
            means[name] = _DECAY * means[name] + (1 - _DECAY) * gradient
            squares[name] = _SQUARE_DECAY * squares[name] + (1 - _SQUARE_DECAY) * gradient**2
            root = np.sqrt(squares[name] / (1 - _SQUARE_DECAY**step))
            change = size * means[name] / (1 - _DECAY**step) / (root + _EPSILON)
            moved[name] = (inputs[name] - change).astype(inputs[name].dtype)
        inputs, result = moved, evaluate(moved)
        if result.loss < best[0]:
            best = result.loss, inputs
    return MatchedInputs(best[1], result.norms, start, best[0])

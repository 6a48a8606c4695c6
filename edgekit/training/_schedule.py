"""Learning rate, sample order and seeds as pure functions of the hyperparameters and the epoch."""

from __future__ import annotations

import math

import numpy as np

from edgekit.config.model import TrainingSpec
from edgekit.core.numerics.metrics import Array


def learning_rate(spec: TrainingSpec, epoch: float) -> float:
    """Return the learning rate at a point of the training.

    The warm-up is linear (arXiv 1706.02677). The cosine schedule is SGDR without restarts (arXiv 1608.03983) over the
    epochs after the warm-up: `final + (initial - final) * (1 + cos(pi * progress)) / 2`.

    Args:
        spec: Hyperparameters of the training.
        epoch: Epochs trained so far; the fractional part is the position within an epoch.

    Returns:
        The learning rate.
    """
    if epoch < spec.warmup_epochs:
        return spec.learning_rate * epoch / spec.warmup_epochs
    if spec.schedule_name == "step":
        # Three stages by default, so that the rate drops twice.
        every = spec.step_epochs or max(1, math.ceil(spec.epochs / 3))
        return float(spec.learning_rate * spec.step_factor ** (epoch // every))
    if spec.schedule_name == "cosine":
        final, span = spec.final_learning_rate or 0.0, spec.epochs - spec.warmup_epochs
        progress = min(1.0, (epoch - spec.warmup_epochs) / span) if span > 0 else 1.0
        return final + 0.5 * (spec.learning_rate - final) * (1 + math.cos(math.pi * progress))
    return spec.learning_rate


def sample_order(seed: int, epoch: int, count: int) -> Array:
    """Return the order of the samples in an epoch, the same in both frameworks.

    Args:
        seed: Seed of the training.
        epoch: Number of the epoch, from 0.
        count: Number of samples.

    Returns:
        A permutation of `range(count)`, shape `(count,)`.
    """
    return np.random.default_rng((seed, epoch)).permutation(count)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed for the other randomness of an epoch, such as dropout: 31 bits, which every framework accepts."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0] >> 1)

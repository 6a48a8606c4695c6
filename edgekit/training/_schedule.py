"""What is a function of the hyperparameters and the epoch alone: the learning rate, the order of the samples, seeds."""

from __future__ import annotations

import math

import numpy as np

from edgekit.config.model import TrainingSpec
from edgekit.core.numerics.metrics import Array


def learning_rate(spec: TrainingSpec, epoch: float) -> float:
    """The learning rate after `epoch` epochs, a fraction within one.

    Cosine: SGDR, arXiv 1608.03983, without restarts, over what the warm-up leaves. Warm-up: linear, arXiv 1706.02677.
    """
    if epoch < spec.warmup_epochs:
        return spec.learning_rate * epoch / spec.warmup_epochs
    if spec.schedule_name == "step":
        every = spec.step_epochs or max(1, math.ceil(spec.epochs / 3))
        return float(spec.learning_rate * spec.step_factor ** (epoch // every))
    if spec.schedule_name == "cosine":
        final, span = spec.final_learning_rate or 0.0, spec.epochs - spec.warmup_epochs
        progress = min(1.0, (epoch - spec.warmup_epochs) / span) if span > 0 else 1.0
        return final + 0.5 * (spec.learning_rate - final) * (1 + math.cos(math.pi * progress))
    return spec.learning_rate


def order(seed: int, epoch: int, count: int) -> Array:
    """The order in which an epoch shows the samples: a function of seed and epoch. The same for both twins."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's other randomness, such as dropout. 31 bits."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0] >> 1)

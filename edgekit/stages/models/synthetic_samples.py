"""Synthesis of samples from the batch norms of a network, for users who have the network but no data."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgekit.contracts.source import LoadedModel
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.norm_matching import (
    Inputs,
    MatchedInputs,
    NormGradient,
    NotFinite,
    evaluations,
    match_norms,
)
from edgekit.core.numerics.random_inputs import UnknownSize, random_inputs
from edgekit.core.values.specs import Signature
from edgekit.core.values.synthetic_samples import SYNTHETIC_WORTH

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Effort:
    """How much is synthesized.

    Attributes:
        batch: Samples whose statistics are matched together: enough for the variance of a channel, and few enough that
            the activations of the network, which gradients need, fit into memory.
        calibration: The number of batches of calibration samples; one more is made of golden samples.
        steps: The steps of the search.
    """

    batch: int
    calibration: int
    steps: int


# With 80 calibration samples, `export` can set some apart to compare ways to quantize on.
_EFFORT = _Effort(batch=16, calibration=5, steps=60)
# Each of the larger samples, such as images of more than 146x146 pixels, takes seconds a step and has more values in
# each channel. 32 is the number below which `export` warns of few samples.
_LARGE, _LARGE_EFFORT = 2**16, _Effort(batch=8, calibration=4, steps=40)
# Fixed, so that an import is reproducible.
_SEED = 0
# Further digits depend on the processor.
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True)
class SyntheticSamples:
    """Samples that were synthesized from a network.

    Attributes:
        golden: Golden samples by input name; empty unless they were asked for.
        calibration: Calibration samples by input name.
        record: What `source.json` says of them under `data.synthetic`.
        note: A sentence for the user.
    """

    golden: Mapping[str, Array]
    calibration: Mapping[str, Array]
    record: Mapping[str, Any]
    note: str


def synthesize(
    loaded: LoadedModel, *, golden: bool, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> SyntheticSamples:
    """Synthesize samples for which a network's batch norms receive the statistics of its training.

    Args:
        loaded: The network, with the sizes of its symbolic dimensions.
        golden: Whether to synthesize golden samples too: the user gave no real ones.
        progress: Called with the number of finished evaluations of the network and that of all.

    Raises:
        InputError: The network has no batch norm with such statistics, or inputs that are not floating-point numbers;
            its kind does not support it, or a dimension has no size.
    """
    signature = loaded.signature
    _check_inputs(signature)
    effort = _LARGE_EFFORT if _values_per_sample(loaded) > _LARGE else _EFFORT
    batches = [_noise(loaded, effort, index) for index in range(effort.calibration + golden)]
    _check_norms(loaded.norm_gradient(batches[0]))
    total, done = len(batches) * evaluations(effort.steps), itertools.count(1)

    def evaluate(inputs: Inputs) -> NormGradient:
        result = loaded.norm_gradient(inputs)
        progress(next(done), total)
        return result

    matched = [_matched_batch(evaluate, noise, effort, index) for index, noise in enumerate(batches)]
    inputs = [{spec.name: batch.inputs[spec.name].astype(spec.dtype) for spec in signature.inputs} for batch in matched]
    losses = [
        float(f"{np.mean(values):.{_SIGNIFICANT_DIGITS}g}")
        for values in ([batch.noise_loss for batch in matched], [batch.loss for batch in matched])
    ]
    norms = matched[0].norms
    record = {
        "golden": golden,
        "norms": norms,
        "seed": _SEED,
        "steps": effort.steps,
        "noise_loss": losses[0],
        "loss": losses[1],
    }
    which = "calibration and golden samples are" if golden else "calibration samples are"
    note = (
        f"{which} synthetic, made from the statistics of {norms} batch norm{'s' * (norms != 1)}"
        f" (distance {losses[1]:g}, that of noise {losses[0]:g}): {SYNTHETIC_WORTH}"
    )
    return SyntheticSamples(inputs[-1] if golden else {}, _joined(inputs[: effort.calibration]), record, note)


def _check_inputs(signature: Signature) -> None:
    """Raise InputError for inputs that have no gradient."""
    for spec in signature.inputs:
        if not np.issubdtype(np.dtype(spec.dtype), np.floating):
            raise InputError(
                f"samples cannot be synthesized for the input {spec.name}, which is {spec.dtype} and not"
                " floating-point; pass real inputs",
                parameters=("sample", "calibration"),
            )


def _values_per_sample(loaded: LoadedModel) -> int:
    sizes = loaded.sizes
    return sum(
        batching.samples_per_call(spec)
        * prod(sizes.get(dim, 1) if isinstance(dim, str) else dim for dim in spec.shape[1:])
        for spec in loaded.signature.inputs
    )


def _noise(loaded: LoadedModel, effort: _Effort, index: int) -> dict[str, Array]:
    """Return the standard normal numbers that the search for a batch begins with."""
    try:
        noise = random_inputs(loaded.signature, loaded.sizes, effort.batch, (_SEED, index))
    except UnknownSize as error:
        raise InputError(f"{error}; set it, or pass a sample of real inputs", parameters=("dims", "sample")) from None
    # float16 has too few digits for the squares of gradients.
    return {name: array.astype(np.float32, copy=False) for name, array in noise.items()}


def _check_norms(result: NormGradient) -> None:
    """Raise InputError for a network that has nothing to match."""
    if not result.norms:
        raise InputError(
            "samples cannot be synthesized, since the network has no batch norm that keeps the statistics of its"
            " training (some exporters fold it into convolutions); pass real inputs",
            parameters=("sample", "calibration"),
        )
    if not any(gradient.any() for gradient in result.gradients.values()):
        raise InputError(
            "samples cannot be synthesized, since the network computes no gradient of its batch norms by its inputs;"
            " pass real inputs",
            parameters=("sample", "calibration"),
        )


def _matched_batch(
    evaluate: Callable[[Inputs], NormGradient], noise: Inputs, effort: _Effort, index: int
) -> MatchedInputs:
    try:
        matched = match_norms(evaluate, noise, effort.steps)
    except NotFinite:
        raise InputError(
            "samples cannot be synthesized, since the statistics in the network are not finite; pass real inputs",
            parameters=("sample", "calibration"),
        ) from None
    _log.info("synthesized batch %d: distance %.4g, of noise %.4g", index, matched.loss, matched.noise_loss)
    return matched


def _joined(batches: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

"""Channels of an output that an artifact has lost although the whole tensor is accurate.

One output may hold unlike quantities side by side: boxes in pixels beside scores, counts beside probabilities. The
error over the whole tensor is then that of the largest quantity. With x, y, w and h up to 640 and scores below 1, an
int8 step is 640 / 255 = 2.5: each score is rounded to 0, yet the SQNR of the tensor is 50 dB.

A channel c is one index of an axis. With the reference r and the actual values a over all samples and the other axes,

    signal     P = mean r_c^2          noise  N = mean (a_c - r_c)^2          spread  s = std r_c
    range      R = max |r|, over the whole tensor

a channel is lost for one of three reasons:

1. **Coarse.** The artifact's values of the channel are so far apart that its spread falls between two of them: the
   smallest distance between two different values of a_c is at least 2 s, or a_c is constant, and N is at least s^2 /
   4 (rounding to steps of 2 s makes s^2 / 3). The values say little more than their mean. Reported only where a scale
   of the channel's own would have kept it, that is where s^2 is at least 100 times the noise q^2 / 12 of a grid of 255
   steps q over the channel's range with 0 (20 dB): 300 +- 1 is not representable in int8 by any scale.
2. **Noisy.** The SQNR 10 log10(P / N) is below a floor, and the noise is above R / 64. The floor is 14 dB below the
   limit of the whole tensor: noise is about equal in all channels, so that a channel with a fifth of the usual signal
   has 14 dB less. The second condition spares channels that are small by nature, such as borders of an image that are
   always black. With the smallest group of 16 normally distributed values, the power is a fifth^2 of its expectation
   with a probability below 1e-8.
3. **Out of tolerance.** In floating point, the largest error exceeds the absolute tolerance times the channel's own
   scale, where the whole tensor grants it times R, and the SQNR is below the floor of (2).

Not lost are channels that are constant in the source (nothing to lose) up to an error of R / 128, and channels of
probabilities: where the whole tensor lies in 0..1, all channels have the unit 1, and a rare class that is rounded from
0.001 to 0 is an error of 0.001. There, noise up to R / 128, two steps of int8, loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.core.numerics.metrics import Array
from edgekit.core.values.tolerances import Tolerances
from edgekit.core.values.typed_json import Name

# The floor of a channel's SQNR below the limit of the whole tensor, in dB: a fifth of the signal at equal noise.
CHANNEL_MARGIN_DB = 14.0
# At 0 dB the error is as large as the values themselves; no precision is so coarse that this is meant.
_LOWEST_FLOOR_DB = 1.0
# Fewer values of a channel are no statistics: of a few values near 0, all errors are relatively large.
_MIN_VALUES, _MIN_VALUES_NOISY = 8, 16
# Noise below these shares of the tensor's range is spared; see the module's docstring.
_NOISY_SHARE, _UNIT_SHARE = 1 / 64, 1 / 128
# Steps of an int8 grid, and the ratio of spread and noise that a channel must have been able to keep (20 dB).
_STEPS, _REPRESENTABLE = 255.0, 100.0
# Noise below this share of the spread comes from no coarse grid: a channel of zeros and ones may be exact.
_COARSE_NOISE = 0.5
# Values of the artifact that are nearer to each other than this share of the spread are one level with float noise.
_SAME_LEVEL = 0.05
# Rows (axis 1) differ in meaning where their scales differ by this factor; rows of an image or of a series do not.
_UNLIKE_ROWS = 30.0
# The scale that a channel is granted at least, in a tensor beyond 1: that of intermediate values.
_TOLERANCE_FLOOR = 0.1
# Below SQNR figures, which JSON holds as finite numbers.
_LOWEST_DB = -999.0


@dataclass(frozen=True)
class LostChannel:
    """A channel whose values the artifact does not keep.

    Attributes:
        kind: `channel`, `row` (an index of axis 1 that is not the channels'), or `class` of an integer output.
        index: The index, or the class.
        reason: What is wrong, one clause with the figures.
        sqnr_db: SQNR of the channel, in dB; at least -999. None for a class.
    """

    kind: Literal["channel", "row", "class"]
    index: int
    reason: Name
    sqnr_db: float | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.index} is lost: {self.reason}"


def floor_db(limits: Tolerances) -> float | None:
    """Return the smallest SQNR of a channel.

    A limit on the cosine stands for one on the SQNR: for small errors, 1 - cosine is half of noise over signal, so
    that a cosine of 0.9999 is an SQNR of -10 log10(2 * 0.0001) = 37 dB.

    Args:
        limits: The tolerances of the output.

    Returns:
        The floor in dB, at least 1; None where neither the SQNR nor the cosine has a limit.
    """
    limit = limits.min_sqnr_db
    if limit is None and limits.min_cosine is not None:
        limit = -10 * math.log10(max(2 * (1 - limits.min_cosine), 1e-15))
    return None if limit is None else max(_LOWEST_FLOOR_DB, limit - CHANNEL_MARGIN_DB)


def lost_channels(
    reference: Array, actual: Array, limits: Tolerances, layout: str | None = None
) -> tuple[LostChannel, ...]:
    """Find the channels that an artifact has lost.

    The channels are the indices of the last axis, or of axis 1 of an image with its channels first. Of other outputs
    with three or four dimensions, the rows along axis 1 are judged too where their scales differ by a factor of 30.

    Args:
        reference: Output of the source, shape (N, ...), finite.
        actual: Output of the artifact, same shape, finite.
        limits: The tolerances of the output; without a limit on SQNR or cosine no channel is judged.
        layout: `NCHW`, `NHWC` … for images, else None.

    Returns:
        The lost channels, axis by axis.
    """
    floor = floor_db(limits)
    if floor is None or reference.ndim < 2 or not np.issubdtype(reference.dtype, np.floating):
        return ()
    r, a = reference.astype(np.float64), actual.astype(np.float64)
    judge = _Judge(r, floor, limits.max_abs_error)
    image = layout is not None and layout.startswith("NC")
    axis = 1 if image else r.ndim - 1
    lost = [judge.judge("channel", index, *pair) for index, *pair in _suspects(r, a, axis, floor)]
    if layout is None and r.ndim in (3, 4):
        lost += [
            judge.judge("row", index, row, values)
            for index, row, values in _suspects(r, a, 1, floor)
            if 0 < _UNLIKE_ROWS * float(np.abs(row).max()) <= judge.range
        ]
    return tuple(channel for channel in lost if channel is not None)


def unlike_channels(outputs: Array, layout: str | None = None) -> tuple[int, ...]:
    """Find the channels that one scale for the whole tensor cannot keep in 8 bits, from the source's outputs alone.

    They are the channels that an ideal int8 tensor loses: the outputs are rounded to 255 steps over their range with 0.

    Args:
        outputs: Output of the source, shape (N, ...).
        layout: `NCHW`, `NHWC` … for images, else None.

    Returns:
        The indices of the channels, in order; empty for outputs that are not finite.
    """
    if outputs.ndim < 2 or not np.issubdtype(outputs.dtype, np.floating) or not np.isfinite(outputs).all():
        return ()
    values = outputs.astype(np.float64)
    step = _step(values)
    rounded = np.round(values / step) * step if step else values
    return tuple(
        channel.index
        for channel in lost_channels(values, rounded, Tolerances(min_sqnr_db=CHANNEL_MARGIN_DB), layout)
        if channel.kind == "channel"
    )


def _suspects(
    r: NDArray[np.float64], a: NDArray[np.float64], axis: int, floor: float
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield index, reference and values of the channels that are coarse or noisy enough to be lost."""
    others = tuple(dim for dim in range(r.ndim) if dim != axis)
    noise = np.sqrt(np.mean((a - r) ** 2, axis=others))
    signal = np.sqrt(np.mean(r**2, axis=others))
    suspicious = (noise >= _COARSE_NOISE * r.std(axis=others)) | (noise * 10 ** (floor / 20) > signal)
    for index in np.flatnonzero(suspicious).tolist():
        yield index, np.take(r, index, axis).reshape(-1), np.take(a, index, axis).reshape(-1)


def _step(values: Array) -> float:
    """Return the step of an int8 grid over the values and 0, which every quantizer includes."""
    return (max(float(values.max()), 0.0) - min(float(values.min()), 0.0)) / _STEPS


class _Judge:
    """Judges the channels of one tensor."""

    def __init__(self, reference: NDArray[np.float64], floor: float, max_abs_error: float | None) -> None:
        self.range = float(np.abs(reference).max())
        # Probabilities, from a softmax or from sigmoids, and masks: all channels have one unit.
        self.is_probability = float(reference.min()) >= 0.0 and float(reference.max()) <= 1.0
        self.floor = floor
        self.max_abs_error = max_abs_error

    def judge(
        self, kind: Literal["channel", "row"], index: int, r: NDArray[np.float64], a: NDArray[np.float64]
    ) -> LostChannel | None:
        """Return the channel with the reason why it is lost, or None."""
        if len(r) < _MIN_VALUES:
            return None
        noise = float(np.sqrt(np.mean((a - r) ** 2)))
        spread = float(r.std())
        constant = bool(np.all(r == r[0]))
        if noise == 0.0 or self._tolerated(r, a):
            return None
        if (constant or self.is_probability) and noise <= self.range * _UNIT_SHARE:
            return None
        signal = float(np.sqrt(np.mean(r**2)))
        sqnr = 20 * math.log10(signal / noise) if signal > 0 else _LOWEST_DB
        reason = self._reason(r, a, noise, spread, sqnr)
        return None if reason is None else LostChannel(kind, index, reason, max(sqnr, _LOWEST_DB))

    def _reason(
        self, r: NDArray[np.float64], a: NDArray[np.float64], noise: float, spread: float, sqnr: float
    ) -> str | None:
        low, high, error = float(r.min()), float(r.max()), float(np.abs(a - r).max())
        within = f"the source's values from {low:.3g} to {high:.3g}"
        own_noise = _step(r) ** 2 / 12
        if noise >= _COARSE_NOISE * spread and spread**2 >= _REPRESENTABLE * own_noise:
            distance = _level_distance(a, spread)
            if math.isinf(distance):
                return f"it is constant at {a[0]:.3g} for {within}"
            if distance >= 2 * spread:
                return f"it has steps of {distance:.3g} for {within}"
        if sqnr >= self.floor:
            return None
        if len(r) >= _MIN_VALUES_NOISY and noise > self.range * _NOISY_SHARE:
            return f"its SQNR is {sqnr:.1f} dB, less than {self.floor:.1f} dB"
        return None if self.max_abs_error is None else f"its largest error is {error:.2g} for {within}"

    def _tolerated(self, r: NDArray[np.float64], a: NDArray[np.float64]) -> bool:
        """Return whether the errors of a channel are within the absolute tolerance at the channel's own scale."""
        if self.max_abs_error is None:
            return False
        # In a tensor up to 1, small channels carry the rounding of intermediate values near 1, as the tensor does.
        least = 1.0 if self.range <= 1.0 else _TOLERANCE_FLOOR
        return float(np.abs(a - r).max()) <= self.max_abs_error * max(float(np.abs(r).max()), least)


def _level_distance(values: NDArray[np.float64], spread: float) -> float:
    """Return the smallest distance between two levels of the values; infinity where they are one level."""
    levels = np.unique(values)
    if levels[-1] - levels[0] <= _SAME_LEVEL * spread:
        return math.inf
    distances = np.diff(levels)
    apart = distances[distances > _SAME_LEVEL * spread]
    return float(apart.min()) if len(apart) else 0.0  # a continuum of values

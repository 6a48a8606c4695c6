"""The `analytic` tier: a roofline, which is a rough lower bound of the latency and available for every device.

Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009: time >= max(work / peak rate, bytes / peak bandwidth). The
bytes are those of the weights, each of which is read once when nothing is in the caches.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.config.device_profile import Core, DeviceProfile
from edgekit.core.values.precisions import find_precision

# Multiply-accumulates per cycle that the instruction set allows with one vector unit: a 128-bit FMLA has 4 lanes of
# float32, SMLAL 8 of int8 or 4 of int16, SDOT 16 products of int8; SMLAD of the DSP extension makes 2 products.
_ISA_MACS_PER_CYCLE = {
    "neon": {"float32": 4.0, "int8": 8.0, "int16": 4.0},
    "dotprod": {"int8": 16.0},
    "dsp": {"int8": 2.0, "int16": 2.0},
}


@dataclass(frozen=True)
class Roofline:
    """A lower bound of the latency.

    Attributes:
        latency_ms: The bound, or None if it cannot be computed.
        bound_by: The limiting resource, `compute` or `memory`, or None.
        reason: Why there is no bound.
        assumed: Whether the profile has no sourced rate for the core, so that the instruction set's is used. A core
            with several vector units may then be faster than the bound.
    """

    latency_ms: float | None
    bound_by: str | None
    reason: str = ""
    assumed: bool = False


def _rate(core: Core, arithmetic: str) -> tuple[float | None, bool]:
    """Multiply-accumulates per cycle of one core, and whether they are derived from the instruction set."""
    sourced = {str(key): rate for key, rate in core.macs_per_cycle.items()}
    if arithmetic in sourced:
        return sourced[arithmetic], False
    rates = [
        _ISA_MACS_PER_CYCLE[feature][arithmetic]
        for feature in core.features
        if arithmetic in _ISA_MACS_PER_CYCLE.get(feature, {})
    ]
    return (max(rates), True) if rates else (None, False)


def roofline(profile: DeviceProfile, precision: str, *, macs: int | None, weight_bytes: int, threads: int) -> Roofline:
    """Compute the bound of one inference on cores of the device's first cluster.

    Args:
        profile: The device.
        precision: The precision of the model.
        macs: The multiply-accumulates of one inference, or None if unknown.
        weight_bytes: The size of the weights.
        threads: The number of cores.

    Returns:
        The bound, or the reason why there is none.
    """
    core = profile.cores[0]
    if macs is None:
        return Roofline(None, None, "the multiply-accumulates of the model are unknown")
    rate, assumed = _rate(core, find_precision(precision).arithmetic)
    if rate is None:
        return Roofline(None, None, f"the profile has no {precision} rate for the core {core.name}")
    seconds = {"compute": macs / (rate * threads * core.clock_mhz * 1e6)}
    if profile.memory.bandwidth_gb_per_s is not None:
        seconds["memory"] = weight_bytes / (profile.memory.bandwidth_gb_per_s * 1e9)
    bound_by = max(seconds, key=lambda side: seconds[side])
    return Roofline(seconds[bound_by] * 1000, bound_by, assumed=assumed)

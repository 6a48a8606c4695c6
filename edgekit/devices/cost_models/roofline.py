"""The `analytic` tier: a roofline. Rough, always there, and never a prediction of what a device will show.

Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009: time >= max(work / peak rate, bytes / peak bandwidth). The
bytes are those of the weights: on a device with nothing in its caches each is read once.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.config.device_profile import Core, DeviceProfile
from edgekit.core.values.precisions import find_precision

# Multiply-accumulates a cycle that the instruction set allows a core of one vector unit: a 128-bit FMLA has 4 lanes of
# float32, SMLAL 8 of int8 or 4 of int16, SDOT 16 products of int8; SMLAD of the DSP extension makes 2 products.
_BY_ISA = {
    "neon": {"float32": 4.0, "int8": 8.0, "int16": 4.0},
    "dotprod": {"int8": 16.0},
    "dsp": {"int8": 2.0, "int16": 2.0},
}


@dataclass(frozen=True)
class Roofline:
    """The latency in ms and which side of the roof it is on (`compute`, `memory`); or None and why.

    `assumed` says that the profile has no sourced rate for the core, and the instruction set's was taken: a core with
    several vector units is then faster than the roof.
    """

    latency_ms: float | None
    bound_by: str | None
    reason: str = ""
    assumed: bool = False


def _rate(core: Core, arithmetic: str) -> tuple[float | None, bool]:
    """Multiply-accumulates a cycle of one core, and whether that is the instruction set's and not the profile's."""
    known = {str(key): rate for key, rate in core.macs_per_cycle.items()}
    if arithmetic in known:
        return known[arithmetic], False
    rates = [_BY_ISA[feature][arithmetic] for feature in core.features if arithmetic in _BY_ISA.get(feature, {})]
    return (max(rates), True) if rates else (None, False)


def roofline(profile: DeviceProfile, precision: str, *, macs: int | None, weight_bytes: int, threads: int) -> Roofline:
    """The roof over one inference on `threads` cores of the device's first cluster."""
    core = profile.cores[0]
    if macs is None:
        return Roofline(None, None, "the file does not tell its multiply-accumulates")
    rate, assumed = _rate(core, find_precision(precision).arithmetic)
    if rate is None:
        return Roofline(None, None, f"the profile has no {core.name} rate for {precision}")
    seconds = {"compute": macs / (rate * threads * core.clock_mhz * 1e6)}
    if profile.memory.bandwidth_gb_per_s is not None:
        seconds["memory"] = weight_bytes / (profile.memory.bandwidth_gb_per_s * 1e9)
    bound_by = max(seconds, key=lambda side: seconds[side])
    return Roofline(seconds[bound_by] * 1000, bound_by, assumed=assumed)

"""The `analytic` tier: a roofline. A lower bound that a device cannot beat, not a prediction.

Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009: time >= max(work / peak rate, bytes / peak bandwidth). The
bytes are those of the weights: on a device with nothing in its caches each is read once.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.devices.profile import DeviceProfile

_ARITHMETIC = {"float32": "float32", "float16": "float32", "dynamic": "int8", "int8": "int8"}
"""What a precision computes in on a CPU: float16 weights are unpacked to float32; profiles have no int16x8 rate."""


@dataclass(frozen=True)
class Roofline:
    """A lower bound on the latency in ms, and which side of the roof it is on; or why there is none."""

    latency_ms: float | None
    bound_by: str | None
    reason: str = ""


def roofline(profile: DeviceProfile, precision: str, *, macs: int | None, weight_bytes: int, threads: int) -> Roofline:
    """The bound for one inference on the first cluster of the device."""
    core = profile.cores[0]
    arithmetic = _ARITHMETIC.get(precision)
    rates = {str(key): rate for key, rate in core.macs_per_cycle.items()}
    if macs is None:
        return Roofline(None, None, "the file does not tell its multiply-accumulates")
    if arithmetic is None or arithmetic not in rates:
        return Roofline(None, None, f"the profile has no {core.name} rate for {precision}")
    seconds = {"compute": macs / (rates[arithmetic] * threads * core.clock_mhz * 1e6)}
    if profile.memory.bandwidth_gb_per_s is not None:
        seconds["memory"] = weight_bytes / (profile.memory.bandwidth_gb_per_s * 1e9)
    bound_by = max(seconds, key=lambda side: seconds[side])
    return Roofline(seconds[bound_by] * 1000, bound_by)

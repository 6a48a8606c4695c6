"""Whether a network has room on a device: what it needs at the least, against what the profile says is there."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.config.device_profile import DeviceProfile
from edgekit.core.records.memory_plan import TensorLifetime, memory_peak
from edgekit.core.units import format_bytes
from edgekit.devices.cost_models.flash import FlashEstimate


def memory_shortage(
    profile: DeviceProfile,
    size_bytes: int,
    tensor_lifetimes: Sequence[TensorLifetime],
    code: FlashEstimate | None = None,
) -> str | None:
    """Why a model file of that size, whose tensors live so long, cannot run there, or None.

    A lower bound: a microcontroller reads the weights from its flash, where the code is that runs them, another device
    has them in RAM beside the tensors that are alive at the same time. What the system keeps for itself is not there
    for them, where the profile tells it.
    """
    memory, flash = profile.memory, profile.model_flash
    if flash is not None and size_bytes > flash:
        return f"its file of {format_bytes(size_bytes)} is larger than {format_bytes(flash)} of flash"
    if flash is not None and code is not None and size_bytes + code.low_bytes > flash:
        return (
            f"its file of {format_bytes(size_bytes)} and its code, at least {format_bytes(code.low_bytes)} by estimate,"
            f" are larger than {format_bytes(flash)} of flash"
        )
    if not tensor_lifetimes:
        return None
    most = memory_peak(tensor_lifetimes)
    needed, room = most.size_bytes + (size_bytes if flash is None else 0), memory.ram - (memory.system or 0)
    if needed <= room:
        return None
    largest = most.tensors[0]
    return (
        f"it needs at least {format_bytes(needed)} of {format_bytes(room)} RAM; the largest tensor at the peak is"
        f" {largest.name} with {format_bytes(largest.size_bytes)}"
    )

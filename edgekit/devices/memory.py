"""Checks whether a model fits into the memory and flash of a device profile."""

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
    """Explain why a model does not fit a device.

    The requirement is a lower bound. A microcontroller reads the weights from flash, which also holds the code. Any
    other device has them in RAM, beside the tensors that are alive at the same time.

    Args:
        profile: The device. Memory that its system reserves is subtracted, if the profile states it.
        size_bytes: The size of the model file.
        tensor_lifetimes: The model's tensors; empty where the format does not define them.
        code: The estimated size of the code that runs the model, or None if unknown.

    Returns:
        The reason with the required and the available bytes, or None if no shortage is known.
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
    peak = memory_peak(tensor_lifetimes)
    needed, available = peak.size_bytes + (size_bytes if flash is None else 0), memory.ram - (memory.system or 0)
    if needed <= available:
        return None
    largest = peak.tensors[0]
    return (
        f"it needs at least {format_bytes(needed)} of {format_bytes(available)} RAM; the largest tensor at the peak is"
        f" {largest.name} with {format_bytes(largest.size_bytes)}"
    )

"""Whether a network has room on a device: what it needs at the least, against what the profile says is there."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.arena import Life, peak
from edgekit.core.units import format_bytes
from edgekit.devices.profile import DeviceProfile


def lacks_room(profile: DeviceProfile, size_bytes: int, lives: Sequence[Life]) -> str | None:
    """Why a model file of that size, whose tensors live so long, cannot run there, or None.

    A lower bound: a microcontroller reads the weights from its flash, another device has them in RAM beside the tensors
    that are alive at the same time. What the system keeps for itself is not there for them, where the profile tells it.
    """
    memory = profile.memory
    in_flash = memory.flash is not None and profile.kind == "microcontroller"
    if in_flash and memory.flash is not None and size_bytes > memory.flash:
        return f"its file of {format_bytes(size_bytes)} is larger than {format_bytes(memory.flash)} of flash"
    if not lives:
        return None
    most = peak(lives)
    needed, room = most.size_bytes + (0 if in_flash else size_bytes), memory.ram - (memory.system or 0)
    if needed <= room:
        return None
    largest = most.tensors[0]
    return (
        f"it needs at least {format_bytes(needed)} of {format_bytes(room)} RAM; the largest tensor at the peak is"
        f" {largest.name} with {format_bytes(largest.size_bytes)}"
    )

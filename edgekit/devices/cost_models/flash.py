"""The flash that a model takes on an Arm Cortex-M, with the code that runs it: an estimate from x86-64 code.

    flash = THUMB2 * instructions + constants + 4 * pointers

The instructions are those of TensorFlow Lite Micro's reference kernels and interpreter for x86-64, of which a linker
keeps what the model's operators reach. Thumb-2 says the same in fewer bytes, by a share that was measured by compiling
the same kernels for both (`tests/benchmarks/flash_ratio.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.records.section_sizes import CodeSize, Piece

THUMB2, THUMB2_LOW, THUMB2_HIGH = 0.61, 0.52, 0.68
"""Of 48 kernels together on the Cortex-M4, and nine of ten draws of ten of them; M33 the same, M7 0.64."""
_POINTER = 4
TEXT = "from the reference kernels for x86-64; start-up code, the C library and a vendor's kernels are not counted"


@dataclass(frozen=True)
class FlashEstimate:
    """Bytes of code and constants beside the model's file, with their interval; of each operator, what it adds to an
    interpreter without others. `missing` are operators whose code is not known: their bytes are not in it."""

    code_bytes: int
    low_bytes: int
    high_bytes: int
    interpreter_bytes: int
    operators: tuple[tuple[str, int], ...]
    missing: tuple[str, ...]
    text: str = TEXT


def _bytes(piece: Piece, ratio: float = THUMB2) -> int:
    return round(ratio * piece.instructions) + piece.constants + _POINTER * piece.pointers


def estimate_flash(code: CodeSize) -> FlashEstimate:
    """The same code for a Cortex-M."""
    return FlashEstimate(
        _bytes(code.together),
        _bytes(code.together, THUMB2_LOW),
        _bytes(code.together, THUMB2_HIGH),
        _bytes(code.interpreter),
        tuple((name, _bytes(piece)) for name, piece in code.operators),
        code.missing,
    )

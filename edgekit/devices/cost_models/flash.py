"""Estimates the flash that a model's code takes on an Arm Cortex-M from the same code for x86-64.

    flash = THUMB2 * instructions + constants + 4 * pointers

The bytes are those of TensorFlow Lite Micro's reference kernels and interpreter for x86-64 that a linker keeps for the
model's operators. Thumb-2 code is smaller; its ratio was measured by compiling the same kernels for both
(`tests/benchmarks/flash_ratio.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.records.section_sizes import CodeSize, Piece

# Bytes of Thumb-2 code per byte of x86-64 code: 48 kernels together on the Cortex-M4 (M33 equal, M7 0.64), and the
# interval that holds nine of ten random draws of ten kernels.
THUMB2, THUMB2_LOW, THUMB2_HIGH = 0.61, 0.52, 0.68
# Bytes of a pointer on a 32-bit core.
_POINTER_BYTES = 4
TEXT = "from the reference kernels for x86-64; start-up code, the C library and a vendor's kernels are not counted"


@dataclass(frozen=True)
class FlashEstimate:
    """The estimated flash of code and constants, without the model file.

    Attributes:
        code_bytes: The estimate for the interpreter with all operators of the model.
        low_bytes: The lower end of the interval.
        high_bytes: The upper end of the interval.
        interpreter_bytes: The share of the interpreter alone.
        operators: The bytes that each operator adds to an interpreter without other operators.
        missing: Operators whose code is unknown; their bytes are not included.
        text: What the estimate is based on.
    """

    code_bytes: int
    low_bytes: int
    high_bytes: int
    interpreter_bytes: int
    operators: tuple[tuple[str, int], ...]
    missing: tuple[str, ...]
    text: str = TEXT


def _bytes(piece: Piece, ratio: float = THUMB2) -> int:
    return round(ratio * piece.instructions) + piece.constants + _POINTER_BYTES * piece.pointers


def estimate_flash(code: CodeSize) -> FlashEstimate:
    """Estimate the flash of code on a Cortex-M.

    Args:
        code: The sizes of the same code for x86-64.

    Returns:
        The estimate with its interval.
    """
    return FlashEstimate(
        _bytes(code.together),
        _bytes(code.together, THUMB2_LOW),
        _bytes(code.together, THUMB2_HIGH),
        _bytes(code.interpreter),
        tuple((name, _bytes(piece)) for name, piece in code.operators),
        code.missing,
    )

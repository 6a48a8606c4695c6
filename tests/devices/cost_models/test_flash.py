"""The estimate of Cortex-M code from x86-64 code."""

from edgekit.core.records.section_sizes import CodeSize, Piece
from edgekit.devices.cost_models import flash


def test_instructions_shrink_strings_stay_and_pointers_have_half_their_bytes():
    interpreter = Piece(10_000, 500, 100)
    code = CodeSize(interpreter, (("CONV_2D", Piece(5_000, 200, 0)),), Piece(15_000, 700, 100), ("ODD",))
    estimate = flash.estimate_flash(code)
    assert estimate.interpreter_bytes == 6_100 + 500 + 400
    assert estimate.operators == (("CONV_2D", 3_050 + 200),)
    assert estimate.code_bytes == 9_150 + 700 + 400
    assert estimate.low_bytes < estimate.code_bytes < estimate.high_bytes
    assert estimate.missing == ("ODD",)

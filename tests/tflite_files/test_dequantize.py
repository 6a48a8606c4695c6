"""Rewriting of quantized flatbuffers into float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The largest errors: of the rewritten file against the quantized one, and against the network before quantization.
# Outputs are up to 4.5; activations have steps of 0.05.
FORMS = {
    "float32": ([], False, 0.0, 0.0),
    "float16": (["float16"], False, 0.0, 0.001),
    "hybrid": (["int8"], False, 0.01, 0.02),
    "int8": (["int8"], True, 0.1, 0.1),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_network_becomes_the_float_network(
    in_worker: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    types, activations, from_file, from_plain = FORMS[form]
    found = in_worker("rewritten", folder=str(tmp_path), form=form)
    assert (found["types"], found["activations"]) == (types, activations)
    assert found["operators"] == ["CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"]
    assert found["tensors"] == 10  # without those of the operators that are gone
    assert found["from_file"] <= from_file
    assert found["from_plain"] <= from_plain
    assert found["translated"] < 1e-6
    # The image is transposed once, and everything behind it has its channels first.
    assert found["transposes"] == 1

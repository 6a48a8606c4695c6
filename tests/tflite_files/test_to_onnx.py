"""The translation of flatbuffers to ONNX: each operator computes in ONNX Runtime what it computes in LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_every_operator_computes_the_same(in_worker: Callable[..., Any]) -> None:
    errors = in_worker("operators")
    assert len(errors) > 45
    assert {case: error for case, error in errors.items() if error > 2e-6} == {}

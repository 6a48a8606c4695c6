"""Which tolerances a comparison of two models applies."""

from __future__ import annotations

import pytest

from edgekit.stages.validation import compare


@pytest.mark.parametrize(
    ("precisions", "coarsest"),
    [
        (("float32", "float16"), "float16"),
        (("float32", "dynamic"), "dynamic"),
        (("int8", "int16x8"), "int8"),
        (("int16x8", "float16"), "int16x8"),
        (("int4", "int8"), "int4"),
        ((), "float32"),
    ],
)
def test_the_coarser_precision_sets_the_tolerances(monkeypatch, precisions, coarsest):
    monkeypatch.setattr(compare, "precision_of", lambda _context, model: model)
    assert compare.coarser_precision(None, precisions) == coarsest
    assert compare.coarser_precision(None, precisions[::-1]) == coarsest

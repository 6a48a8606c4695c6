"""Why a refusal stands: what a target cannot do, with any converter."""

from __future__ import annotations

import re

REASONS: dict[str, str] = {
    r"aten\.unique\w* has no counterpart in (TensorFlow Lite|ExecuTorch)": "the size of the result depends on values",
}
"""Patterns of edgekit's sentences with the reason in words of the table."""


def standing_reason(sentence: str) -> str:
    """Return why a refusal stands, or nothing if it does not."""
    return next((reason for pattern, reason in REASONS.items() if re.search(pattern, sentence)), "")

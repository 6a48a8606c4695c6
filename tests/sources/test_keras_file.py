"""Loading of Keras files without executing code that they contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Work = Callable[..., Any]
Refusal = Callable[..., str]

SUFFIXES = pytest.mark.parametrize("suffix", [".keras", ".h5"])
OPT_IN = "name the function that builds it instead: edgekit export FILE.py:FUNCTION --weights WEIGHTS"


@pytest.mark.slow
@SUFFIXES
def test_inputs_and_outputs_are_read_from_the_file_by_name_and_in_order(
    work: Work, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"net{suffix}"
    work("keras", "functional_keras", path=path)
    assert work("keras", "load_keras", path=path) == [
        "left batchx4 float32",
        "right batchx3 float32",
        "sum batchx2 float32",
        "product batchx3 float32",
    ]


@SUFFIXES
def test_a_lambda_layer_is_refused_with_an_alternative_and_not_executed(
    work: Work, refusal: Refusal, tmp_path: Path, suffix: str
) -> None:
    path, marker = tmp_path / f"net{suffix}", tmp_path / "executed"
    work("keras", "lambda_keras", path=path, marker=marker)
    expected = f"{path}: this model contains Python code (a Lambda layer), which edgekit does not execute"
    assert refusal("keras", "load_keras", path=path) == f"{expected}; if you trust it, {OPT_IN}"
    assert not marker.exists()


@SUFFIXES
def test_a_custom_layer_is_refused_with_an_alternative(
    work: Work, refusal: Refusal, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"net{suffix}"
    work("keras", "custom_keras", path=path)
    sentence = refusal("keras", "load_keras", path=path)
    assert sentence.startswith(f"{path}: this model contains the custom layer ")
    assert sentence.endswith(f"; {OPT_IN}")


@SUFFIXES
@pytest.mark.parametrize("damage", ["empty", "start", "half", "most", "text"])
def test_a_damaged_file_is_refused_in_one_sentence(
    work: Work, refusal: Refusal, tmp_path: Path, suffix: str, damage: str
) -> None:
    path = tmp_path / f"net{suffix}"
    work("keras", "functional_keras", path=path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "start": content[:100],
            "half": content[: len(content) // 2],
            "most": content[:-20],
            "text": b"Dear model,\nhow are you?\n" * 40,
        }[damage]
    )
    expected = f"{path}: Keras cannot load this file: it is not a Keras model, or it is damaged ("
    assert refusal("keras", "load_keras", path=path).startswith(expected)

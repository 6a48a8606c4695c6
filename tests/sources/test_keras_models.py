"""Every usual way to save a Keras model: its names, its structures, its precision, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Work = Callable[..., Any]
Refusal = Callable[..., str]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "suffix", "signature"),
    [
        ("with input", ".keras", ["x batchx4 float32", "y batchx3 float32"]),
        ("with input", ".h5", ["x batchx4 float32", "y batchx3 float32"]),
        ("trained", ".keras", ["x batchx4 float32", "y batchx3 float32"]),
        ("trained", ".h5", ["x batchx4 float32", "y batchx3 float32"]),
        # The number of samples that it was first called with is no size of the model.
        ("without input", ".keras", ["input_layer batchx4 float32", "y batchx3 float32"]),
        (
            "several inputs",
            ".keras",
            [
                "zeta batchx4 float32",
                "alpha batchx4 float32",
                "last batchx2 float32",
                "first_b_0 batchx3 float32",
                "first_b_1 batchx4 float32",
            ],
        ),
        (
            "twice and passed through",
            ".keras",
            ["x batchx4 float32", "d batchx3 float32", "x_1 batchx4 float32", "d_1 batchx3 float32"],
        ),
        ("equal names", ".keras", ["x batchx4 float32", "x_1 batchx3 float32"]),
    ],
)
def test_a_model_keeps_its_outputs_under_unique_names(
    work: Work, tmp_path: Path, kind: str, suffix: str, signature: list[str]
) -> None:
    result = work("keras", "keras_models:imported_keras", kind=kind, path=tmp_path / f"net{suffix}")
    generated = [
        line if not line.startswith("input_layer") else f"input_layer {line.partition(' ')[2]}"
        for line in result["signature"]
    ]
    assert generated == signature
    assert result["error"] < 1e-6
    assert 0 <= result["rounding"] < 1e-6
    assert result["notes"] == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_every_precision_policy_is_rebuilt_in_float32(work: Work, tmp_path: Path, policy: str) -> None:
    result = work("keras", "keras_models:imported_keras", kind=policy, path=tmp_path / "net.keras")
    assert result["signature"] == ["x batchx4x3 float32", "y batchx2 float32"]
    assert result["notes"] == [
        f"the layers of the policy {policy} were rebuilt in float32, in which the source is run too"
    ]
    # As far from the model as its own rounding, and from float64 as far as float32 rounds.
    assert result["error"] < {"float64": 1e-6, "mixed_bfloat16": 5e-2}.get(policy, 5e-3)
    assert 0 < result["rounding"] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tflite:float32", "onnx:float32"])
@pytest.mark.parametrize("kind", ["twice and passed through", "awkward names"])
def test_names_and_repeated_outputs_survive_a_conversion(work: Work, tmp_path: Path, kind: str, variant: str) -> None:
    errors = work("keras", "keras_models:converted_keras", kind=kind, path=tmp_path / "net.keras", variant=variant)
    names = {"awkward names": {"o 1", "o.1", "结果"}}.get(kind, {"d", "x_1", "d_1"})
    assert errors.keys() == names
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("form", ["arguments", "dict", "list"])
def test_a_subclassed_model_is_called_in_the_form_that_it_takes(work: Work, tmp_path: Path, form: str) -> None:
    result = work("keras", "keras_models:imported_code", form=form, folder=tmp_path)
    assert result["outputs"] == ["z_class", "a_box_0"]
    assert result["error"] < 1e-6


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("int8", "the layer 'head' was quantized by model.quantize('int8'), and no converter reads such weights; save"),
        ("lookup", "the layer 'table' (IntegerLookup) looks values up in a table, which no target can; save the part"),
    ],
)
def test_layers_that_no_target_has_are_refused_by_name(
    work: Work, refusal: Refusal, tmp_path: Path, kind: str, reason: str
) -> None:
    path = tmp_path / "net.keras"
    sentence = refusal("keras", "keras_models:imported_keras", kind=kind, path=path)
    assert sentence.startswith(f"{path}: {reason}")


@pytest.mark.parametrize(("version", "refused"), [("2.15.0", True), ("3.5.0", False)])
def test_a_file_of_keras_2_that_does_not_load_says_the_way_out(
    work: Work, refusal: Refusal, tmp_path: Path, version: str, refused: bool
) -> None:
    path = tmp_path / "net.h5"
    work("keras", "keras_models:keras_2_file", path=path, version=version)
    sentence = refusal("keras", "keras_models:load_file", path=path)
    assert ("this file was written by Keras 2.15.0, and Keras 3 does not read it (" in sentence) is refused
    assert ("tf_keras.models.load_model('net.h5').export('net_saved_model')" in sentence) is refused


def test_a_file_of_weights_needs_the_code_of_the_network(work: Work, refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    work("keras", "keras_models:weights_file", path=path)
    sentence = refusal("keras", "keras_models:load_file", path=path)
    assert sentence.startswith(f"{path}: this file holds weights without a network; name the function that builds it")


def test_the_outputs_of_a_file_are_those_that_its_signature_names(work: Work, tmp_path: Path) -> None:
    result = work("keras", "keras_models:unnamed_output", folder=tmp_path)
    assert (result["before"], result["after"]) == (3, ["y"])
    assert result["error"] < 1e-6

"""Recipes: their text, their JSON, and the user input that is rejected."""

import json

import pytest

from edgekit.config.recipe import read_recipe
from edgekit.core.errors import InputError
from edgekit.core.values.budgets import Budget
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Variant

DEFAULT = Recipe("tflite", "int8")
SELECTIVE = Recipe("tflite", "int8", ("0:CONV_2D", "OUTPUT"), ("2:ADD",), "moving-average", 50)


@pytest.mark.parametrize(
    "recipe", [DEFAULT, SELECTIVE, Recipe("onnx", "int8", migration=0.75)], ids=["default", "selective", "scaled"]
)
def test_a_recipe_survives_a_json_round_trip(recipe, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.to_dict()))
    assert read_recipe(path) == recipe


def test_a_recipe_prints_precision_calibration_and_layer_counts():
    assert str(SELECTIVE) == "int8 average/50 2 float 1 int16"
    assert str(DEFAULT) == "int8"
    assert SELECTIVE.selective
    assert not DEFAULT.selective
    assert not Recipe("tflite", "int8", calibration_samples=50).selective


def test_a_recipe_of_scaled_channels_is_no_selection_of_layers():
    recipe = Recipe("onnx", "int8", migration=0.5)
    assert [str(recipe), str(Recipe("onnx", "int8", migration=0.75))] == ["int8 scaled", "int8 scaled 0.75"]
    assert recipe.to_dict() == {"target": "onnx", "precision": "int8", "migration": 0.5}
    assert not recipe.selective


def test_a_recipe_produces_a_tuned_variant_with_its_own_folder():
    assert SELECTIVE.variant == Variant("tflite", "int8", "tuned")
    assert (SELECTIVE.variant.slug, str(SELECTIVE.variant)) == ("tflite-int8-tuned", "tflite:int8-tuned")
    assert Variant("lite-interpreter", "int8").slug == "lite-interpreter-int8"


@pytest.mark.parametrize("pattern", ["*", "tflite:*", "*:int8", "tflite:int8", "tflite:int8-tuned"])
def test_budgets_of_a_variant_apply_to_its_tuned_form(pattern):
    assert Budget("size_bytes", 1, "x", pattern).covers("tflite:int8-tuned")


def test_budgets_of_a_tuned_variant_do_not_apply_to_the_default_one():
    assert not Budget("size_bytes", 1, "x", "tflite:int8-tuned").covers("tflite:int8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"float_layer": []}, "float_layer: unknown key; allowed: calibration, calibration_samples, float_layers"),
        ({"precision": "int9"}, "precision must be one of float32, float16, dynamic, int8, int16x8, int4"),
        ({"calibration": "max"}, "calibration: input should be 'minmax', 'moving-average', 'percentile' or 'entropy'"),
        ({"calibration_samples": 0}, "calibration_samples must be at least 1 (got 0)"),
        ({"float_layers": "conv"}, "float_layers: "),
        ({"float_layers": ["a"], "int16_layers": ["a"]}, "float_layers and int16_layers have layers in common: a"),
        ({"target": None}, "target: "),
        ({"migration": 1.5}, "migration must be from 0 to 1 (got 1.5)"),
    ],
)
def test_an_invalid_recipe_is_rejected_with_file_and_key(changes, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"target": "tflite", "precision": "int8", **changes}))
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_recipe_that_is_not_json_is_rejected(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("precision = int8")
    with pytest.raises(InputError, match="this recipe is not valid JSON"):
        read_recipe(path)

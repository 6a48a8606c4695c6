"""SavedModels: what TensorFlow Serving loads, and who gets one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from _helpers.support import call

from edgekit.contracts.target import TARGETS
from edgekit.core.errors import InputError
from edgekit.stages.conversion import routes


def test_it_is_exported_only_where_it_is_named() -> None:
    target = TARGETS.load("saved-model")
    assert target not in dict(routes.parse_selection((), None))
    assert target not in dict(routes.parse_selection((), "float32"))
    assert routes.parse_selection(("saved-model",), None) == ((target, None),)


def test_no_route_to_another_target_leads_by_way_of_it() -> None:
    found = [
        route
        for target in routes.targets().values()
        for route in routes.find_routes("keras", target, "float32", routes.edges())
    ]
    assert found
    assert not any("saved-model" in route.steps[1:-1] for route in found)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_sources_without_a_route_are_refused_in_one_sentence(kind: str) -> None:
    targets = routes.parse_selection(("saved-model:float32",), None)
    with pytest.raises(InputError) as caught:
        routes.select_variants([kind], targets, kinds_named=True, targets_named=True)
    assert kind in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_other_precisions_are_refused() -> None:
    answer = call("export", "linear", "--target", "saved-model:int8")
    assert answer.code == 2
    assert "saved-model has no precision int8; it has: float32" in answer.err


@pytest.mark.parametrize("name", ["other.pb", "model.savedmodel"])
def test_a_file_with_another_name_is_no_saved_model(name: str, tmp_path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"whose main file is saved_model\.pb"):
        TARGETS.load("saved-model").describe(tmp_path / name)


@pytest.mark.exhaustive
def test_keras_own_export_still_writes_each_weight_twice(tmp_path) -> None:
    """When this fails, the target can use it: see docs/upstream.md."""
    code = f"""
import keras, tensorflow as tf
layer = keras.Input((2,))
keras.Model(layer, keras.layers.Dense(3)(layer)).export({str(tmp_path / "saved")!r}, verbose=False)
shapes = tf.train.load_checkpoint({str(tmp_path / "saved/variables/variables")!r}).get_variable_to_shape_map()
print(sum(shape == [2, 3] for shape in shapes.values()))
"""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr

"""Sources that are .tflite files, as LiteRT runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Work = Callable[..., Any]


def test_each_call_of_a_recurrent_operator_starts_from_its_initial_state(work: Work) -> None:
    found = work("tflite", "tflite_models:recurrent_calls")
    assert found == {"source": True, "stream goes on": True, "runtime": True}


def test_inputs_become_constants(work: Work) -> None:
    assert work("tflite", "tflite_models:fixed") == {"inputs": ["input_0"], "same": True}


def test_files_of_one_batch_size_and_of_any_are_run(work: Work) -> None:
    assert work("tflite", "tflite_models:any_batch") == {"batch": "batch", "shape": [5, 4]}


def test_the_layout_of_images_that_are_transposed_first_is_known(work: Work) -> None:
    assert work("tflite", "tflite_models:layouts_of") == {"plain": {}, "permuted": {"image": "NCHW"}}

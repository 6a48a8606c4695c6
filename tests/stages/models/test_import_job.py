"""Importing a model: what is refused on entry, and what the source's description notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.errors import InputError
from edgekit.core.events import ignore
from edgekit.core.records.source import SourceModel
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.models.import_job import ImportRequest, _read_labels, import_user_model

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def imported(folder: Path, operator: str, weights: Any) -> SourceModel:
    """Import an ONNX model that applies an operator to x (batch, 4) and the weights."""
    inputs = ["x"] if weights is None else ["x", "w"]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [] if weights is None else [numpy_helper.from_array(np.array(weights, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "net.onnx"
    onnx.save(model, path)
    np.savez(folder / "samples.npz", x=X)
    (folder / "source").mkdir()
    request = ImportRequest(
        "net", "onnx", str(folder), str(path), sample=str(folder / "samples.npz"), folder=str(folder / "source")
    )
    return import_user_model(request, ignore)


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ([1, np.nan, 2, 3], r"'w' contain NaN \(1 of 4 values\)"),
        ([1, np.inf, 2, 3], r"'w' contain infinity \(1 of 4 values\)"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_by_name(weights, what, tmp_path):
    with pytest.raises(InputError, match=f"the weights {what}: the training diverged"):
        imported(tmp_path, "Mul", weights)


@pytest.mark.parametrize("mask", [[0, -np.inf, 0, -np.inf], [-np.inf] * 4])
def test_infinities_of_a_mask_are_no_fault(mask, tmp_path):
    source = imported(tmp_path, "Add", mask)
    assert source.signature.outputs[0].shape == ("batch", 4)


def test_outputs_that_are_no_numbers_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"the model's output 'y' contains NaN \(\d+ of 16 values\)") as caught:
        imported(tmp_path, "Sqrt", None)
    assert caught.value.parameters == ("sample",)


def test_an_output_with_all_pairs_of_samples_takes_labels():
    signature = Signature(
        (TensorSpec("x", ("batch", 3), "float32"),), (TensorSpec("y", ("batch", "batch"), "float32"),)
    )
    labels = _read_labels(np.arange(5), signature, {"x": np.zeros((5, 3), np.float32)}, {})
    assert labels.metric == "accuracy"
    assert labels.values.tolist() == [0, 1, 2, 3, 4]

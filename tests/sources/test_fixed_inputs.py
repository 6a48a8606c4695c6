"""Inputs that are fixed to a value, in every kind of source: the model without them computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekit.contracts.source import SOURCES, UserModel, fixed_inputs
from edgekit.core.errors import InputError
from edgekit.core.events import ignore
from edgekit.core.values.specs import TensorSpec
from edgekit.sources.torch import SOURCE as TORCH
from edgekit.sources.torchscript import SOURCE as TORCHSCRIPT
from edgekit.stages.models.import_job import ImportRequest, import_user_model

Work = Callable[..., Any]
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def _value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _weights(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.random.default_rng(len(name)).normal(size=shape).astype(np.float32), name)


def rates() -> Any:
    """Return a graph that takes another branch, with another branch inside, for each sampling rate.

    16 kHz: relu(x) @ A. 12 kHz: -relu(x). 8 kHz: x @ h, a weight of the branch, whose name another branch uses too.
    """
    wide = helper.make_graph([helper.make_node("MatMul", ["h", "A"], ["t"])], "wide", [], [_value("t", None)])
    narrow = helper.make_graph([helper.make_node("Neg", ["h"], ["t"])], "narrow", [], [_value("t", None)])
    high = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["h"]),
            helper.make_node("Equal", ["sr", "top"], ["is_top"]),
            helper.make_node("If", ["is_top"], ["r"], then_branch=wide, else_branch=narrow),
        ],
        "high",
        [],
        [_value("r", None)],
    )
    low = helper.make_graph(
        [helper.make_node("MatMul", ["x", "h"], ["m"])], "low", [], [_value("m", None)], [_weights("h", 4, 5)]
    )
    nodes = [
        helper.make_node("Greater", ["sr", "limit"], ["is_high"]),
        helper.make_node("If", ["is_high"], ["y"], then_branch=high, else_branch=low),
        helper.make_node("Mul", ["bias", "y"], ["z"]),
    ]
    numbers = {"limit": 8000, "top": 16000}
    graph = helper.make_graph(
        nodes,
        "net",
        [
            _value("bias", ["batch", 1]),
            _value("sr", [], TensorProto.INT64),
            _value("x", ["batch", 4]),
        ],
        [_value("z", ["batch", None])],
        [_weights("A", 4, 3), *(numpy_helper.from_array(np.int64(value), name) for name, value in numbers.items())],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _run(model: Any, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize(
    ("rate", "operators", "parameters"),
    [(16000, {"Relu", "MatMul"}, 12), (12000, {"Relu", "Neg"}, 0), (8000, {"MatMul"}, 20)],
)
def test_a_fixed_input_decides_the_branches_of_a_graph(rate, operators, parameters, tmp_path):
    onnx.save(rates(), tmp_path / "net.onnx")
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "samples.npz", x=X, sr=np.full(len(X), 1))  # samples of fixed inputs are not needed
    source = import_user_model(
        ImportRequest(
            "net",
            "onnx",
            str(tmp_path),
            str(tmp_path / "net.onnx"),
            sample=str(tmp_path / "samples.npz"),
            fixed={"sr": rate, "bias": 0.5},
            folder=str(tmp_path / "source"),
        ),
        ignore,
    )
    assert [spec.name for spec in source.signature.inputs] == ["x"]
    assert source.notes[-2:] == (f"the input sr is fixed to {rate}", "the input bias is fixed to 0.5")
    assert source.fixed == ()  # the file has them
    written = onnx.load(tmp_path / "source" / source.file)
    onnx.checker.check_model(written, full_check=True)
    # The constant that follows the batch takes its operators too.
    shapes = {"Shape", "Gather", "Concat", "Expand", "Mul", "Identity"}
    assert {node.op_type for node in written.graph.node} - shapes == operators
    weights = [tensor for tensor in written.graph.initializer if tensor.name.rpartition("/")[2] in ("A", "h")]
    assert sum(int(np.prod(tensor.dims)) for tensor in weights) == parameters
    expected = _run(rates(), x=X, sr=np.array(rate), bias=np.full((len(X), 1), 0.5, np.float32))
    np.testing.assert_allclose(_run(written, x=X), expected, atol=1e-6)


def test_a_branch_that_depends_on_another_input_stays(tmp_path):
    model = rates()
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "folder").mkdir()
    file, signature = SOURCES.load("onnx").import_model(
        UserModel(tmp_path / "net.onnx", fixed={"bias": 2.0}), tmp_path / "folder"
    )
    assert [spec.name for spec in signature.inputs] == ["sr", "x"]
    written = onnx.load(tmp_path / "folder" / file)
    assert "If" in {node.op_type for node in written.graph.node}
    for rate in (16000, 8000):
        expected = _run(model, x=X, sr=np.array(rate), bias=np.full((len(X), 1), 2, np.float32))
        np.testing.assert_allclose(_run(written, x=X, sr=np.array(rate)), expected, atol=1e-6)


class ByRate(nn.Module):
    """Takes a number, of which it knows two."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, sr: int, gain: torch.Tensor) -> torch.Tensor:
        if sr == 16000:
            return self.high(x) * gain
        if sr == 8000:
            return self.low(x) * gain
        raise ValueError("sampling rate")


def build() -> nn.Module:
    torch.manual_seed(0)
    return ByRate().eval()


INPUTS = (TensorSpec("gain", ("batch", 1), "float32"), TensorSpec("x", ("batch", 4), "float32"))


@pytest.mark.parametrize(("rate", "part"), [(16000, "high"), (8000, "low")])
def test_code_receives_a_number_and_a_tensor(rate, part, tmp_path):
    # In another order than forward's: they are passed by keyword.
    user_model = UserModel(None, build, inputs=INPUTS, fixed={"sr": rate, "gain": 2.0})
    file, complete = TORCH.import_model(user_model, tmp_path)
    source = _fixed(TORCH, user_model, complete)
    loaded = TORCH.load(tmp_path / file, complete, build).with_fixed(source).with_examples({"x": X})
    assert [spec.name for spec in loaded.signature.inputs] == ["x"]
    with torch.no_grad():
        expected = 2 * getattr(build(), part)(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(loaded._run([X])[0], expected, atol=1e-6)
    wide = loaded.run_float64({"x": X})
    assert wide is not None
    np.testing.assert_allclose(wide["output"], expected, atol=1e-6)
    program = torch.export.export(loaded.model, (torch.from_numpy(X),))
    np.testing.assert_allclose(program.module()(torch.from_numpy(X)).detach().numpy(), expected, atol=1e-6)


def test_a_value_that_the_code_refuses_is_reported(tmp_path):
    user_model = UserModel(None, build, inputs=INPUTS, fixed={"sr": 44100, "gain": 1.0})
    with pytest.raises(InputError, match=r"the network does not take these inputs .*: sampling rate"):
        TORCH.import_model(user_model, tmp_path)


def _fixed(kind: Any, user_model: UserModel, complete: Any) -> Any:
    return fixed_inputs(user_model, complete, numbers=kind.takes_numbers)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_an_archive_keeps_the_branch_of_its_fixed_input(tmp_path):
    torch.jit.script(build()).save(str(tmp_path / "net.pt"))
    inputs = (INPUTS[1], TensorSpec("sr", (), "int64"), INPUTS[0])
    (tmp_path / "folder").mkdir()
    user_model = UserModel(tmp_path / "net.pt", inputs=inputs, fixed={"sr": 8000, "gain": 2.0})
    file, signature = TORCHSCRIPT.import_model(user_model, tmp_path / "folder")
    assert [spec.name for spec in signature.inputs] == ["x"]
    loaded = TORCHSCRIPT.load(tmp_path / "folder" / file, signature, None)
    with torch.no_grad():
        expected = 2 * build().low(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(loaded._run([X])[0], expected, atol=1e-6)
    frozen = torch.jit.freeze(loaded.model)
    assert "prim::If" not in str(frozen.inlined_graph)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "saved-model"])
def test_inputs_of_tensorflow_are_fixed(work: Work, tmp_path: Path, kind: str) -> None:
    result = work("keras", "fixed_models:fixed_model", kind=kind, folder=tmp_path)
    assert result["inputs"] == [["x"], ["x"]]
    assert result["notes"] == ["the input scale is fixed to 3.0", "the input flag is fixed to True"]
    assert max(result["errors"]) < 1e-5

"""A folder that MLflow has written, exported on the command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from _helpers.support import call
from onnx import TensorProto, helper

# In a process of its own: MLflow warns while it is imported.
SAVE = """
import sys, onnx, mlflow.onnx
mlflow.onnx.save_model(onnx.load(sys.argv[1]), sys.argv[2], conda_env={"name": "net", "dependencies": ["python=3"]})
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_a_saved_onnx_model_is_exported_under_the_name_of_its_folder(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    command = [sys.executable, "-W", "ignore", "-c", SAVE, tmp_path / "net.onnx", tmp_path / "scorer"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    answer = call("export", tmp_path / "scorer", "--target", "onnx:float32", "--root", tmp_path)
    assert answer.code == 0, answer.err
    exported = onnx.load(tmp_path / "build" / "scorer" / "onnx" / "onnx-float32" / "model.onnx")
    assert [node.op_type for node in exported.graph.node] == ["Relu"]

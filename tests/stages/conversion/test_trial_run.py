"""What a conversion made is run once before it counts as done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.contracts.source import LoadedModel
from edgekit.contracts.target import ConversionRequest, ConversionResult
from edgekit.core.errors import StepFailed
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.conversion.trial_run import check_bridge, run_once
from edgekit.targets._onnx.checks import check, reject_unknown_operators
from edgekit.targets.onnx import TARGET

SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))
INPUTS = {"x": np.linspace(0.1, 2, 12, dtype=np.float32).reshape(3, 4)}


def graph(operator: str, **attributes: Any) -> onnx.ModelProto:
    """A graph of one operator that also reads a constant -1."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [-1.0])
    reads = ["x", "c"] if operator in ("Mul", "Div", "Pow", "PRelu") else ["x"]
    nodes = [helper.make_node(operator, reads, ["y"], **attributes)]
    body = helper.make_graph(nodes, "model", ends[:1], ends[1:], [constant] if len(reads) > 1 else [])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def source(folder: Path, outputs: Mapping[str, np.ndarray]) -> Path:
    Samples(INPUTS, outputs).save(folder / GOLDEN_FILE)
    return folder


def run(folder: Path, content: bytes, precision: str = "float32") -> ConversionResult:
    (folder / "model.onnx").write_bytes(content)
    request = ConversionRequest(precision, folder, None, {}, None)
    return run_once(TARGET, ConversionResult("model.onnx", SIGNATURE), request, folder)


def test_a_file_that_runs_is_accepted(tmp_path: Path) -> None:
    source(tmp_path, {"y": -INPUTS["x"]})
    assert run(tmp_path, graph("Neg").SerializeToString()).notes == ()


def test_a_file_that_its_runtime_refuses_fails_the_route(tmp_path: Path) -> None:
    source(tmp_path, {"y": -INPUTS["x"]})
    with pytest.raises(StepFailed, match=r"^ONNX Runtime cannot run the converted file: .*NoSuchOperator"):
        run(tmp_path, graph("NoSuchOperator").SerializeToString())


def test_a_float32_file_that_computes_infinity_fails_the_route(tmp_path: Path) -> None:
    source(tmp_path, {"y": np.ones((3, 4), np.float32)})
    model = graph("Pow")
    model.graph.initializer[0].CopyFrom(helper.make_tensor("c", TensorProto.FLOAT, [1], [-1e30]))
    with pytest.raises(StepFailed, match="computes NaN or infinity in the output y, the source does not"):
        run(tmp_path, model.SerializeToString())
    # float16 may overflow: that is for the validation to judge.
    assert run(tmp_path, model.SerializeToString(), "float16").file == "model.onnx"
    # The same infinities as in the source are right.
    source(tmp_path, {"y": np.full((3, 4), np.inf, np.float32)})
    assert run(tmp_path, model.SerializeToString()).file == "model.onnx"


class Scaled(LoadedModel):
    """A model that multiplies by `model`, and repeats its ids."""

    kind = "torch"

    def _run(self, inputs: list[Any]) -> list[Any]:
        return [inputs[0] * np.float32(self.model)]

    def parameters(self) -> dict[str, Any]:
        return {}

    def _permuted(self, inputs: Any, outputs: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (1.0 + 1e-5, True), (1.01, False), (np.nan, False)])
def test_a_bridge_must_compute_what_its_source_computes(tmp_path: Path, factor: float, accepted: bool) -> None:
    source(tmp_path, {"y": INPUTS["x"]})
    loaded = Scaled(factor, SIGNATURE)
    if accepted:
        check_bridge("keras-to-torch", loaded, tmp_path)
        return
    with pytest.raises(StepFailed, match=r"^the bridge keras-to-torch computes another output y than the source"):
        check_bridge("keras-to-torch", loaded, tmp_path)


def test_operators_that_onnx_does_not_have_are_named() -> None:
    reject_unknown_operators(graph("Neg"))
    with pytest.raises(StepFailed, match=r"^ONNX \(opset 18\) has no operator for Erfc of the source$"):
        reject_unknown_operators(graph("Erfc"))
    contributed = graph("Gelu", domain="com.microsoft")
    contributed.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    reject_unknown_operators(contributed)


def test_a_graph_of_wrong_types_is_refused() -> None:
    model = graph("Neg")
    check(model.SerializeToString())
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(StepFailed, match="ONNX's checker refuses"):
        check(model.SerializeToString())

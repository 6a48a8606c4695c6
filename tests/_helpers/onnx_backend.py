"""ONNX's own backend node tests, run through the bridge's module: small graphs, inputs, and what must come out.

All inputs of such a graph are runtime values, weights and shapes included. So the module runs them eagerly.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from edgekit.sources.bridges._onnx.graph import UnsupportedOperators, build
from edgekit.sources.bridges._onnx.values import to_host, to_tensor

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
OPSETS = range(13, 23)
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


@dataclass(frozen=True)
class Result:
    """One test. It counts when it has a float input or output and an opset of OPSETS."""

    name: str
    operator: str
    counts: bool
    outcome: str
    """passed, failed (with why), or unsupported: the graph was refused before it ran."""
    why: str = ""


def run_all() -> list[Result]:
    """Every test outside the training, sequence, string, optional and control-flow groups."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests divide by zero on purpose
        from onnx.backend.test.loader import load_node_model_tests

        cases = [case for case in load_node_model_tests() if is_selected(case)]
        operators = {case.name: case.model.graph.node[0].op_type for case in cases}
        return [_result(case, operators) for case in cases]


def is_selected(case: Any) -> bool:
    """Whether the test is of ordinary tensors and operators of the standard domain, in inference."""
    values = (*case.model.graph.input, *case.model.graph.output)
    tensors = all(
        value.type.HasField("tensor_type") and value.type.tensor_type.elem_type != TensorProto.STRING
        for value in values
    )
    nodes = case.model.graph.node
    standard = all(item.domain == "" for item in case.model.opset_import)
    return tensors and standard and "training" not in case.name and not CONTROL_FLOW & {node.op_type for node in nodes}


def counts(case: Any) -> bool:
    """Whether the test is one of the float tests that the figure is about."""
    version = next(item.version for item in case.model.opset_import if item.domain == "")
    values = (*case.model.graph.input, *case.model.graph.output)
    return version in OPSETS and any(value.type.tensor_type.elem_type in FLOATS for value in values)


def _result(case: Any, operators: dict[str, str]) -> Result:
    plain = re.sub(r"_expanded(_ver\d+)?$", "", case.name)  # the operator's body in place of the operator
    operator = operators.get(plain, operators[case.name])
    try:
        for got, wanted in _outputs(case):
            _compare(got, wanted, case.rtol, case.atol)
    except UnsupportedOperators as error:
        return Result(case.name, operator, counts(case), "unsupported", str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the test has failed
        return Result(case.name, operator, counts(case), "failed", " ".join(str(error).split())[:300])
    return Result(case.name, operator, counts(case), "passed")


def _outputs(case: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    graph = case.model.graph
    module = build(case.model, [value.name for value in graph.input], [value.name for value in graph.output])
    for inputs, outputs in case.data_sets:
        with torch.no_grad():
            result = module(*(to_tensor(_array(value)) for value in inputs))
        results = result if isinstance(result, tuple) else (result,)
        for got, wanted in zip(results, outputs, strict=True):
            yield to_host(got), _array(wanted)


def _array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)


def _compare(got: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> None:
    assert got.shape == wanted.shape, f"the shape is {got.shape} and not {wanted.shape}"
    assert got.dtype == wanted.dtype, f"the type is {got.dtype} and not {wanted.dtype}"
    if got.dtype.kind == "V" or got.dtype.isbuiltin != 1:  # numpy has no arithmetic of its own for these
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)

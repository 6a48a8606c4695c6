"""ONNX's own backend node tests, run through the bridge's module: small graphs with inputs and expected outputs.

All inputs of such a graph are runtime values, weights and shapes included, so the module runs eagerly.
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
    """The result of one test.

    Attributes:
        name: The name of the test.
        operator: The operator that it tests.
        counts: Whether it has a float input or output and an opset of `OPSETS`.
        outcome: `passed`, `failed`, or `unsupported` if the graph was refused before it ran.
        why: The reason of another outcome than `passed`.
    """

    name: str
    operator: str
    counts: bool
    outcome: str
    why: str = ""


def run_all() -> list[Result]:
    """Run all tests except the training, sequence, string, optional and control-flow groups."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests divide by zero on purpose
        from onnx.backend.test.loader import load_node_model_tests

        cases = [case for case in load_node_model_tests() if is_selected(case)]
        operators = {case.name: case.model.graph.node[0].op_type for case in cases}
        return [_result(case, operators) for case in cases]


def is_selected(case: Any) -> bool:
    """Return whether the test uses tensors and operators of the standard domain only, in inference."""
    values = (*case.model.graph.input, *case.model.graph.output)
    tensors = all(
        value.type.HasField("tensor_type") and value.type.tensor_type.elem_type != TensorProto.STRING
        for value in values
    )
    nodes = case.model.graph.node
    standard = all(item.domain == "" for item in case.model.opset_import)
    return tensors and standard and "training" not in case.name and not CONTROL_FLOW & {node.op_type for node in nodes}


def counts(case: Any) -> bool:
    """Return whether the test is one of the float tests that the pass rate counts."""
    version = next(item.version for item in case.model.opset_import if item.domain == "")
    values = (*case.model.graph.input, *case.model.graph.output)
    return version in OPSETS and any(value.type.tensor_type.elem_type in FLOATS for value in values)


def _result(case: Any, operators: dict[str, str]) -> Result:
    plain = re.sub(r"_expanded(_ver\d+)?$", "", case.name)  # a test of the operator's function body
    operator = operators.get(plain, operators[case.name])
    try:
        for actual, expected in _outputs(case):
            _compare(actual, expected, case.rtol, case.atol)
    except UnsupportedOperators as error:
        return Result(case.name, operator, counts(case), "unsupported", str(error))
    except Exception as error:  # noqa: BLE001 - any error fails the test
        return Result(case.name, operator, counts(case), "failed", " ".join(str(error).split())[:300])
    return Result(case.name, operator, counts(case), "passed")


def _outputs(case: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    graph = case.model.graph
    module = build(case.model, [value.name for value in graph.input], [value.name for value in graph.output])
    for inputs, outputs in case.data_sets:
        with torch.no_grad():
            result = module(*(to_tensor(_array(value)) for value in inputs))
        results = result if isinstance(result, tuple) else (result,)
        for actual, expected in zip(results, outputs, strict=True):
            yield to_host(actual), _array(expected)


def _array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)


def _compare(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> None:
    assert actual.shape == expected.shape, f"the shape is {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"the type is {actual.dtype}, expected {expected.dtype}"
    if (
        actual.dtype.kind == "V" or actual.dtype.isbuiltin != 1
    ):  # ml_dtypes' types, which assert_allclose does not support
        actual, expected = actual.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)

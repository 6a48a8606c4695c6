"""Requests of both protocols, decoded and encoded without a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from _helpers.served import INT8

pytest.importorskip("fastapi")

from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.serving import open_inference, tensorflow_serving
from edgekit.stages.serving.refusal import Refusal
from edgekit.stages.serving.tensors import ServedSignature

ROWS = ServedSignature(
    Signature(
        (TensorSpec("x", ("n", 2), "float32"), TensorSpec("i", ("n",), "int32")),
        (TensorSpec("y", ("n", 2), "float32"),),
    )
)
ONE = ServedSignature(Signature((TensorSpec("x", (1, 2), "float32"),), (TensorSpec("y", (1, 2), "float32"),)))
INTEGER = ServedSignature(
    Signature((TensorSpec("x", (1, 2), "int8", None, INT8),), (TensorSpec("y", (1, 2), "int8", None, INT8),))
)
FIXED = ServedSignature(Signature((TensorSpec("x", (4, 2), "float32"),), (TensorSpec("y", (4, 2), "float32"),)))
SCALAR = ServedSignature(Signature((TensorSpec("x", (), "bool"),), (TensorSpec("y", (), "bool"),)))
FREE = ServedSignature(
    Signature(
        (TensorSpec("a", ("n", "t"), "float32"), TensorSpec("b", ("n", "t"), "float32")),
        (TensorSpec("y", ("n", 2), "float32"),),
    )
)


def x(data: Any = (1, 2), shape: Any = (1, 2), datatype: Any = "FP32", **other: Any) -> dict[str, Any]:
    return {"name": "x", "shape": list(shape), "datatype": datatype, "data": data, **other}


def infer(body: Any, signature: ServedSignature = ONE, header: str | None = None) -> open_inference.InferenceRequest:
    return open_inference.decode(signature, body if isinstance(body, bytes) else json.dumps(body).encode(), header)


def predict(body: Any, signature: ServedSignature = ONE) -> tensorflow_serving.PredictRequest:
    return tensorflow_serving.decode(signature, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_nested_and_flat_data_are_the_same_tensor() -> None:
    for data in ([[1, 2], [3, 4]], [1, 2, 3, 4], [[1.0], [2], [3], [4]]):
        call = infer({"inputs": [x(data, (2, 2))]}).call
        assert call.rows == 2
        assert call.inputs["x"].dtype == np.float32
        assert call.inputs["x"].tolist() == [[1, 2], [3, 4]]


def test_a_float_for_a_quantized_input_is_real_and_an_integer_is_stored() -> None:
    real = infer({"inputs": [x([0.5, -1])]}, INTEGER).call
    stored = infer({"inputs": [x([3, -128], datatype="INT8")]}, INTEGER).call
    assert (str(real.inputs["x"].dtype), real.stored) == ("float32", False)
    assert (str(stored.inputs["x"].dtype), stored.stored) == ("int8", True)
    assert real.key != stored.key
    (tensor,) = INTEGER.inputs
    assert open_inference.tensor_metadata(tensor) == {
        "name": "x",
        "datatype": "FP32",
        "shape": [-1, 2],
        "parameters": {"stored_datatype": "INT8", "scale": [0.5], "zero_point": [-10]},
    }


def test_binary_tensors_follow_the_json() -> None:
    a, b = np.array([[1, 2], [3, 4]], "<f4"), np.array([5, 6], "<i4")
    inputs = [
        {"name": "i", "shape": [2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
        {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
    ]
    text = json.dumps({"id": "7", "inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    request = infer(text + b.tobytes() + a.tobytes(), ROWS, str(len(text)))
    assert request.call.inputs["x"].tolist() == a.tolist()
    assert request.call.inputs["i"].tolist() == b.tolist()
    body, length = open_inference.encode("m", "1", request, {"y": a})
    assert length is not None
    answer = json.loads(body[:length])
    assert answer["id"] == "7"
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert body[length:] == a.tobytes()


def test_a_body_without_json_is_the_only_input() -> None:
    request = infer(np.array([1, 2, 3, 4], "<f4").tobytes(), ONE, "0")
    assert request.call.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert request.outputs[0].binary


def test_integers_of_the_source_model_are_narrowed_where_no_value_is_lost() -> None:
    i = {"name": "i", "shape": [1], "datatype": "INT64", "data": [2**31 - 1]}
    assert infer({"inputs": [x(), i]}, ROWS).call.inputs["i"].dtype == np.int32
    with pytest.raises(Refusal, match="input i has values that int32 does not hold"):
        infer({"inputs": [x(), {**i, "data": [2**31]}]}, ROWS)


@pytest.mark.parametrize(
    ("signature", "body", "words"),
    [
        (ONE, b"", "the request is not JSON"),
        (ONE, b"[]", "must be a JSON object"),
        (ONE, b"\xff{}", "not text in UTF-8"),
        (ONE, b'{"a":' * 100_000, "nested too deeply"),
        (ONE, b'{"inputs": ' + b"9" * 5000 + b"}", "too many digits"),
        (ONE, {}, "no list 'inputs'"),
        (ONE, {"inputs": []}, "no list 'inputs'"),
        (ONE, {"inputs": [7]}, "no list 'inputs'"),
        (ONE, {"inputs": [{}]}, "an input has no text 'name'"),
        (ONE, {"inputs": [x(), x()]}, "the input x twice"),
        (ONE, {"inputs": [{**x(), "name": "z"}]}, "the model has no input 'z'; its inputs: x"),
        (ROWS, {"inputs": [x()]}, "the request has no input i"),
        (ONE, {"inputs": [x(datatype="FP31")]}, "the datatype 'FP31'; known are BOOL, UINT8"),
        (ONE, {"inputs": [x(datatype="BYTES")]}, "the datatype 'BYTES'"),
        (ONE, {"inputs": [x(datatype=["FP32"])]}, "input x has no text 'datatype'"),
        (ONE, {"inputs": [x(datatype="INT32")]}, "input x has the type INT32 where the model takes FP32"),
        (INTEGER, {"inputs": [x(datatype="UINT8")]}, "the type UINT8 where the model takes FP32 or INT8"),
        (ONE, {"inputs": [x([1, 2, 3], (1, 3))]}, r"input x has the shape \[1, 3\] where the model takes \[-1, 2\]"),
        (FIXED, {"inputs": [x([1, 2])]}, r"input x has the shape \[1, 2\] where the model takes \[4, 2\]"),
        (ONE, {"inputs": [x([], (0, 2))]}, r"the shape \[0, 2\]"),
        (ONE, {"inputs": [x(shape=(1, True))]}, "no list 'shape' of sizes"),
        (ONE, {"inputs": [x(shape=(1, -2))]}, "no list 'shape' of sizes"),
        (ONE, {"inputs": [x(shape=(2**31 - 1, 2))]}, "has 2 values where its shape"),
        (ONE, {"inputs": [x([1, 2, 3])]}, "has 3 values where its shape"),
        (ONE, {"inputs": [x([[1], [2, 3]])]}, "lists have unequal lengths"),
        (ONE, {"inputs": [x(["1", "2"])]}, "its values must be numbers"),
        (ONE, {"inputs": [x([None, 2])]}, "its values must be numbers"),
        (ONE, {"inputs": [x([{}, 2])]}, "its values must be numbers"),
        (ONE, {"inputs": [x([True, False])]}, "its values must be numbers"),
        (ONE, {"inputs": [x([1e39, 2])]}, "values that float32 does not hold"),
        (ONE, b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, 1]}]}', "contains NaN"),
        (ONE, b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, -Infinity]}]}', "-Infinity"),
        (ONE, b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1e999, 1]}]}', "does not hold"),
        (INTEGER, {"inputs": [x([200, 1], datatype="INT8")]}, "values that int8 does not hold"),
        (INTEGER, {"inputs": [x([0.5, 1], datatype="INT8")]}, "its values must be integers"),
        (SCALAR, {"inputs": [x([1], (), "BOOL")]}, "its values must be true or false"),
        (ONE, {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32"}]}, "input x has no 'data'"),
        (ONE, {"inputs": [x(parameters={"binary_data_size": 8})]}, "in place of 'data'"),
        (ONE, {"inputs": [x(parameters=[])]}, "'parameters' of input x must be an object"),
        (ONE, {"inputs": [x(parameters={"shared_memory_region": "r"})]}, "shared_memory_region"),
        (ONE, {"inputs": [x()], "outputs": [{"name": "z"}]}, "the model has no output 'z'"),
        (ONE, {"inputs": [x()], "outputs": [{"name": "y"}, {"name": "y"}]}, "names an output twice"),
        (ONE, {"inputs": [x()], "outputs": 7}, "'outputs' must be a list"),
        (ONE, {"inputs": [x()], "id": 7}, "'id' must be a text"),
        (
            ROWS,
            {"inputs": [x(), {"name": "i", "shape": [2], "datatype": "INT32", "data": [1, 2]}]},
            "input i has 2 in dimension 0 where input x has 1",
        ),
        (
            FREE,
            {"inputs": [{**x(), "name": "a"}, {**x([1], (1, 1)), "name": "b"}]},
            "input b has 1 in dimension 1 where input a has 2",
        ),
    ],
)
def test_a_bad_inference_request_is_one_sentence(signature: ServedSignature, body: Any, words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        infer(body, signature)
    assert caught.value.status == 400
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize("header", ["-1", "1e3", "", "999", "9" * 30, "²"])
def test_a_bad_length_of_the_json_is_refused(header: str) -> None:
    with pytest.raises(Refusal, match="Inference-Header-Content-Length must be a number of bytes within the body"):
        infer({"inputs": [x()]}, ONE, header)


@pytest.mark.parametrize(("size", "tail", "words"), [(8, 7, "in the body"), (7, 7, "7 bytes where"), (8, 9, "1 bytes")])
def test_bytes_that_do_not_fit_the_shape_are_refused(size: int, tail: int, words: str) -> None:
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(Refusal, match=words):
        infer(text + bytes(tail), ONE, str(len(text)))


def test_nan_as_binary_tensor_reaches_a_float_model_and_no_quantized_one() -> None:
    content = np.array([np.nan, 1], "<f4").tobytes()
    assert np.isnan(infer(content, ONE, "0").call.inputs["x"][0, 0])
    with pytest.raises(Refusal, match="not finite, which a quantized model cannot take"):
        infer(content, INTEGER, "0")


def test_rows_and_columns_of_tensorflow_serving() -> None:
    by_row = predict({"instances": [{"x": [1, 2], "i": 3}, {"x": [4, 5], "i": 6}]}, ROWS)
    by_column = predict({"signature_name": "serving_default", "inputs": {"x": [[1, 2], [4, 5]], "i": [3, 6]}}, ROWS)
    for request in (by_row, by_column):
        assert request.call.inputs["x"].tolist() == [[1, 2], [4, 5]]
        assert request.call.inputs["i"].tolist() == [3, 6]
    outputs = {"y": np.array([[1, 2], [3, 4]], np.float32)}
    assert json.loads(tensorflow_serving.encode(ROWS, by_row, outputs)) == {"predictions": [[1, 2], [3, 4]]}
    assert json.loads(tensorflow_serving.encode(ROWS, by_column, outputs)) == {"outputs": [[1, 2], [3, 4]]}
    assert predict({"instances": [[1, 2]]}).call.inputs["x"].tolist() == [[1, 2]]
    assert predict({"instances": [{"x": [1, 2]}]}).call.inputs["x"].tolist() == [[1, 2]]
    assert predict({"inputs": [[1, 2]]}).call.inputs["x"].tolist() == [[1, 2]]


def test_several_outputs_have_names() -> None:
    specs = tuple(TensorSpec(name, ("n", 1), "float32") for name in ("y", "z"))
    signature = ServedSignature(Signature((TensorSpec("x", ("n", 1), "float32"),), specs))
    request = predict({"instances": [[1], [2]]}, signature)
    outputs = {"y": np.array([[1], [2]], np.float32), "z": np.array([[3], [4]], np.float32)}
    rows = [{"y": [1], "z": [3]}, {"y": [2], "z": [4]}]
    assert json.loads(tensorflow_serving.encode(signature, request, outputs)) == {"predictions": rows}


@pytest.mark.parametrize(
    ("signature", "body", "words"),
    [
        (ONE, {}, "either 'instances', a list of rows, or 'inputs'"),
        (ONE, {"instances": [[1, 2]], "inputs": [[1, 2]]}, "either 'instances'"),
        (ONE, {"instances": []}, "at least one row"),
        (ONE, {"instances": 7}, "at least one row"),
        (ONE, {"instances": [[1, 2, 3]]}, r"the shape \[1, 3\]"),
        (ONE, {"instances": [[1, 2], [3]]}, "unequal lengths"),
        (ONE, {"instances": [[1, 2], {"x": [3, 4]}]}, "row 0 of 'instances' must be an object with x"),
        (ONE, {"instances": [{"b64": "AA=="}]}, "must be an object with x"),
        (ROWS, {"instances": [[1, 2]]}, "several inputs, which the request must name: x, i"),
        (ROWS, {"inputs": [[1, 2]]}, "several inputs"),
        (ROWS, {"instances": [{"x": [1, 2]}]}, "row 0 of 'instances' must be an object with i, x"),
        (ROWS, {"inputs": {"x": [[1, 2]], "i": [1.5]}}, "input i: its values must be integers"),
        (ROWS, {"inputs": {"x": [[1, 2]], "z": [1]}}, "no input 'z'"),
        (FIXED, {"instances": [[1, 2]] * 4}, "does not take rows; send its whole inputs as 'inputs'"),
        (ONE, {"instances": [[1, 2]], "signature_name": "other"}, "no signature 'other'"),
        (ONE, b'{"instances": [[NaN, 2]]}', "contains NaN"),
    ],
)
def test_a_bad_predict_request_is_one_sentence(signature: ServedSignature, body: Any, words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        predict(body, signature)
    assert caught.value.status == 400


def test_outputs_that_json_cannot_hold_are_an_error_and_binary_ones_are_not() -> None:
    nan = {"y": np.array([[np.nan, 1]], np.float32)}
    with pytest.raises(Refusal, match="the output y has values that are NaN or infinite"):
        open_inference.encode("m", "1", infer({"inputs": [x()]}), nan)
    request = infer({"inputs": [x()], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]})
    body, length = open_inference.encode("m", "1", request, nan)
    assert np.isnan(np.frombuffer(body[length:], "<f4")[0])


def test_random_bodies_are_refused_or_taken_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    seed = json.dumps({"inputs": [x(parameters={})], "outputs": [{"name": "y"}]}).encode()
    for _ in range(2000):
        body = bytearray(seed)
        for _ in range(rng.integers(1, 4)):
            body[rng.integers(len(body))] = rng.integers(256)
        for decode in (infer, predict):
            try:
                decode(bytes(body))
            except Refusal as refusal:
                assert refusal.status == 400

"""Requests by Triton's own client to the server whose address is the argument; run in a process of its own."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("rows", "1")
assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
assert {"name": "rows", "version": "1", "state": "READY", "reason": ""} in client.get_model_repository_index()
metadata = client.get_model_metadata("rows")
weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
rng = np.random.default_rng(0)
for rows, binary, named, compression in product((1, 5), (True, False), (True, False), (None, "gzip", "deflate")):
    values = {"x": rng.standard_normal((rows, 4)).astype(np.float32), "n": rng.integers(0, 99, (rows, 1))}
    inputs = []
    for described in metadata["inputs"]:
        array = values[described["name"]]
        inputs.append(triton.InferInput(described["name"], list(array.shape), described["datatype"]))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)] if named else None
    result = client.infer("rows", inputs, outputs=outputs, request_id="7", request_compression_algorithm=compression)
    assert result.get_response()["id"] == "7"
    np.testing.assert_allclose(result.as_numpy("y"), values["x"] @ weights + values["n"], rtol=1e-5, atol=1e-5)
    assert named or (result.as_numpy("m") == values["n"]).all()
stored = triton.InferInput("x", [1, 4], "INT8")
stored.set_data_from_numpy(np.array([[-9, -16, -2, -10]], np.int8))
assert client.infer("quantized", [stored]).as_numpy("y").tolist() == [[-9, -10, -2, -10]]
wrong = triton.InferInput("x", [1, 5], "FP32")
wrong.set_data_from_numpy(np.zeros((1, 5), np.float32))
try:
    client.infer("rows", [wrong])
except InferenceServerException as error:
    assert error.status() == "400"
    assert error.message() == "input x has the shape [1, 5] where the model takes [-1, 4]"
else:
    raise AssertionError("the wrong shape was taken")
sys.stdout.write("all answers are right\n")

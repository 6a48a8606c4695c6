"""ONNX models as the reference that files are judged by."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources.onnx import LoadedOnnx


def test_products_of_large_integers_are_exact_on_every_processor():
    # Kernels without AVX-VNNI would saturate at 16 bits: 255 * 127 * 2 is more than 32767.
    weights = np.full((8, 4), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["batch", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    signature = Signature((TensorSpec("x", ("batch", 8), "uint8"),), (TensorSpec("y", ("batch", 4), "int32"),))
    for rows in (1, 5):
        x = np.full((rows, 8), 255, np.uint8)
        (result,) = LoadedOnnx(model, signature)._run([x])
        np.testing.assert_array_equal(result, x.astype(np.int32) @ weights.astype(np.int32))

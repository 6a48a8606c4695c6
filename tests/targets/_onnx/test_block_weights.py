"""int4 weights in blocks: what ONNX Runtime computes with them, what stays float, and what the file says."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes import onnxruntime as runtime
from edgekit.sources.onnx import LoadedOnnx
from edgekit.stages.conversion import routes
from edgekit.targets._onnx import block_weights
from edgekit.targets._onnx.graph import describe
from edgekit.targets.onnx import TARGET

RNG = np.random.default_rng(0)


def weights(*shape):
    return RNG.normal(size=shape).astype(np.float32) / 8


def model_of(nodes, inputs, outputs, **constants):
    graph = helper.make_graph(
        [helper.make_node(kind, read, [written], name=written, **attributes)
         for kind, read, written, attributes in nodes],
        "model",
        [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model, **inputs):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]


def dequantized(stored, columns):
    values = (stored.codes.astype(np.float32) - stored.zero_points[..., None]) * stored.scales[..., None]
    return values.reshape(len(values), -1)[:, :columns]


def block_of_attention():
    """Embedding, a projection of three axes, a Gemm of PyTorch's form and one of other numbers."""
    nodes = [
        ("Gather", ["table", "ids"], "tokens", {}),
        ("MatMul", ["tokens", "mix"], "mixed", {}),
        ("Relu", ["mixed"], "kept", {}),
        ("ReduceMean", ["kept", "axis"], "pooled", {"keepdims": 0}),
        ("Gemm", ["pooled", "hidden", "bias"], "wide", {"transB": 1}),
        ("Gemm", ["wide", "head"], "scores", {"alpha": 0.5}),
    ]
    constants = {
        "table": weights(100, 48),
        "mix": weights(48, 64),
        "axis": np.array([1]),
        "hidden": weights(80, 64),
        "bias": weights(80),
        "head": weights(80, 10),
    }
    return model_of(
        nodes, [("ids", TensorProto.INT64, ["batch", 7])], [("scores", ["batch", 10])], **constants
    ), constants


def test_a_block_has_sixteen_levels_one_of_which_is_zero():
    matrix = weights(5, 50)
    matrix[1] = 0
    matrix[2] = np.abs(matrix[2])
    stored = block_weights.quantize_blocks(matrix, 32)
    assert stored.codes.shape == (5, 2, 32)
    assert stored.codes.max() == 15
    restored = dequantized(stored, 50)
    # The step of a block is a fifteenth of its range; rounding the zero point may move a value by another half.
    steps = np.repeat(stored.scales, 32, axis=1)[:, :50]
    assert np.all(np.abs(restored - matrix) <= steps * 1.001)
    assert not restored[1].any()
    assert np.all(dequantized(stored, 64)[:, 50:] == 0)


def test_the_runtime_computes_with_the_stored_weights():
    model, constants = block_of_attention()
    ids = RNG.integers(0, 100, (6, 7))
    expected = run(model, ids=ids)
    # The same network in float32, with the weights that the blocks stand for.
    rounded = {
        name: dequantized(block_weights.quantize_blocks(np.float32(factor) * array, 32), array.shape[1]) / factor
        for name, array, factor in (
            ("table", constants["table"], 1),
            ("mix", constants["mix"].T, 1),
            ("hidden", constants["hidden"], 1),
            ("head", constants["head"].T, 0.5),
        )
    }
    reference = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in reference.graph.initializer:
        if tensor.name in rounded:
            array = rounded[tensor.name].T if tensor.name in ("mix", "head") else rounded[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))

    assert block_weights.quantize(model) == ()
    onnx.checker.check_model(model.SerializeToString(), full_check=True)
    outputs = run(model, ids=ids)
    np.testing.assert_allclose(outputs, run(reference, ids=ids), rtol=1e-4, atol=1e-5)
    assert sqnr_db(expected, outputs) > 15
    assert [node.op_type for node in model.graph.node] == [
        "GatherBlockQuantized", "MatMulNBits", "Relu", "ReduceMean", "MatMulNBits", "Add", "MatMulNBits"
    ]  # fmt: skip
    assert not {"table", "mix", "hidden", "head"} & {tensor.name for tensor in model.graph.initializer}


def test_a_file_is_described_like_the_network_that_it_holds(tmp_path):
    model, _ = block_of_attention()
    float_path, path = tmp_path / "float.onnx", tmp_path / "int4.onnx"
    onnx.save(model, float_path)
    block_weights.quantize(model)
    onnx.save(model, path)
    expected, described = describe(float_path), describe(path)
    assert described.parameters == expected.parameters
    assert described.macs == expected.macs > 0
    assert described.activation_bytes is not None
    assert described.quantized_tensors == 4
    # 4 bits a weight, and 4.5 bytes a block; rows of 48 and 80 values fill two and three blocks.
    assert 4 / 32 < described.weight_bytes / expected.weight_bytes < 6.5 / 32


def test_shared_matrices_are_stored_once():
    nodes = [("MatMul", ["x", "matrix"], "first", {}), ("MatMul", ["first", "matrix"], "y", {})]
    model = model_of(nodes, [("x", TensorProto.FLOAT, [2, 64])], [("y", [2, 64])], matrix=weights(64, 64))
    block_weights.quantize(model)
    first, second = model.graph.node
    assert list(first.input[1:]) == list(second.input[1:])
    assert len(model.graph.initializer) == 3


@pytest.mark.parametrize("columns", [1, 7, 16, 17, 33])
def test_rows_of_any_length_work_or_stay_float(columns):
    model = model_of(
        [("MatMul", ["x", "matrix"], "inner", {}), ("MatMul", ["inner", "wide"], "y", {})],
        [("x", TensorProto.FLOAT, [3, columns])], [("y", [3, 9])],
        matrix=weights(columns, 40), wide=weights(40, 9),
    )  # fmt: skip
    x = weights(3, columns)
    expected = run(model, x=x)
    size = len(model.SerializeToString())
    block_weights.quantize(model)
    assert sqnr_db(expected, run(model, x=x)) > 12
    assert len(model.SerializeToString()) < size
    # One weight a row is smaller in float.
    assert (model.graph.node[0].op_type == "MatMul") == (columns == 1)


def test_convolutions_stay_float_and_a_note_says_how_much_is_int4(tmp_path):
    model = model_of(
        [
            ("Conv", ["x", "kernel"], "seen", {"pads": [1, 1, 1, 1]}),
            ("Flatten", ["seen"], "flat", {}),
            ("MatMul", ["flat", "head"], "y", {}),
        ],
        [("x", TensorProto.FLOAT, ["batch", 3, 4, 4])], [("y", ["batch", 10])],
        kernel=weights(8, 3, 3, 3), head=weights(128, 10),
    )  # fmt: skip
    result = convert(model, (3, 4, 4), tmp_path)
    assert result.notes == ("int4 has no Conv: 216 of 1,496 weights stay float32",)
    assert result.options["weights"] == "int4 in blocks of 32"


def convert(model, shape, folder, **options):
    signature = Signature(
        (TensorSpec("x", ("batch", *shape), "float32"),), (TensorSpec("y", ("batch", 10), "float32"),)
    )
    request = ConversionRequest("int4", folder, options=options)
    return TARGET.convert(LoadedOnnx(model, signature), request)


def test_a_network_without_matrices_is_refused_in_one_sentence(tmp_path):
    model = model_of(
        [("Conv", ["x", "kernel"], "seen", {}), ("Flatten", ["seen"], "y", {})],
        [("x", TensorProto.FLOAT, ["batch", 3, 4, 4])], [("y", ["batch", 10])],
        kernel=weights(10, 3, 4, 4),
    )  # fmt: skip
    with pytest.raises(InputError, match="has nothing to quantize at onnx:int4, which stores the constant matrices of"):
        convert(model, (3, 4, 4), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_runs_in_the_runtime_and_can_be_taken_apart(tmp_path):
    model = model_of(
        [
            ("MatMul", ["x", "first"], "inner", {}),
            ("Relu", ["inner"], "kept", {}),
            ("MatMul", ["kept", "head"], "y", {}),
        ],
        [("x", TensorProto.FLOAT, ["batch", 64])], [("y", ["batch", 10])],
        first=weights(64, 96), head=weights(96, 10),
    )  # fmt: skip
    x = weights(5, 64)
    expected = run(model, x=x)
    result = convert(model, (64,), tmp_path)
    path = tmp_path / result.file
    outputs = runtime.RUNTIME.open(path, threads=1, signature=result.signature).infer({"x": x})["y"]
    assert sqnr_db(expected, outputs) > 12
    (tmp_path / "parts").mkdir()
    exposed = TARGET.expose_intermediates(path, tmp_path / "parts")
    traced = runtime.RUNTIME.trace(exposed, {"x": x}, result.signature)
    np.testing.assert_allclose(traced["y"].reshape(5, 10), outputs, rtol=1e-5, atol=1e-6)
    truncated = TARGET.truncate_after(path, [0], tmp_path / "parts")
    assert len(TARGET.operators(path)) == 3
    assert onnx.load(truncated[0]).graph.node[0].op_type == "MatMulNBits"


def test_int4_and_int16x8_are_made_on_request_only():
    assert TARGET.on_request == {"int16x8", "int4"}
    assert not TARGET.on_request & {*TARGET.default_precisions}
    (named,) = routes.parse_selection(("onnx:int4",), None)
    assert named == (TARGET, "int4")


@pytest.mark.slow
def test_onnx_runtime_still_sets_up_logging_when_its_quantizer_is_imported():
    """Otherwise its `matmul_nbits_quantizer` may take the place of `block_weights`, if it takes Gemm as well."""
    code = "import logging, onnxruntime.quantization.matmul_nbits_quantizer as q; print(len(logging.root.handlers))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"

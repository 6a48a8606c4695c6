"""QDQ pairs with 16-bit activations: finer than int8, in the standard operator set."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.onnxruntime import RUNTIME
from edgekit.sources.onnx import LoadedOnnx
from edgekit.targets.onnx import TARGET

SIGNATURE = Signature((TensorSpec("x", ("batch", 3, 6, 6), "float32"),), (TensorSpec("y", ("batch", 10), "float32"),))


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    constants = {
        "kernel": rng.normal(size=(8, 3, 3, 3)), "bias": rng.normal(size=8), "head": rng.normal(size=(288, 10)) / 8
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel", "bias"], ["seen"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["seen"], ["kept"]),
            helper.make_node("Flatten", ["kept"], ["flat"]),
            helper.make_node("MatMul", ["flat", "head"], ["y"]),
        ],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    return LoadedOnnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), SIGNATURE)


def test_activations_are_finer_than_those_of_int8(source, tmp_path):
    inputs = {"x": np.random.default_rng(1).normal(size=(32, 3, 6, 6)).astype(np.float32)}
    quality = {}
    for precision in ("int8", "int16x8"):
        folder = tmp_path / precision
        folder.mkdir()
        result = TARGET.convert(source, ConversionRequest(precision, folder, inputs))
        outputs = RUNTIME.open(folder / result.file, threads=1, signature=result.signature).infer(inputs)
        quality[precision] = sqnr_db(source.run(inputs)["y"], outputs["y"])
    assert quality["int16x8"] > quality["int8"] + 3
    assert result.options["opset"] == 21
    model = onnx.load(tmp_path / "int16x8" / result.file)
    assert {node.domain for node in model.graph.node if node.op_type == "QuantizeLinear"} == {""}
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert {TensorProto.UINT16, TensorProto.INT8} <= types
    assert TARGET.describe(tmp_path / "int16x8" / result.file).macs == 36 * 8 * 27 + 2880


def test_an_older_operator_set_is_refused_not_raised(source, tmp_path):
    request = ConversionRequest("int16x8", tmp_path, {"x": np.zeros((1, 3, 6, 6), np.float32)}, {"opset": 17})
    with pytest.raises(InputError, match="onnx:int16x8 needs opset 21 or newer, whose QuantizeLinear has 16-bit types"):
        TARGET.convert(source, request)


@pytest.mark.filterwarnings("ignore")  # of the quantizer, which advises preprocessing
def test_the_quantizer_raises_the_operator_set(source, tmp_path):
    # ONNX Runtime 1.32; once it keeps opset 17, an older `--opset` need not be refused.
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Zeros(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"x": np.zeros((1, 3, 6, 6), np.float32)}])

        def get_next(self):
            return next(self.left, None)

    quantize_static(source.model, tmp_path / "model.onnx", Zeros(), activation_type=QuantType.QUInt16)
    versions = {entry.domain: entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import}
    assert versions[""] == 21

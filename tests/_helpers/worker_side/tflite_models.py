"""Flatbuffers of single operators and small networks, written without a converter, and their runs in two runtimes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.events import Listener
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature
from edgekit.sources.tflite import LoadedTFLite
from edgekit.tflite_files.dequantize import in_float32
from edgekit.tflite_files.ends import add_buffer, with_signature
from edgekit.tflite_files.graph import ends, inline_buffers, main_graph, op_name, pack, parse_content, schema

_RNG = np.random.default_rng(0)


def _floats(*shape: int) -> Array:
    return _RNG.standard_normal(shape).astype(np.float32)


def _ints(*values: int) -> Array:
    return np.array(values, np.int32)


class _Writer:
    """A flatbuffer with one subgraph."""

    def __init__(self) -> None:
        tables = schema()
        self.model, self.graph = tables.ModelT(), tables.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [tables.BufferT()], []
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str, values: Array | None = None) -> int:
        tensor = schema().TensorT()
        tensor.name, tensor.shape = name.encode(), np.array(shape, np.int32)
        tensor.type = getattr(schema().TensorType, dtype.upper())
        tensor.buffer = 0 if values is None else add_buffer(self.model, values)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs: list[int], outputs: list[int], options: dict[str, Any]) -> Any:
        tables = schema()
        code, op = tables.OperatorCodeT(), tables.OperatorT()
        code.builtinCode = getattr(tables.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # one byte; 127 says that the other field counts
        code.version = options.pop("version", 1)
        self.model.operatorCodes.append(code)
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        table = options.pop("table", None)
        if table is not None:
            op.builtinOptionsType = getattr(tables.BuiltinOptions, table)
            op.builtinOptions = getattr(tables, f"{table}T")()
            for key, value in options.items():
                assert hasattr(op.builtinOptions, key), key
                setattr(op.builtinOptions, key, value)
        self.graph.operators.append(op)
        return op


# Inputs are fed, constants are stored in the file; None is an omitted input, and a tuple the shape of a state.
_FED, _STORED = "fed", "stored"
_CONV = {"table": "Conv2DOptions", "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
_DEPTHWISE = _CONV | {"table": "DepthwiseConv2DOptions", "depthMultiplier": 2}
_POOL = {"table": "Pool2DOptions", "filterHeight": 3, "filterWidth": 2, "strideH": 2, "strideW": 2}
_SLICE = {"table": "StridedSliceOptions"}
_STATE = {"cellClip": 0.0, "projClip": 0.0, "fusedActivationFunction": 4}


def _stored(*values: int) -> tuple[str, Array]:
    return _STORED, _ints(*values)


def _lstm() -> tuple[list[Any], dict[str, Any]]:
    weights = [_floats(4, 3) for _ in range(4)] + [_floats(4, 4) for _ in range(4)]
    biases = [_floats(4) for _ in range(4)]
    inputs = [("fed", _floats(1, 5, 3)), *(("stored", w) for w in weights), None, None, None]
    inputs += [*(("stored", b) for b in biases), None, None, (1, 4), (1, 4), None, None, None, None]
    return inputs, {"table": "UnidirectionalSequenceLSTMOptions", **_STATE}


def _cases() -> dict[str, tuple[str, list[Any], dict[str, Any]]]:
    x, image = ("fed", _floats(2, 3, 4)), ("fed", _floats(1, 7, 6, 4))
    lstm, lstm_options = _lstm()
    sequence = [("fed", _floats(1, 5, 3)), ("stored", _floats(4, 3)), ("stored", _floats(4, 4)), ("stored", _floats(4))]
    kernel, bias = ("stored", _floats(5, 3, 3, 4)), ("stored", _floats(5))
    spread, spread_bias = ("stored", _floats(1, 3, 3, 8)), ("stored", _floats(8))
    add = {"table": "AddOptions"}
    cases = {
        "conv valid": ("CONV_2D", [image, kernel, bias], _CONV | {"padding": 1}),
        "conv same, strided, relu6": (
            "CONV_2D",
            [image, kernel, bias],
            _CONV | {"strideH": 2, "strideW": 3, "fusedActivationFunction": 3},
        ),
        "conv dilated, relu": (
            "CONV_2D",
            [image, kernel, bias],
            _CONV | {"dilationHFactor": 2, "fusedActivationFunction": 1},
        ),
        "conv in groups": (
            "CONV_2D",
            [image, ("stored", _floats(6, 3, 3, 2)), ("stored", _floats(6))],
            _CONV | {"version": 6},
        ),
        "depthwise": ("DEPTHWISE_CONV_2D", [image, spread, spread_bias], _DEPTHWISE | {"strideH": 2, "strideW": 2}),
        "depthwise, relu between -1 and 1": (
            "DEPTHWISE_CONV_2D",
            [image, spread, spread_bias],
            _DEPTHWISE | {"fusedActivationFunction": 2},
        ),
        "transposed conv same": (
            "TRANSPOSE_CONV",
            [_stored(1, 13, 12, 5), kernel, image],
            {"table": "TransposeConvOptions", "strideH": 2, "strideW": 2},
        ),
        "transposed conv valid": (
            "TRANSPOSE_CONV",
            [_stored(1, 15, 13, 5), kernel, image],
            {"table": "TransposeConvOptions", "padding": 1, "strideH": 2, "strideW": 2},
        ),
        "average pool same": ("AVERAGE_POOL_2D", [image], _POOL),
        "max pool valid": ("MAX_POOL_2D", [image], _POOL | {"padding": 1}),
        "fully connected, dims kept": (
            "FULLY_CONNECTED",
            [x, ("stored", _floats(5, 4)), ("stored", _floats(5))],
            {"table": "FullyConnectedOptions", "keepNumDims": True, "version": 5},
        ),
        "fully connected, dims dropped, relu": (
            "FULLY_CONNECTED",
            [x, ("stored", _floats(5, 4)), None],
            {"table": "FullyConnectedOptions", "fusedActivationFunction": 1, "version": 6},
        ),
        "fully connected, computed weights": (
            "FULLY_CONNECTED",
            [("fed", _floats(2, 4)), ("fed", _floats(5, 4)), None],
            {"table": "FullyConnectedOptions", "version": 6},
        ),
        "batch matmul": ("BATCH_MATMUL", [x, ("fed", _floats(2, 3, 4))], {"table": "BatchMatMulOptions", "adjY": True}),
        "softmax with beta": ("SOFTMAX", [x], {"table": "SoftmaxOptions", "beta": 2.5}),
        "hard swish": ("HARD_SWISH", [x], {"table": "HardSwishOptions"}),
        "gelu": ("GELU", [x], {"table": "GeluOptions"}),
        "gelu by tanh": ("GELU", [x], {"table": "GeluOptions", "approximate": True}),
        "relu between -1 and 1": ("RELU_N1_TO_1", [x], {}),
        "prelu": ("PRELU", [image, ("stored", _floats(1, 1, 4))], {}),
        "leaky relu": ("LEAKY_RELU", [x], {"table": "LeakyReluOptions", "alpha": 0.3}),
        "add, relu between -1 and 1": ("ADD", [x, ("stored", _floats(4))], add | {"fusedActivationFunction": 2}),
        "floor mod": ("FLOOR_MOD", [x, ("stored", _floats(1) + 2)], {"table": "FloorModOptions"}),
        "floor div of integers": (
            "FLOOR_DIV",
            [("fed", _ints(-7, 7, -8, 8)), _stored(2, -2, 3, -3)],
            {"table": "FloorDivOptions", "version": 2},
        ),
        "l2 normalization": ("L2_NORMALIZATION", [x], {"table": "L2NormOptions"}),
        "local response": (
            "LOCAL_RESPONSE_NORMALIZATION",
            [image],
            {"table": "LocalResponseNormalizationOptions", "radius": 1, "bias": 1.0, "alpha": 0.5, "beta": 0.75},
        ),
        "lstm": ("UNIDIRECTIONAL_SEQUENCE_LSTM", lstm, lstm_options),
        "rnn": (
            "UNIDIRECTIONAL_SEQUENCE_RNN",
            [*sequence, (1, 4)],
            {"table": "SequenceRNNOptions", "fusedActivationFunction": 4},
        ),
        "strided slice": (
            "STRIDED_SLICE",
            [x, _stored(0, 2, -1), _stored(0, 0, 0), _stored(1, -1, 1)],
            _SLICE | {"beginMask": 1, "endMask": 3, "shrinkAxisMask": 4},
        ),
        "slice to the end": ("SLICE", [x, _stored(0, 1, 1), _stored(2, -1, 2)], {"table": "SliceOptions"}),
        "pad": ("PAD", [image, ("stored", _ints(0, 0, 1, 2, 0, 1, 0, 0).reshape(4, 2))], {"table": "PadOptions"}),
        "pad with a value": (
            "PADV2",
            [x, ("stored", _ints(0, 0, 1, 2, 0, 1).reshape(3, 2)), ("stored", np.float32(3))],
            {"table": "PadV2Options"},
        ),
        "mirror": (
            "MIRROR_PAD",
            [x, ("stored", _ints(0, 0, 1, 1, 0, 1).reshape(3, 2))],
            {"table": "MirrorPadOptions", "mode": 1},
        ),
        "mean": ("MEAN", [image, _stored(1, 2)], {"table": "ReducerOptions"}),
        "mean, dims kept": ("MEAN", [image, _stored(-1)], {"table": "ReducerOptions", "keepDims": True}),
        "concat": ("CONCATENATION", [x, ("fed", _floats(2, 1, 4))], {"table": "ConcatenationOptions", "axis": -2}),
        "split": ("SPLIT", [_stored(-1), x], {"table": "SplitOptions", "numSplits": 2, "outputs": 2}),
        "split by sizes": (
            "SPLIT_V",
            [x, _stored(1, -1), _stored(1)],
            {"table": "SplitVOptions", "numSplits": 2, "outputs": 2},
        ),
        "pack": ("PACK", [x, x], {"table": "PackOptions", "valuesCount": 2, "axis": -1}),
        "unpack": ("UNPACK", [x], {"table": "UnpackOptions", "num": 3, "axis": 1, "outputs": 3}),
        "gather": ("GATHER", [x, ("fed", _ints(2, 0))], {"table": "GatherOptions", "axis": 1}),
        "gather in batches": (
            "GATHER",
            [x, ("stored", _ints(0, 1, 2, 0).reshape(2, 2))],
            {"table": "GatherOptions", "axis": 1, "batchDims": 1, "version": 5},
        ),
        "cast": ("CAST", [("fed", _ints(1, 2, 3))], {"table": "CastOptions", "inDataType": 2, "outDataType": 0}),
        "largest index": ("ARG_MAX", [x, _stored(1)], {"table": "ArgMaxOptions", "outputType": 2, "dtype": "int32"}),
        "part replaced": ("DYNAMIC_UPDATE_SLICE", [x, ("fed", _floats(2, 1, 4)), ("fed", _ints(0, 1, 0))], {}),
    }
    resizes = ("RESIZE_BILINEAR", "ResizeBilinearOptions"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")
    for kind, mode in resizes:
        for option in ("alignCorners", "halfPixelCenters", None):
            options = {"table": mode, "version": 3} | ({option: True} if option else {})
            cases[f"{mode.removesuffix('Options')} {option}"] = (kind, [image, _stored(11, 4)], options)
    return cases


def _file(case: str, shapes: list[tuple[int, ...]] | None = None) -> tuple[bytes, dict[str, Array]]:
    """Return the flatbuffer of a case and its inputs; LiteRT computes the shapes of the outputs for a second turn."""
    kind, inputs, options = copy.deepcopy(_cases()[case])
    writer, fed, indices = _Writer(), {}, []
    for position, given in enumerate(inputs):
        if given is None:
            indices.append(-1)
        elif isinstance(given[0], int):
            indices.append(writer.tensor(f"state_{position}", given, "float32"))
            writer.graph.tensors[-1].isVariable = True
        else:
            origin, values = given
            name = f"input_{position}"
            fed |= {name: values} if origin == _FED else {}
            indices.append(writer.tensor(name, values.shape, str(values.dtype), values if origin == _STORED else None))
    dtype = options.pop("dtype", "float32" if kind != "FLOOR_DIV" else "int32")
    count = options.pop("outputs", 1)
    shapes = shapes or [()] * count
    outputs = [writer.tensor(f"output_{index}", shape, dtype) for index, shape in enumerate(shapes)]
    writer.operator(kind, indices, outputs, options)
    names = [tensor.name.decode() for tensor in writer.graph.tensors]
    writer.graph.inputs, writer.graph.outputs = [names.index(name) for name in fed], outputs
    return with_signature(pack(writer.model)), fed


def operators(*, emit: Listener) -> dict[str, float]:
    """Return for each case the largest difference between LiteRT and ONNX Runtime, relative to the largest value."""
    errors = {}
    for case in _cases():
        content, fed = _file(case)
        shapes = [array.shape for array in _by_litert(content, fed).values()]
        content, _ = _file(case, shapes)
        errors[case] = _difference(content, fed)
    return errors


def _signature(content: bytes) -> Signature:
    return Signature(*(tuple(spec for spec, _ in side) for side in ends(parse_content(content))))


def _by_litert(content: bytes, fed: dict[str, Array]) -> dict[str, Array]:
    signature = _signature(content)
    outputs = LoadedTFLite(content, signature)._run([fed[spec.name] for spec in signature.inputs])
    return dict(zip([spec.name for spec in signature.outputs], outputs, strict=True))


def _difference(content: bytes, fed: dict[str, Array]) -> float:
    import onnxruntime

    from edgekit.tflite_files.to_onnx.translate import to_onnx

    expected = _by_litert(content, fed)
    model = to_onnx(content, _signature(content))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    actual = dict(zip(expected, session.run(list(expected), fed), strict=True))
    assert all(
        actual[name].shape == array.shape and actual[name].dtype == array.dtype for name, array in expected.items()
    )
    return max(
        float(np.abs(array.astype(np.float64) - actual[name]).max() / max(np.abs(array).max(), 1e-9))
        for name, array in expected.items()
    )


_SCALE = 0.05  # of the quantized activations


def _quantization(scales: list[float], axis: int = 0, zero_point: int = 0) -> Any:
    parameters = schema().QuantizationParametersT()
    parameters.scale = np.array(scales, np.float32)
    parameters.zeroPoint = np.full(len(scales), zero_point, np.int64)
    parameters.quantizedDimension = axis
    return parameters


class _Network(_Writer):
    """A network in float32, quantized to int8, or with weights alone in int8 or float16."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.integers = form, form == "int8"

    def version(self, float_version: int, int8_version: int) -> int:
        return int8_version if self.integers else float_version

    def quantized(self, name: str, values: Array, scales: Array) -> int:
        dtype = "int32" if name == "bias" else "int8"
        rows = scales.reshape(-1, *[1] * (values.ndim - 1)) if len(scales) > 1 else scales
        index = self.tensor(name, values.shape, dtype, np.rint(values / rows).astype(dtype))
        self.graph.tensors[index].quantization = _quantization([float(scale) for scale in scales])
        return index

    def activation(self, name: str, *shape: int) -> int:
        index = self.tensor(name, shape, "int8" if self.integers else "float32")
        if self.integers:
            self.graph.tensors[index].quantization = _quantization([_SCALE], zero_point=3)
        return index

    def weight(self, name: str, values: Array) -> int:
        if self.form == "float32":
            return self.tensor(name, values.shape, "float32", values)
        if self.form == "float16":
            half = self.tensor(f"{name}_half", values.shape, "float16", values.astype(np.float16))
            whole = self.tensor(name, values.shape, "float32")
            self.operator("DEQUANTIZE", [half], [whole], {"version": 3})
            return whole
        return self.quantized(name, values, np.abs(values).reshape(len(values), -1).max(1) / 127)

    def converted(self, kind: str, read: int, written: int) -> int:
        if self.integers:
            self.operator(kind, [read], [written], {"version": 2 if kind == "DEQUANTIZE" else 1})
        return written if self.integers else read


def network(path: str, form: str = "float32", *, emit: Listener) -> None:
    """Write a network for images of 8x8 with two channels: a convolution, a sum with a constant, a mean, a matrix.

    Args:
        path: The file to write.
        form: `float32`; `int8` with quantized activations, weights per channel and biases; `hybrid` with int8 weights
            alone; `float16` with weights behind DEQUANTIZE.
        emit: Receives no events.
    """
    rng = np.random.default_rng(1)
    kernel, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3, 3, 2), (3, 4)))
    bias, shift = np.linspace(-0.5, 0.5, 4, dtype=np.float32), np.linspace(0, 1, 4, dtype=np.float32)
    net = _Network(form)
    image = net.tensor("image", (1, 8, 8, 2), "float32")
    entered = net.converted("QUANTIZE", image, net.activation("image_int8", 1, 8, 8, 2)) if net.integers else image
    kernels = net.weight("kernel", kernel / 3)
    scales = net.graph.tensors[kernels].quantization.scale * _SCALE if net.integers else None
    added = net.tensor("bias", (4,), "float32", bias) if scales is None else net.quantized("bias", bias, scales)
    features = net.activation("features", 1, 4, 4, 4)
    options = _CONV | {"strideH": 2, "strideW": 2, "fusedActivationFunction": 1, "version": net.version(1, 3)}
    net.operator("CONV_2D", [entered, kernels, added], [features], options)
    one = np.array([_SCALE], np.float32)
    constant = net.quantized("shift", shift, one) if net.integers else net.tensor("shift", (4,), "float32", shift)
    shifted = net.activation("shifted", 1, 4, 4, 4)
    net.operator("ADD", [features, constant], [shifted], {"table": "AddOptions", "version": net.version(1, 2)})
    pooled, axes = net.activation("pooled", 1, 4), net.tensor("axes", (2,), "int32", _ints(1, 2))
    net.operator("MEAN", [shifted, axes], [pooled], {"table": "ReducerOptions", "version": net.version(1, 2)})
    inner = net.activation("scores_int8", 1, 3) if net.integers else net.tensor("scores", (1, 3), "float32")
    hybrid = {"asymmetricQuantizeInputs": True, "version": 9} if form == "hybrid" else {"version": 6}
    dense = {"table": "FullyConnectedOptions", **hybrid}
    net.operator("FULLY_CONNECTED", [pooled, net.weight("matrix", matrix), -1], [inner], dense)
    scores = net.converted("DEQUANTIZE", inner, net.tensor("scores", (1, 3), "float32")) if net.integers else inner
    net.graph.inputs, net.graph.outputs = [image], [scores]
    Path(path).write_bytes(pack(net.model))


def unknown(path: str, *, name: str, emit: Listener) -> None:
    """Write a file that computes with a custom operator of the name."""
    writer = _Writer()
    ends = [writer.tensor(text, (1, 3), "float32") for text in ("x", "y")]
    writer.operator("CUSTOM", ends[:1], ends[1:], {})
    writer.model.operatorCodes[0].customCode = name.encode()
    writer.graph.inputs, writer.graph.outputs = ends[:1], ends[1:]
    Path(path).write_bytes(pack(writer.model))


def untranslatable(path: str, *, emit: Listener) -> None:
    """Write a file with operators that LiteRT runs and that are not translated."""
    writer = _Writer()
    x, y, z = (writer.tensor(text, (3,), "float32") for text in "xyz")
    writer.operator("ATAN2", [x, x], [y], {})
    writer.operator("SIGN", [y], [z], {})
    writer.operator("ATAN2", [z, x], [writer.tensor("w", (3,), "float32")], {})
    writer.graph.inputs, writer.graph.outputs = [x], [3]
    Path(path).write_bytes(pack(writer.model))


def rewritten(folder: str, form: str, *, emit: Listener) -> dict[str, Any]:
    """Dequantize the network of a form; compare it with its file and with the float network, and translate it."""
    path, plain = Path(folder, "net.tflite"), Path(folder, "plain.tflite")
    network(str(path), form, emit=emit)
    network(str(plain), emit=emit)
    content = inline_buffers(path.read_bytes())
    result = in_float32(content)
    samples = {"image": np.random.default_rng(2).random((1, 8, 8, 2), np.float32)}
    outputs = [_by_litert(data, samples)["scores"] for data in (content, result.content, plain.read_bytes())]
    model = parse_content(result.content)
    from edgekit.tflite_files.to_onnx.translate import to_onnx

    translated = to_onnx(with_signature(result.content), _signature(result.content))
    return {
        "types": sorted(result.types),
        "activations": result.activations,
        "tensors": len(main_graph(model).tensors),
        "operators": [op_name(model, op) for op in main_graph(model).operators],
        "from_file": float(np.abs(outputs[0] - outputs[1]).max()),
        "from_plain": float(np.abs(outputs[2] - outputs[1]).max()),
        "translated": _difference(result.content, samples),
        "transposes": sum(node.op_type == "Transpose" for node in translated.graph.node),
        "bytes": [len(content), len(result.content)],
    }


def recurrent_calls(*, emit: Listener) -> dict[str, bool]:
    """Run a fused LSTM on the same sample twice: as a source, as a stream, and in the runtime of artifacts."""
    import tempfile

    from edgekit.runtimes.litert import RUNTIME

    content, fed = _file("lstm", [(1, 5, 4)])
    loaded = LoadedTFLite(content, _signature(content))
    twice = {name: np.concatenate([array, array]) for name, array in fed.items()}
    (name,) = (spec.name for spec in loaded.signature.outputs)
    runs = {"source": loaded.run(twice)[name], "stream": loaded.run_stream(twice)[name]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(content)
        runs["runtime"] = RUNTIME.open(path, threads=1, signature=loaded.signature).infer(twice)[name]
    same = {key: bool(np.array_equal(array[0], array[1])) for key, array in runs.items()}
    return {"source": same["source"], "stream goes on": not same["stream"], "runtime": same["runtime"]}


def fixed(*, emit: Listener) -> dict[str, Any]:
    """Fix the second input of a matrix product."""
    from edgekit.core.values.fixed_inputs import FixedInput

    content, fed = _file("batch matmul", [(2, 3, 3)])
    loaded = LoadedTFLite(content, _signature(content))
    spec = loaded.signature.inputs[1]
    constant = loaded.with_fixed([FixedInput(spec, 1, 2.0)])
    expected = loaded.run({**fed, spec.name: np.full(spec.shape, 2.0, np.float32)})
    actual = constant.run({"input_0": fed["input_0"]})
    same = all(np.array_equal(actual[name], array) for name, array in expected.items())
    return {"inputs": [spec.name for spec in constant.signature.inputs], "same": same}


def any_batch(*, emit: Listener) -> dict[str, Any]:
    """Run a file whose batch is unknown on five samples at once."""
    writer = _Writer()
    x, y = (writer.tensor(name, (1, 4), "float32") for name in "xy")
    for tensor in writer.graph.tensors:
        tensor.shapeSignature = np.array([-1, 4], np.int32)
    writer.operator("RELU", [x], [y], {})
    writer.graph.inputs, writer.graph.outputs = [x], [y]
    content = pack(writer.model)
    loaded = LoadedTFLite(content, _signature(content))
    return {"batch": loaded.signature.batch, "shape": list(loaded._run([_floats(5, 4)])[0].shape)}


def layouts_of(*, emit: Listener) -> dict[str, dict[str, str]]:
    """Return the layouts that are known of a network, and of the same network with transposes around it."""
    import tempfile

    from edgekit.tflite_files.ends import layouts, permuted

    with tempfile.TemporaryDirectory() as folder:
        network(str(Path(folder, "net.tflite")), emit=emit)
        content = with_signature(Path(folder, "net.tflite").read_bytes())
    changed = permuted(content, [(0, 2, 3, 1)], [None])
    return {"plain": layouts(parse_content(content)), "permuted": layouts(parse_content(changed))}

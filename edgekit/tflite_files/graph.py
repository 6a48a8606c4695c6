"""Reading of TFLite flatbuffers without running them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import LITERT, require
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.values.specs import Dim, ModelDescription, OpCount, Quantization, Signature, TensorSpec
from edgekit.core.values.tensor_order import names_by_position

# Names of the schema's TensorType: numpy's name, and bytes per element.
_DTYPES = {
    "FLOAT32": ("float32", 4.0),
    "FLOAT16": ("float16", 2.0),
    "INT64": ("int64", 8.0),
    "INT32": ("int32", 4.0),
    "INT16": ("int16", 2.0),
    "INT8": ("int8", 1.0),
    "UINT8": ("uint8", 1.0),
    "BOOL": ("bool", 1.0),
    "INT4": ("int4", 0.5),
}


def schema() -> Any:
    """Return the module with the classes of the flatbuffer schema.

    Raises:
        MissingDependency: The LiteRT package, which brings them, is not installed.
    """
    require((LITERT,), "reading .tflite files")
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


@functools.cache
def _enum_names(cls: Any) -> dict[int, str]:
    return {value: name for name, value in vars(cls).items() if isinstance(value, int)}


def parse(path: Path) -> Any:
    """Read a flatbuffer.

    Args:
        path: The model file.

    Returns:
        The `ModelT` of the schema's object API.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
        MissingDependency: The LiteRT package, which brings the schema, is not installed.
    """
    content = read_bytes(path, "model file")
    # A flatbuffer has its identifier at byte 4.
    if content[4:8] != b"TFL3":
        raise malformed_file_error(path, "TensorFlow Lite", "the identifier TFL3 is missing")
    tables = schema()
    try:
        model = tables.ModelT.InitFromPackedBuf(content, 0)
        _check_complete(model, len(content))
        return model
    except Exception as error:  # a damaged flatbuffer raises struct, index, type and value errors alike
        raise malformed_file_error(path, "TensorFlow Lite", "its tables point outside the file") from error


def parse_content(content: bytes) -> Any:
    """Read a flatbuffer that a converter has just written.

    Args:
        content: The flatbuffer.

    Returns:
        The `ModelT` of the schema's object API.
    """
    return schema().ModelT.InitFromPackedBuf(content, 0)


def _check_complete(model: Any, size: int) -> None:
    """Raise ValueError if weights are missing."""
    # A truncated file may still unpack, since the tables come before the weights.
    if not model.subgraphs or not model.subgraphs[0].tensors:
        raise ValueError("no graph")
    for buffer in model.buffers:
        # Offsets 0 and 1 mark a buffer inside the flatbuffer (schema, `Buffer.offset`).
        if buffer.offset and buffer.size and buffer.offset > 1 and buffer.offset + buffer.size > size:
            raise ValueError("buffer outside the file")
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        data = model.buffers[tensor.buffer].data
        size_bytes = int(_elements(tensor) * _dtype(tensor)[1])
        # A sparse tensor stores fewer values than its shape has.
        if data is not None and len(data) and len(data) < size_bytes and tensor.sparsity is None:
            raise ValueError("buffer too short")


def rename_signature(content: bytes, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> bytes:
    """Rename the inputs and outputs in the signatures of a flatbuffer.

    Args:
        content: The flatbuffer.
        inputs: Old name -> new name of inputs; other names stay.
        outputs: The same for outputs.

    Returns:
        The new flatbuffer, or `content` itself if no name changes.
    """
    if all(old == new for old, new in (*inputs.items(), *outputs.items())):
        return content
    model = parse_content(content)
    for definition in model.signatureDefs:
        for tensor_maps, names in ((definition.inputs, inputs), (definition.outputs, outputs)):
            for tensor_map in tensor_maps:
                tensor_map.name = names.get(text(tensor_map.name), text(tensor_map.name))
    return pack(model)


def pack(model: Any) -> bytes:
    """Serialize a model of the schema's object API.

    Args:
        model: The `ModelT`.

    Returns:
        The flatbuffer.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)  # bytes; it doubles when it is full
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def inline_buffers(content: bytes) -> bytes:
    """Move weights that are stored behind the flatbuffer into it.

    Args:
        content: The file: a flatbuffer, possibly followed by weights.

    Returns:
        The flatbuffer with all weights, or `content` itself if nothing is to be moved or the file is too large.
    """
    # The schema allows buffers behind the flatbuffer, by offset and size, for files over 2 GiB; ai-edge-quantizer 0.10
    # writes them for smaller files too. TensorFlow Lite Micro (2026-10) ignores the offset, takes such a weight for a
    # tensor that is computed, and silently reads the arena's previous contents.
    model = parse_content(content)
    external = [buffer for buffer in model.buffers if buffer.offset and buffer.offset > 1]
    # Flatbuffers address their content by signed 32-bit offsets.
    if not external or len(content) >= 1 << 31:
        return content
    for buffer in external:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return pack(model)


def restore_outputs(content: bytes) -> bytes:
    """Make the outputs of the graph those that the file's signature names.

    ai-edge-quantizer 0.10 lists the dequantized copy of an output that the graph also computes with in its place.

    Args:
        content: The flatbuffer, with its weights inside.

    Returns:
        The flatbuffer whose first subgraph has the outputs of the signature, or `content` itself if it has no others,
        no signature, or is too large.
    """
    if len(content) >= 1 << 31:
        return content
    model = parse_content(content)
    if not model.signatureDefs:
        return content
    graph = main_graph(model)
    named = {int(entry.tensorIndex) for definition in model.signatureDefs for entry in definition.outputs}
    listed = [int(index) for index in graph.outputs]
    if named.issuperset(listed):
        return content
    missing = named.difference(listed)
    # The operator that made the copy reads the output itself.
    originals = {
        int(written): int(read)
        for operator in graph.operators
        for written in operator.outputs
        for read in operator.inputs
        if int(read) in missing
    }
    outputs = [index if index in named else originals.get(index) for index in listed]
    graph.outputs = [index for index in outputs if index is not None]
    return pack(model)


def _dtype(tensor: Any) -> tuple[str, float]:
    name = _enum_names(schema().TensorType).get(tensor.type, "UNKNOWN")
    return _DTYPES.get(name, (name.lower(), 1.0))


def tensor_dtype(tensor: Any) -> str:
    """Return numpy's name of a tensor's type.

    Args:
        tensor: The `TensorT`.

    Returns:
        The name; `int4`, or that of the schema in lower case, for types that numpy does not have.
    """
    return _dtype(tensor)[0]


def _elements(tensor: Any) -> int:
    shape = tensor.shape if tensor.shape is not None else []
    return int(np.prod([abs(int(dim)) for dim in shape])) if len(shape) else 1


def _spec(tensor: Any, name: str) -> TensorSpec:
    # A tensor with dynamic dimensions has -1 for them in `shapeSignature`, and 1 in `shape`.
    symbolic = tensor.shapeSignature is not None and len(tensor.shapeSignature) > 0
    shape = tensor.shapeSignature if symbolic else tensor.shape
    dims: tuple[Dim, ...] = tuple(
        int(dim) if dim >= 0 else ("batch" if index == 0 else f"dim{index}")
        for index, dim in enumerate([] if shape is None else shape)
    )
    quantization = None
    parameters = tensor.quantization
    if parameters is not None and parameters.scale is not None and len(parameters.scale):
        axis = int(parameters.quantizedDimension) if len(parameters.scale) > 1 else None
        stored_zeros = parameters.zeroPoint if parameters.zeroPoint is not None else [0] * len(parameters.scale)
        zero_points = tuple(int(zero) for zero in stored_zeros)
        quantization = Quantization(tuple(float(scale) for scale in parameters.scale), zero_points, axis)
    return TensorSpec(name, dims, _dtype(tensor)[0], None, quantization)


def text(value: Any) -> str:
    """Decode a string of a flatbuffer; the object API returns strings as bytes.

    Args:
        value: The string, as bytes or text.

    Returns:
        The text; bytes that are no UTF-8 are replaced.
    """
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _signature(model: Any) -> Signature:
    inputs, outputs = ends(model)
    return Signature(tuple(spec for spec, _ in inputs), tuple(spec for spec, _ in outputs))


# An input or output, and the index of its tensor.
End = tuple[TensorSpec, int]


def ends(model: Any) -> tuple[tuple[End, ...], tuple[End, ...]]:
    """Return the inputs and outputs of the main graph with the indices of their tensors.

    Args:
        model: The `ModelT`.

    Returns:
        Inputs and outputs, in the order in which interpreters number them, with the names of the first signature.
    """
    graph = main_graph(model)
    first = model.signatureDefs[0] if model.signatureDefs else None
    return (
        _ends(graph, graph.inputs, first.inputs if first else ()),
        _ends(graph, graph.outputs, first.outputs if first else ()),
    )


def _ends(graph: Any, positions: Sequence[int], entries: Sequence[Any]) -> tuple[End, ...]:
    named = [(text(entry.name), int(entry.tensorIndex)) for entry in entries]
    indices = [int(index) for index in positions]
    names = names_by_position(named, indices)
    # Names of a signature that the list lacks, such as the second name of an output that is in it once, come last.
    extra = [(name, index) for name, index in named if name not in names]
    placed = [
        (text(graph.tensors[index].name) if name is None else name, index)
        for name, index in zip(names, indices, strict=True)
    ]
    return tuple((_spec(graph.tensors[index], name), index) for name, index in (*placed, *extra))


def read_signature(path: Path) -> Signature:
    """Read the inputs and outputs of the file's first signature, or of its first subgraph if it has no signature.

    Args:
        path: The model file.

    Returns:
        The signature, in the order in which interpreters number inputs and outputs; layouts are unknown.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
    """
    return _signature(parse(path))


# The inputs of recurrent operators that are weight matrices: of the LSTM the four gates' input and recurrent weights
# and the projection; of the SVDF the filters over features and over time.
_RECURRENT_WEIGHTS = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 9), 16),
    "LSTM": (*range(1, 9), 16),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
    "RNN": (1, 2),
    "SVDF": (1, 2),
}
_UNKNOWN = -1


def _macs(name: str, op: Any, graph: Any) -> int | None:
    """Return the multiply-accumulates of one execution of an operator, or None for operators without a matrix product.

    A negative number stands for an unknown one: a dimension is symbolic, or the operator is not counted. Shapes follow
    TFLite's operator reference.
    """
    tensors: list[Any] = [graph.tensors[index] if index >= 0 else None for index in op.inputs]
    output = _elements(graph.tensors[op.outputs[0]]) if len(op.outputs) else 0
    if name in ("CONV_2D", "CONV_3D"):  # filter (out, kh, kw, in): each output sums over kh * kw * in
        return output * (_elements(tensors[1]) // int(tensors[1].shape[0]))
    if name == "DEPTHWISE_CONV_2D":  # filter (1, kh, kw, out)
        return output * (_elements(tensors[1]) // int(tensors[1].shape[-1]))
    if name == "TRANSPOSE_CONV":  # inputs: shape, filter (out, kh, kw, in), data: each datum meets kh * kw * out
        return _elements(tensors[2]) * (_elements(tensors[1]) // int(tensors[1].shape[-1]))
    if name == "FULLY_CONNECTED":  # filter (out, in)
        return output * int(tensors[1].shape[-1])
    if name == "BATCH_MATMUL":
        transposed = bool(op.builtinOptions and op.builtinOptions.adjX)
        return output * int(tensors[0].shape[-2 if transposed else -1])  # (..., M, K), or (..., K, M) if transposed
    if name in _RECURRENT_WEIGHTS:  # (units, in) and (units, units), each once a row of the input (steps, batch, in)
        rows = _elements(tensors[0]) // int(tensors[0].shape[-1])
        weights = [tensors[index] for index in _RECURRENT_WEIGHTS[name] if index < len(tensors)]
        return rows * sum(_elements(tensor) for tensor in weights if tensor is not None)
    return _UNKNOWN if name in ("BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN") else None


def op_name(model: Any, op: Any) -> str:
    """Return the name of an operator.

    Args:
        model: The `ModelT`.
        op: The `OperatorT`.

    Returns:
        The builtin name, such as `CONV_2D`, or the custom code of an operator that is not built in.
    """
    code = model.operatorCodes[op.opcodeIndex]
    if code.customCode:
        return text(code.customCode)
    # Schema 3a replaced the one-byte field, which files may still use for codes below 127.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _enum_names(schema().BuiltinOperator).get(builtin, str(builtin))


def operators_of(model: Any) -> set[str]:
    """Return the names of the operators of all subgraphs, as `op_name` returns them.

    Args:
        model: The `ModelT`.
    """
    return {op_name(model, op) for graph in model.subgraphs for op in graph.operators or []}


def _execution_counts(model: Any) -> dict[int, int | None]:
    """Return how often each subgraph runs per inference, or None for a loop whose iterations are unknown."""
    counts: dict[int, int | None] = dict.fromkeys(range(len(model.subgraphs)), 1)
    # The converter numbers the subgraphs of a loop after the one that contains it, so one pass in order suffices.
    for index, graph in enumerate(model.subgraphs):
        for op in graph.operators or []:
            if op_name(model, op) == "WHILE":
                iterations = trip_count(model, graph, op)
                outer = counts[index]
                count = None if iterations is None or outer is None else iterations * outer
                counts[int(op.builtinOptions.condSubgraphIndex)] = count
                counts[int(op.builtinOptions.bodySubgraphIndex)] = count
    return counts


def trip_count(model: Any, graph: Any, loop: Any) -> int | None:
    """Return the iterations of a loop that counts from 0 up to a constant, as recurrent layers do, else None.

    Args:
        model: The `ModelT`.
        graph: The subgraph of the loop.
        loop: The `OperatorT` of WHILE.
    """
    condition = model.subgraphs[int(loop.builtinOptions.condSubgraphIndex)]
    limits = []
    for op in condition.operators or []:
        name = op_name(model, op)
        if name == "LESS" and op.inputs[0] in condition.inputs:
            start = _scalar(model, graph.tensors[loop.inputs[list(condition.inputs).index(op.inputs[0])]])
            limit = _scalar(model, condition.tensors[op.inputs[1]])
            if start != 0 or limit is None:
                return None
            limits.append(limit)
        elif name != "LOGICAL_AND":  # tf.while_loop joins `maximum_iterations` by it
            return None
    return min(limits, default=None)


def _scalar(model: Any, tensor: Any) -> int | None:
    """Return the value of a constant of one int32, or None for other tensors."""
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) != 4 or _dtype(tensor)[0] != "int32":
        return None
    return int.from_bytes(bytes(bytearray(data)), "little", signed=True)


def tensor_names(path: Path) -> dict[str, str]:
    """Return the names that the tensors of inputs and outputs have in the graph, by their names in the signature.

    Args:
        path: The model file.

    Returns:
        Name in the signature -> name of the tensor.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
    """
    model = parse(path)
    tensors = main_graph(model).tensors
    return {
        text(entry.name): text(tensors[int(entry.tensorIndex)].name)
        for definition in (model.signatureDefs or ())[:1]
        for entry in (*definition.inputs, *definition.outputs)
    }


def describe(path: Path) -> ModelDescription:
    """Describe a flatbuffer: operators, tensors, parameters, multiply-accumulates and quantization of all subgraphs.

    The multiply-accumulates of a loop's body are multiplied by its iterations; if these are unknown, so is the total.

    Args:
        path: The model file.

    Returns:
        The description.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
    """
    model = parse(path)
    op_counts: Counter[str] = Counter()
    macs: dict[str, int] = {}
    mac_outputs = 0
    unknown = False
    executions = _execution_counts(model)
    for index, graph in enumerate(model.subgraphs):
        for op in graph.operators or []:
            name = op_name(model, op)
            op_counts[name] += 1
            op_macs, times = _macs(name, op, graph), executions[index]
            unknown = unknown or (op_macs is not None and (times is None or op_macs < 0))
            if op_macs is not None and times is not None and op_macs >= 0:
                macs[name] = macs.get(name, 0) + op_macs * times
                mac_outputs += _elements(graph.tensors[op.outputs[0]]) * times
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    weights = [tensor for tensor in tensors if is_weight(model, tensor)]
    activations = [tensor for tensor in tensors if model.buffers[tensor.buffer].data is None]
    return ModelDescription(
        format="tflite",
        signature=_signature(model),
        ops=tuple(OpCount(name, count, macs.get(name)) for name, count in op_counts.most_common()),
        tensors=len(tensors),
        parameters=sum(_elements(tensor) for tensor in weights),
        weight_bytes=int(sum(_elements(tensor) * _dtype(tensor)[1] for tensor in weights)),
        macs=None if unknown else sum(macs.values()),
        activation_bytes=int(sum(_elements(tensor) * _dtype(tensor)[1] for tensor in activations)),
        quantized_tensors=sum(_spec(tensor, "").quantization is not None for tensor in tensors),
        metadata={"description": text(model.description or ""), "version": str(model.version)},
        mac_outputs=None if unknown else mac_outputs,
    )


def is_weight(model: Any, tensor: Any) -> bool:
    """Return whether a tensor is a learned constant.

    Args:
        model: The `ModelT`.
        tensor: The `TensorT`.
    """
    # Shapes and axes are constants too, but integers without a scale.
    buffer = model.buffers[tensor.buffer]
    constant = (buffer.data is not None and len(buffer.data) > 0) or bool(buffer.offset and buffer.offset > 1)
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    return constant and (_dtype(tensor)[0].startswith("float") or bool(quantized and len(tensor.quantization.scale)))


def main_graph(model: Any) -> Any:
    """Return the subgraph that an inference runs.

    Args:
        model: The `ModelT`.

    Returns:
        The subgraph of the first signature, or the first one if there is no signature.
    """
    return model.subgraphs[model.signatureDefs[0].subgraphIndex if model.signatureDefs else 0]


def tensor_lifetimes(path: Path) -> tuple[TensorLifetime, ...]:
    """Return when each tensor of the main graph is computed and last read, by indices of operators.

    Inputs exist from the first operator on, outputs up to the last one. Tensors inside of a loop are not listed.

    Args:
        path: The model file.

    Returns:
        Size in bytes and lifetime of each tensor, in the order of computation.

    Raises:
        InputError: The file is empty, truncated or no flatbuffer of TFLite.
    """
    graph = main_graph(parse(path))
    operators = graph.operators or []
    first = {int(index): 0 for index in graph.inputs}
    last = dict(first)
    for step, op in enumerate(operators):
        for index in op.outputs:
            first.setdefault(int(index), step)
            last[int(index)] = step
        for index in op.inputs:
            if int(index) in first:  # constants are in no list, and take no memory of the arena
                last[int(index)] = step
    for index in graph.outputs:
        last[int(index)] = len(operators) - 1
    return tuple(_lifetime(graph.tensors[index], first[index], last[index]) for index in first)


def _lifetime(tensor: Any, first: int, last: int) -> TensorLifetime:
    return TensorLifetime(text(tensor.name), int(_elements(tensor) * _dtype(tensor)[1]), first, last)

"""Reading a .tflite flatbuffer without running it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import LITERT, require
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.values.specs import Dim, ModelDescription, OpCount, Quantization, Signature, TensorSpec

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


def _schema() -> Any:
    require((LITERT,), "reading .tflite files")
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


@functools.cache
def _enum_names(cls: Any) -> dict[int, str]:
    return {value: name for name, value in vars(cls).items() if isinstance(value, int)}


def parse(path: Path) -> Any:
    """The flatbuffer as the schema's object tree. Raises InputError when it is empty, truncated or something else."""
    content = read_bytes(path, "model file")
    if content[4:8] != b"TFL3":
        raise malformed_file_error(path, "TensorFlow Lite", "the identifier TFL3 is missing")
    schema = _schema()
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        _check_complete(model, len(content))
        return model
    except Exception as error:  # a damaged flatbuffer raises struct, index, type and value errors alike
        raise malformed_file_error(path, "TensorFlow Lite", "its tables point outside the file") from error


def _check_complete(model: Any, size: int) -> None:
    """A file cut off in the middle may still unpack: the tables stand before the weights."""
    if not model.subgraphs or not model.subgraphs[0].tensors:
        raise ValueError("no graph")
    for buffer in model.buffers:
        if buffer.offset and buffer.size and buffer.offset > 1 and buffer.offset + buffer.size > size:
            raise ValueError("buffer outside the file")
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        data = model.buffers[tensor.buffer].data
        wanted = _elements(tensor) * _dtype(tensor)[1]
        if data is not None and len(data) and len(data) < int(wanted) and tensor.sparsity is None:
            raise ValueError("buffer too short")


def rename_signature(content: bytes, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> bytes:
    """The flatbuffer with other names of its signature's inputs and outputs: old name -> new name."""
    model = _schema().ModelT.InitFromPackedBuf(content, 0)
    for definition in model.signatureDefs:
        for items, names in ((definition.inputs, inputs), (definition.outputs, outputs)):
            for item in items:
                item.name = names.get(text(item.name), text(item.name))
    return pack(model)


def pack(model: Any) -> bytes:
    """The flatbuffer of the schema's object tree."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def inline_buffers(content: bytes) -> bytes:
    """The flatbuffer with its weights inside.

    Buffers may stand behind the flatbuffer, by offset and size: that is how files of more than 2 GB are made, and how
    some tools write any file. LiteRT reads them; TensorFlow Lite Micro takes such weights for tensors to be computed,
    and runs on whatever lies in the arena.
    """
    model = _schema().ModelT.InitFromPackedBuf(content, 0)
    outside = [buffer for buffer in model.buffers if buffer.offset and buffer.offset > 1]
    if not outside or len(content) >= 1 << 31:
        return content
    for buffer in outside:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return pack(model)


def _dtype(tensor: Any) -> tuple[str, float]:
    name = _enum_names(_schema().TensorType).get(tensor.type, "UNKNOWN")
    return _DTYPES.get(name, (name.lower(), 1.0))


def _elements(tensor: Any) -> int:
    shape = tensor.shape if tensor.shape is not None else []
    return int(np.prod([abs(int(dim)) for dim in shape])) if len(shape) else 1


def _spec(tensor: Any, name: str) -> TensorSpec:
    symbolic = tensor.shapeSignature is not None and len(tensor.shapeSignature) > 0
    found = tensor.shapeSignature if symbolic else tensor.shape
    dims: tuple[Dim, ...] = tuple(
        int(dim) if dim >= 0 else ("batch" if index == 0 else f"dim{index}")
        for index, dim in enumerate([] if found is None else found)
    )
    quantization = None
    parameters = tensor.quantization
    if parameters is not None and parameters.scale is not None and len(parameters.scale):
        axis = int(parameters.quantizedDimension) if len(parameters.scale) > 1 else None
        found_zeros = parameters.zeroPoint if parameters.zeroPoint is not None else [0] * len(parameters.scale)
        zero_points = tuple(int(zero) for zero in found_zeros)
        quantization = Quantization(tuple(float(scale) for scale in parameters.scale), zero_points, axis)
    return TensorSpec(name, dims, _dtype(tensor)[0], None, quantization)


def text(value: Any) -> str:
    """A string of the flatbuffer."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _signature(model: Any) -> Signature:
    graph = model.subgraphs[0]
    if model.signatureDefs:
        first = model.signatureDefs[0]
        graph = model.subgraphs[first.subgraphIndex]
        return Signature(
            tuple(_spec(graph.tensors[item.tensorIndex], text(item.name)) for item in first.inputs),
            tuple(_spec(graph.tensors[item.tensorIndex], text(item.name)) for item in first.outputs),
        )
    return Signature(
        tuple(_spec(graph.tensors[index], text(graph.tensors[index].name)) for index in graph.inputs),
        tuple(_spec(graph.tensors[index], text(graph.tensors[index].name)) for index in graph.outputs),
    )


def read_signature(path: Path) -> Signature:
    """Inputs and outputs of the file's first signature, by the names that it gives them."""
    return _signature(parse(path))


def _macs(name: str, op: Any, graph: Any) -> int | None:
    """Multiply-accumulates of one inference of one operator; None for operators that multiply nothing by weights."""
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
        return output * int(tensors[0].shape[-2 if transposed else -1])
    return None


def op_name(model: Any, op: Any) -> str:
    """`CONV_2D`; the custom code of an operator that is not TFLite's own."""
    code = model.operatorCodes[op.opcodeIndex]
    if code.customCode:
        return text(code.customCode)
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)  # schema 3a moved the field when it grew
    return _enum_names(_schema().BuiltinOperator).get(builtin, str(builtin))


def _runs(model: Any) -> dict[int, int | None]:
    """How often each subgraph runs in one inference: once, or as often as its loop goes round; None where unknown."""
    runs: dict[int, int | None] = dict.fromkeys(range(len(model.subgraphs)), 1)
    for index, graph in enumerate(model.subgraphs):  # a loop's subgraphs stand behind the one that holds it
        for op in graph.operators or []:
            if op_name(model, op) == "WHILE":
                around = _rounds(model, graph, op)
                outer = runs[index]
                times = None if around is None or outer is None else around * outer
                runs[int(op.builtinOptions.condSubgraphIndex)] = times
                runs[int(op.builtinOptions.bodySubgraphIndex)] = times
    return runs


def _rounds(model: Any, graph: Any, loop: Any) -> int | None:
    """The rounds of a loop that counts from 0 while it is less than a constant, as recurrent layers are written."""
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
        elif name != "LOGICAL_AND":
            return None
    return min(limits, default=None)


def _scalar(model: Any, tensor: Any) -> int | None:
    """The value of a constant of one int32."""
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) != 4 or _dtype(tensor)[0] != "int32":
        return None
    return int.from_bytes(bytes(bytearray(data)), "little", signed=True)


def describe(path: Path) -> ModelDescription:
    """Operators, tensors, parameters, multiply-accumulates and quantization of all subgraphs.

    Multiply-accumulates of a loop's body count as often as it runs; where that is not known, they are not.
    """
    model = parse(path)
    counts: Counter[str] = Counter()
    macs: dict[str, int] = {}
    written = 0
    unknown = False
    runs = _runs(model)
    for index, graph in enumerate(model.subgraphs):
        for op in graph.operators or []:
            name = op_name(model, op)
            counts[name] += 1
            count, times = _macs(name, op, graph), runs[index]
            unknown = unknown or (count is not None and times is None)
            if count is not None and times is not None:
                macs[name] = macs.get(name, 0) + count * times
                written += _elements(graph.tensors[op.outputs[0]]) * times
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    weights = [tensor for tensor in tensors if _is_weight(model, tensor)]
    activations = [tensor for tensor in tensors if model.buffers[tensor.buffer].data is None]
    return ModelDescription(
        format="tflite",
        signature=_signature(model),
        ops=tuple(OpCount(name, count, macs.get(name)) for name, count in counts.most_common()),
        tensors=len(tensors),
        parameters=sum(_elements(tensor) for tensor in weights),
        weight_bytes=int(sum(_elements(tensor) * _dtype(tensor)[1] for tensor in weights)),
        macs=None if unknown else sum(macs.values()),
        activation_bytes=int(sum(_elements(tensor) * _dtype(tensor)[1] for tensor in activations)),
        quantized_tensors=sum(_spec(tensor, "").quantization is not None for tensor in tensors),
        metadata={"description": text(model.description or ""), "version": str(model.version)},
        mac_outputs=None if unknown else written,
    )


def _is_weight(model: Any, tensor: Any) -> bool:
    """A constant that was learned, and not a shape or an axis: those are integers without a scale."""
    buffer = model.buffers[tensor.buffer]
    constant = (buffer.data is not None and len(buffer.data) > 0) or bool(buffer.offset and buffer.offset > 1)
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    return constant and (_dtype(tensor)[0].startswith("float") or bool(quantized and len(tensor.quantization.scale)))


def main_graph(model: Any) -> Any:
    """The subgraph that an inference runs: that of the first signature."""
    return model.subgraphs[model.signatureDefs[0].subgraphIndex if model.signatureDefs else 0]


def tensor_lifetimes(path: Path) -> tuple[TensorLifetime, ...]:
    """When each tensor of the main graph is computed and last read: inputs from the start, outputs to the end.

    A loop's own tensors live within its operator and are not among them.
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
            if int(index) in first:
                last[int(index)] = step
    for index in graph.outputs:
        last[int(index)] = len(operators) - 1
    return tuple(_lifetime(graph.tensors[index], first[index], last[index]) for index in first)


def _lifetime(tensor: Any, first: int, last: int) -> TensorLifetime:
    return TensorLifetime(text(tensor.name), int(_elements(tensor) * _dtype(tensor)[1]), first, last)

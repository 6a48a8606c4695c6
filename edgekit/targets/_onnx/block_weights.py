"""int4 weights in blocks, as ONNX Runtime's MatMulNBits and GatherBlockQuantized read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.targets._onnx.nested_graphs import graphs

# Not onnxruntime.quantization.matmul_nbits_quantizer (1.32): it leaves Gemm in float, which most fully connected layers
# of PyTorch are, and sets up Python's logging when it is imported.

DOMAIN = "com.microsoft"
MATMUL, GATHER = "MatMulNBits", "GatherBlockQuantized"
BLOCK = 32
# The smallest block that both operators take, for matrices of no more rows.
_SMALLEST_BLOCK = 16
_LEVELS = 16
# Tensors of 4 bits exist from this version of the file format on.
_IR_VERSION = 10
# Values that are quantized at a time, which bounds the memory of copies.
_CHUNK = 2**22
# Operators with weights that stay float.
_FLOAT = ("Conv", "ConvTranspose", "LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class BlockWeights:
    """A matrix in blocks of one scale and one zero point along its rows: value = scale * (code - zero point).

    Attributes:
        codes: The levels, 0 to 15, uint8 of shape (rows, blocks, block); columns are filled up with the zero point.
        scales: float32 of shape (rows, blocks).
        zero_points: 0 to 15, uint8 of shape (rows, blocks).
    """

    codes: Array
    scales: Array
    zero_points: Array


def quantize_blocks(matrix: Array, block: int) -> BlockWeights:
    """Quantize a matrix to 4 bits, each block by its range.

    Args:
        matrix: float32 of shape (rows, columns).
        block: The number of neighbours in a row that share a scale.

    Returns:
        Codes, scales and zero points.
    """
    rows, columns = matrix.shape
    blocks = -(-columns // block)
    padded = np.zeros((rows, blocks * block), np.float32)
    padded[:, :columns] = matrix
    chunk = max(1, _CHUNK // padded.shape[1])
    parts = [_quantize(padded[at : at + chunk].reshape(-1, blocks, block)) for at in range(0, rows, chunk)]
    return BlockWeights(*(np.concatenate(group) for group in zip(*parts, strict=True)))


def _quantize(values: Array) -> tuple[Array, Array, Array]:
    """Return codes, scales and zero points of values of shape (rows, blocks, block)."""
    # Zero is a level: it is what padding and pruned weights are. Ranges that clip the ends of a block, searched for the
    # smallest squared error, are better by 0.2 dB only.
    low = np.minimum(values.min(axis=2, keepdims=True), 0)
    scale = (np.maximum(values.max(axis=2, keepdims=True), 0) - low) / np.float32(_LEVELS - 1)
    scale[scale == 0] = 1
    zero_point = np.clip(np.rint(-low / scale), 0, _LEVELS - 1)
    codes = np.clip(np.rint(values / scale) + zero_point, 0, _LEVELS - 1)
    return codes.astype(np.uint8), scale[..., 0], zero_point[..., 0].astype(np.uint8)


def quantize(model: Any) -> tuple[str, ...]:
    """Give the constant matrices of MatMul, Gemm and Gather nodes int4 weights.

    Args:
        model: The `ModelProto` in float32, which is edited.

    Returns:
        Notes on weights that stay float.

    Raises:
        InputError: The graph has no such matrix.
    """
    edit = _Edit(model)
    for node in list(model.graph.node):
        edit.quantize(node)
    if not edit.quantized:
        raise InputError(
            "this network has nothing to quantize at onnx:int4, which stores the constant matrices of MatMul, Gemm and"
            " Gather in int4"
        )
    edit.finish()
    kept = sorted({node.op_type for node in model.graph.node if node.op_type in _FLOAT and edit.has_weights(node)})
    if not kept:
        return ()
    floats = edit.float_values()
    return (f"int4 has no {', '.join(kept)}: {floats:,} of {edit.quantized + floats:,} weights stay float32",)


def matrix_shape(node: Any) -> tuple[int, int]:
    """Return the shape (inputs, outputs) of the matrix that a MatMulNBits node multiplies by."""
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    return sizes.get("K", 0), sizes.get("N", 0)


def packed_values(graph: Any) -> dict[str, int]:
    """Return the number of weights in each constant of MatMulNBits, which stores several in a byte.

    Args:
        graph: The `GraphProto`.

    Returns:
        Name of the constant -> number of weights.
    """
    nodes = [node for node in graph.node if node.op_type == MATMUL and node.domain == DOMAIN]
    return {node.input[1]: int(np.prod(matrix_shape(node))) for node in nodes if len(node.input) > 1}


class _Edit:
    """An edit of one graph."""

    def __init__(self, model: Any) -> None:
        self._model, self._graph = model, model.graph
        inputs = {value.name for value in model.graph.input}
        outputs = {value.name for value in model.graph.output}
        self._constants = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in inputs | outputs
        }
        self._stored: dict[tuple[Any, ...], list[str]] = {}
        self.quantized = 0  # values

    def quantize(self, node: Any) -> None:
        """Replace a node whose matrix is constant and gets smaller."""
        if node.domain not in ("", "ai.onnx"):
            return
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "MatMul":
            self._matmul(node, transposed=False, factor=1.0)
        elif node.op_type == "Gemm":
            number = {name: attributes[name].f if name in attributes else 1.0 for name in ("alpha", "beta")}
            flag = {name: name in attributes and bool(attributes[name].i) for name in ("transA", "transB")}
            has_bias = len(node.input) > 2 and bool(node.input[2])
            if not flag["transA"] and (number["beta"] == 1.0 or not has_bias):
                self._matmul(node, transposed=flag["transB"], factor=number["alpha"])
        elif node.op_type == "Gather" and not ("axis" in attributes and attributes["axis"].i):
            self._gather(node)

    def _matrix(self, name: str) -> Array | None:
        """Return a constant float32 matrix, or None for anything else."""
        from onnx import TensorProto, numpy_helper

        tensor = self._constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or 0 in tensor.dims:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def _matmul(self, node: Any, *, transposed: bool, factor: float) -> None:
        name = node.input[1]
        matrix = self._matrix(name)
        if matrix is None:
            return
        matrix = np.multiply(matrix if transposed else matrix.T, np.float32(factor))  # (outputs N, inputs K)
        block = _block(matrix)
        if block is None:
            return
        key = (name, MATMUL, transposed, factor)
        if key not in self._stored:
            weights = quantize_blocks(matrix, block)
            points = weights.zero_points
            if points.shape[1] % 2:  # each row of zero points begins with a byte of its own
                points = np.pad(points, ((0, 0), (0, 1)))
            self._stored[key] = [
                self._add(f"{name}_int4", _packed(weights.codes)),
                self._add(f"{name}_scale", weights.scales.reshape(-1)),
                self._add(f"{name}_zero_point", _packed(points).reshape(-1)),
            ]
            self.quantized += matrix.size
        sizes = {"K": matrix.shape[1], "N": matrix.shape[0], "bits": 4, "block_size": block}
        self._replace(node, MATMUL, [node.input[0], *self._stored[key]], sizes)

    def _gather(self, node: Any) -> None:
        name = node.input[0]
        matrix = self._matrix(name)
        block = None if matrix is None else _block(matrix)
        if matrix is None or block is None:
            return
        key = (name, GATHER)
        if key not in self._stored:
            weights = quantize_blocks(matrix, block)
            codes = weights.codes.reshape(len(matrix), -1)[:, : matrix.shape[1]]
            self._stored[key] = [
                self._add_uint4(f"{name}_int4", codes),
                self._add(f"{name}_scale", weights.scales),
                self._add_uint4(f"{name}_zero_point", weights.zero_points),
            ]
            self.quantized += matrix.size
        codes_name, *others = self._stored[key]
        axes = {"gather_axis": 0, "quantize_axis": 1, "block_size": block}
        self._replace(node, GATHER, [codes_name, node.input[1], *others], axes)

    def _replace(self, node: Any, operator: str, inputs: list[str], attributes: dict[str, int]) -> None:
        """Let a node be another operator; the bias of a Gemm becomes a node of its own."""
        from onnx import helper

        # Not the operator's own bias, which ONNX Runtime has from 1.21 on only.
        bias = [name for name in node.input[2:] if name] if node.op_type == "Gemm" else []
        if bias:
            product = self._unused(f"{node.output[0]}_product")
            adding = helper.make_node("Add", [product, bias[0]], [node.output[0]], name=f"{node.name}_bias")
            self._graph.node.insert(list(self._graph.node).index(node) + 1, adding)
            node.output[0] = product
        node.op_type, node.domain = operator, DOMAIN
        node.input[:] = inputs
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())

    def _add(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(np.ascontiguousarray(array), self._unused(name))
        self._graph.initializer.append(tensor)
        return str(tensor.name)

    def _add_uint4(self, name: str, codes: Array) -> str:
        from onnx import TensorProto, helper

        flat = codes.reshape(-1)
        content = _packed(np.pad(flat, (0, flat.size % 2))).tobytes()
        tensor = helper.make_tensor(self._unused(name), TensorProto.UINT4, codes.shape, content, raw=True)
        self._graph.initializer.append(tensor)
        return str(tensor.name)

    def _unused(self, name: str) -> str:
        used = {tensor.name for tensor in self._graph.initializer}
        used.update(value for node in self._graph.node for value in (*node.input, *node.output))
        used.update(value.name for value in (*self._graph.input, *self._graph.output))
        while name in used:
            name += "_"
        return name

    def finish(self) -> None:
        """Remove the float matrices that no node reads any more, and declare the operators' domain and types."""
        from onnx import helper

        read = {name for graph in graphs(self._graph) for node in graph.node for name in node.input}
        outputs = {value.name for value in self._graph.output}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read | outputs]
        copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
        del self._graph.initializer[:]
        self._graph.initializer.extend(copies)
        if all(imported.domain != DOMAIN for imported in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        self._model.ir_version = max(self._model.ir_version, _IR_VERSION)

    def has_weights(self, node: Any) -> bool:
        """Return whether a node reads a constant of floating-point numbers."""
        return any(name in self._constants for name in node.input[1:])

    def float_values(self) -> int:
        """Return the number of learned float values that are left, biases and other vectors aside."""
        from onnx import TensorProto

        sizes: Iterable[int] = (
            int(np.prod(tensor.dims))
            for tensor in self._graph.initializer
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and tensor.name in self._constants
        )
        return sum(sizes)


def _block(matrix: Array) -> int | None:
    """Return the block of a matrix of shape (rows, columns), or None if blocks would not make it smaller."""
    rows, columns = matrix.shape
    block = BLOCK if columns > _SMALLEST_BLOCK else _SMALLEST_BLOCK
    blocks = -(-columns // block)
    packed = rows * (blocks * (block // 2 + 4) + -(-blocks // 2))
    return block if packed < matrix.size * 4 else None


def _packed(codes: Array) -> Array:
    """Return neighbours along the last axis, which has an even length, as the low and the high half of a byte."""
    packed: Array = np.bitwise_or(codes[..., ::2], np.left_shift(codes[..., 1::2], 4))
    return packed

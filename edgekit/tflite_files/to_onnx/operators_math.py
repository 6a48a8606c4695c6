"""Arithmetic, activations, comparisons and reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.tflite_files.to_onnx.builder import TO_FIRST, LiteOperator, Untranslatable, clip, translates

# Operators of one input that ONNX has too, and that take either layout.
_UNARY = {
    "ABS": "Abs", "CEIL": "Ceil", "COS": "Cos", "EXP": "Exp", "FLOOR": "Floor", "LOG": "Log", "LOGICAL_NOT": "Not",
    "LOGISTIC": "Sigmoid", "NEG": "Neg", "RELU": "Relu", "ROUND": "Round", "SIGN": "Sign", "SIN": "Sin", "SQRT": "Sqrt",
    "TANH": "Tanh", "HARD_SWISH": "HardSwish", "ELU": "Elu",
}  # fmt: skip
_BINARY = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max", "MINIMUM": "Min", "POW": "Pow",
    "EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "BITWISE_XOR": "BitwiseXor",
}  # fmt: skip
_LIMITS = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
_REDUCTIONS = {
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd", "REDUCE_ANY": "ReduceMax", "REDUCE_ALL": "ReduceMin",
}  # fmt: skip
# The smallest norm that TFLite divides by.
_L2_EPSILON = 1e-6


def elementwise(operation: LiteOperator, compute: Callable[..., str], positions: Sequence[int]) -> None:
    """Translate an operator that computes each value by itself, in the layout in which its images are at hand.

    Args:
        operation: The operator.
        compute: Returns the output of the inputs' names.
        positions: The inputs.
    """
    names = _channels_first(operation, positions)
    if names is not None:
        operation.set_image(operation.activated(compute(*names)))
    else:
        operation.set(operation.activated(compute(*(operation.input(position) for position in positions))))


def _channels_first(operation: LiteOperator, positions: Sequence[int]) -> list[str] | None:
    """Return the inputs with channels first, or None if none is at hand so, or one cannot be."""
    if not any(operation.is_first(position) for position in positions) or len(operation.output_shape()) != 4:
        return None
    names = []
    for position in positions:
        constant = operation.const(position)
        if constant is None and operation.rank(position) != 4:
            return None
        names.append(operation.image(position) if constant is None else _constant_first(operation, position, constant))
    return names


def _constant_first(operation: LiteOperator, position: int, constant: Array) -> str:
    """Return a constant that broadcasts against images with channels first as it did with channels last."""
    if constant.ndim == 0:
        return operation.input(position)
    return operation.constant(constant.reshape((1,) * (4 - constant.ndim) + constant.shape).transpose(TO_FIRST))


@translates(*_UNARY)
def _unary(operation: LiteOperator) -> None:
    elementwise(operation, lambda x: operation.emit(_UNARY[operation.name], x), [0])


@translates(*_LIMITS)
def _limited(operation: LiteOperator) -> None:
    elementwise(operation, lambda x: clip(operation, x, *_LIMITS[operation.name]), [0])


@translates("LEAKY_RELU")
def _leaky_relu(operation: LiteOperator) -> None:
    elementwise(operation, lambda x: operation.emit("LeakyRelu", x, alpha=float(operation.option("alpha", 0.0))), [0])


@translates("GELU")
def _gelu(operation: LiteOperator) -> None:
    approximate = "tanh" if operation.option("approximate", False) else "none"
    elementwise(operation, lambda x: operation.emit("Gelu", x, approximate=approximate), [0])


@translates("RSQRT")
def _rsqrt(operation: LiteOperator) -> None:
    elementwise(operation, lambda x: operation.emit("Reciprocal", operation.emit("Sqrt", x)), [0])


@translates("SQUARE")
def _square(operation: LiteOperator) -> None:
    elementwise(operation, lambda x: operation.emit("Mul", x, x), [0])


@translates("PRELU")
def _prelu(operation: LiteOperator) -> None:
    elementwise(operation, lambda x, slope: operation.emit("PRelu", x, slope), [0, 1])


@translates(*_BINARY)
def _binary(operation: LiteOperator) -> None:
    elementwise(operation, lambda a, b: operation.emit(_BINARY[operation.name], a, b), [0, 1])


@translates("NOT_EQUAL")
def _not_equal(operation: LiteOperator) -> None:
    elementwise(operation, lambda a, b: operation.emit("Not", operation.emit("Equal", a, b)), [0, 1])


@translates("SQUARED_DIFFERENCE")
def _squared_difference(operation: LiteOperator) -> None:
    def compute(a: str, b: str) -> str:
        difference = operation.emit("Sub", a, b)
        return operation.emit("Mul", difference, difference)

    elementwise(operation, compute, [0, 1])


@translates("FLOOR_DIV")
def _floor_div(operation: LiteOperator) -> None:
    def compute(a: str, b: str) -> str:
        if operation.is_float(0):
            return operation.emit("Floor", operation.emit("Div", a, b))
        # ONNX rounds quotients of integers to zero.
        wide = operation.emit("Div", operation.cast(a, "float64"), operation.cast(b, "float64"))
        return operation.cast(operation.emit("Floor", wide), operation.output_dtype())

    elementwise(operation, compute, [0, 1])


@translates("FLOOR_MOD")
def _floor_mod(operation: LiteOperator) -> None:
    def compute(a: str, b: str) -> str:
        if not operation.is_float(0):
            return operation.emit("Mod", a, b)
        quotient = operation.emit("Floor", operation.emit("Div", a, b))
        return operation.emit("Sub", a, operation.emit("Mul", quotient, b))

    elementwise(operation, compute, [0, 1])


@translates("ADD_N")
def _add_n(operation: LiteOperator) -> None:
    elementwise(operation, lambda *terms: operation.emit("Sum", *terms), range(operation.inputs))


@translates("SELECT", "SELECT_V2")
def _select(operation: LiteOperator) -> None:
    rank, target = operation.rank(0), len(operation.output_shape())
    if operation.name == "SELECT" and rank == 1 and target > 1:  # one condition for each row of the first dimension
        shape = operation.constant([-1] + [1] * (target - 1), "int64")
        condition = operation.emit("Reshape", operation.input(0), shape)
        operation.set(operation.emit("Where", condition, operation.input(1), operation.input(2)))
        return
    elementwise(operation, lambda *inputs: operation.emit("Where", *inputs), [0, 1, 2])


@translates("CAST")
def _cast(operation: LiteOperator) -> None:
    elementwise(operation, lambda x: operation.cast(x, operation.output_dtype()), [0])


@translates("SOFTMAX")
def _softmax(operation: LiteOperator) -> None:
    beta = float(operation.option("beta", 1.0))
    x = operation.input(0)
    # TFLite scales what enters the exponential, not the probabilities.
    x = x if beta == 1.0 else operation.emit("Mul", x, operation.constant(beta, "float32"))
    operation.set(operation.emit("Softmax", x, axis=-1))


@translates("LOG_SOFTMAX")
def _log_softmax(operation: LiteOperator) -> None:
    operation.set(operation.emit("LogSoftmax", operation.input(0), axis=-1))


@translates("L2_NORMALIZATION")
def _l2_normalization(operation: LiteOperator) -> None:
    axes = operation.constant([-1], "int64")
    norm = operation.emit("ReduceL2", operation.input(0), axes, keepdims=1)
    bounded = operation.emit("Max", norm, operation.constant(_L2_EPSILON, "float32"))
    operation.set(operation.activated(operation.emit("Div", operation.input(0), bounded)))


@translates(*_REDUCTIONS)
def _reduction(operation: LiteOperator) -> None:
    rank, keep = operation.rank(0), bool(operation.option("keepDims", False))
    axes = sorted(axis % rank for axis in operation.numbers(1, "axes")) if rank else []
    first = rank == 4 and operation.is_first(0) and (keep or axes == [1, 2])
    data = operation.image(0) if first else operation.input(0)
    is_bool = operation.dtype(0) == "bool"
    data = operation.cast(data, "int32") if is_bool else data
    # The places of the axes where channels are first.
    places = sorted(TO_FIRST.index(axis) for axis in axes) if first else axes
    if places:
        name = operation.emit(
            _REDUCTIONS[operation.name], data, operation.constant(places, "int64"), keepdims=int(keep)
        )
    else:  # without axes ONNX reduces all of them, TFLite none
        name = operation.emit("Identity", data)
    name = operation.cast(name, "bool") if is_bool else name
    if first and keep:
        operation.set_image(name)
    else:
        operation.set(name)


@translates("ARG_MAX", "ARG_MIN")
def _arg_extreme(operation: LiteOperator) -> None:
    (axis,) = operation.numbers(1, "axes")
    op_type = "ArgMax" if operation.name == "ARG_MAX" else "ArgMin"
    found = operation.emit(op_type, operation.input(0), axis=axis, keepdims=0)
    operation.set(operation.cast(found, operation.output_dtype()))


@translates("CUMSUM")
def _cumsum(operation: LiteOperator) -> None:
    exclusive, reverse = (int(bool(operation.option(name, False))) for name in ("exclusive", "reverse"))
    axis = operation.constant(operation.numbers(1, "axes")[0], "int64")
    operation.set(operation.emit("CumSum", operation.input(0), axis, exclusive=exclusive, reverse=reverse))


@translates("TOPK_V2")
def _top_k(operation: LiteOperator) -> None:
    count = operation.constant(operation.numbers(1, "sizes"), "int64")
    values, indices = operation.emit_many("TopK", [operation.input(0), count], 2, axis=-1)
    operation.set(values)
    if len(operation.op.outputs) > 1:
        operation.set(operation.cast(indices, operation.output_dtype(1)), 1)


@translates("FULLY_CONNECTED")
def _fully_connected(operation: LiteOperator) -> None:
    if int(operation.option("weightsFormat", 0)):
        raise Untranslatable("with shuffled weights")
    weights, rank = operation.const(1), operation.rank(0)
    keep = bool(operation.option("keepNumDims", False)) and rank > 2
    x = operation.input(0)
    depth = operation.shape(1)[1]
    if rank != 2 and not keep:
        x = operation.emit("Reshape", x, operation.constant([-1, depth], "int64"))
    if weights is not None and not keep:
        bias = [operation.input(2)] if operation.has(2) else []
        operation.set(operation.activated(operation.emit("Gemm", x, operation.input(1), *bias, transB=1)))
        return
    if weights is not None:
        matrix = operation.constant(np.ascontiguousarray(weights.T))
    else:
        matrix = operation.emit("Transpose", operation.input(1), perm=(1, 0))
    result = operation.emit("MatMul", x, matrix)
    if operation.has(2):
        result = operation.emit("Add", result, operation.input(2))
    operation.set(operation.activated(result))


@translates("BATCH_MATMUL")
def _batch_matmul(operation: LiteOperator) -> None:
    names = []
    for position, option in ((0, "adjX"), (1, "adjY")):
        name, rank = operation.input(position), operation.rank(position)
        if operation.option(option, False):
            order = (*range(rank - 2), rank - 1, rank - 2)
            name = operation.emit("Transpose", name, perm=order)
        names.append(name)
    operation.set(operation.emit("MatMul", *names))

"""Elementwise operators: arithmetic, comparisons, logic, activations and casts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from edgekit.sources.bridges._onnx.registry import Call, GraphStep, operator, refuses
from edgekit.sources.bridges._onnx.values import torch_dtype

# Operators that PyTorch has with the same arguments, by ONNX's name. Det is not elementwise, but belongs here too.
_NAMES = {
    **{name: name.lower() for name in ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos")},
    **{name: name.lower() for name in ("Cosh", "Erf", "Exp", "Floor", "Log", "Reciprocal", "Relu", "Round", "Sigmoid")},
    **{name: name.lower() for name in ("Sign", "Sin", "Sinh", "Sqrt", "Tan", "Tanh", "IsNaN", "Det", "Add")},
    "Sub": "sub",
    "Mul": "mul",
    "Neg": "neg",
    "Not": "logical_not",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "BitwiseNot": "bitwise_not",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Where": "where",
}


def _plain(name: str) -> Callable[[Call], Any]:
    """Return an operator that calls torch's function of that name."""

    def compute(call: Call) -> Any:
        import torch

        return getattr(torch, name)(*_computable(call.tensors()))

    return compute


def _computable(tensors: list[Any]) -> list[Any]:
    """Convert unsigned integers, which torch can store, but not compute with, to wider signed ones."""
    import torch

    # uint64 has no wider type: values from 2^63 on wrap.
    wider = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
    return [tensor.to(wider[tensor.dtype]) if tensor.dtype in wider else tensor for tensor in tensors]


def _same_type(function: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Convert the operator's result to the type of its first input, which ONNX keeps and `_computable` may widen."""

    def compute(call: Call) -> Any:
        result = function(call)
        dtype = call.tensor(0).dtype
        return result if result.dtype == dtype else result.to(dtype)

    return compute


# Operators whose result has another type than their first input.
_PREDICATES = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "Where"}
for _op_type, _name in _NAMES.items():
    operator(_op_type)(_plain(_name) if _op_type in _PREDICATES else _same_type(_plain(_name)))


@operator("Div")
@_same_type
def _div(call: Call) -> Any:
    import torch

    # Integer division truncates towards zero (stated since opset 14).
    left, right = _computable(call.tensors())
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


@operator("Mod")
@_same_type
def _mod(call: Call) -> Any:
    import torch

    # fmod=1: the sign of the dividend, as in C; fmod=0: the sign of the divisor, as in Python.
    left, right = _computable(call.tensors())
    return torch.fmod(left, right) if call.attribute("fmod", 0) else torch.remainder(left, right)


@operator("Pow")
@_same_type
def _pow(call: Call) -> Any:
    import torch

    exponent = call.host(1)
    if exponent is not None and exponent.size == 1 and exponent.ndim == 0:
        return call.tensor(0) ** exponent.item()  # converters recognize a square by its scalar exponent
    return torch.pow(*call.tensors())


@operator("BitShift")
@_same_type
def _bit_shift(call: Call) -> Any:
    import torch

    left, right = _computable(call.tensors())
    shift = torch.bitwise_left_shift if call.attribute("direction") == "LEFT" else torch.bitwise_right_shift
    return shift(left, right)


@operator("Max", "Min")
@_same_type
def _extreme(call: Call) -> Any:
    import torch

    function = torch.maximum if call.step.op_type == "Max" else torch.minimum
    return functools.reduce(function, _computable(call.tensors()))


@operator("Sum")
def _sum(call: Call) -> Any:
    return functools.reduce(lambda left, right: left + right, call.tensors())


@operator("Mean")
def _mean(call: Call) -> Any:
    return _sum(call) / len(call.values)


@operator("Identity")
def _identity(call: Call) -> Any:
    return call.values[0]


@operator("Constant")
def _constant(call: Call) -> Any:
    import numpy as np

    # Exactly one attribute holds the value: `value`, a tensor, or a typed shorthand (since opset 12).
    ((name, value),) = call.step.attributes.items()
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.array(value, types[name]) if name in types else value


@operator("Clip")
@_same_type
def _clip(call: Call) -> Any:
    import torch.nn.functional as F

    x = call.tensor(0)
    if call.version < 11:  # bounds are attributes until opset 10, optional inputs from 11 on
        low, high = call.attribute("min"), call.attribute("max")
    elif any(call.has(index) and call.host(index) is None for index in (1, 2)):
        return _clip_by_tensors(x, call.maybe(1), call.maybe(2))
    else:
        low, high = call.number(1), call.number(2)
    # Activations by their own names, which quantizers fuse with the operator before them; clamp is not among these.
    if (low, high) == (0, 6):
        return F.relu6(x)
    # hardtanh refuses crossed bounds, for which ONNX (since opset 13) wants the upper one everywhere; clamp gives that.
    if low is not None and high is not None and low <= high and x.is_floating_point():
        return F.hardtanh(x, float(low), float(high))
    if low is None and high is None:
        return x
    return F.relu(x) if (low, high) == (0, None) else _computable([x])[0].clamp(low, high)


def _clip_by_tensors(x: Any, low: Any, high: Any) -> Any:
    """Clip to bounds that are known at run time only."""
    import torch

    x = _computable([x])[0]
    x = x if low is None else torch.maximum(x, low.to(x.dtype))
    return x if high is None else torch.minimum(x, high.to(x.dtype))


@operator("LeakyRelu")
def _leaky_relu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


@operator("PRelu")
def _prelu(call: Call) -> Any:
    # Not F.prelu: its slope has one value per channel, ONNX's broadcasts from the right.
    x, slope = call.tensors()
    return x.clamp(min=0) + slope * x.clamp(max=0)


@operator("Elu")
def _elu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.elu(call.tensor(0), call.attribute("alpha", 1.0))


@operator("Celu")
def _celu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.celu(call.tensor(0), call.attribute("alpha", 1.0))


@operator("Selu")
def _selu(call: Call) -> Any:
    # The standard's defaults are the float32 neighbours of the paper's constants; torch.selu uses doubles.
    alpha = call.attribute("alpha", 1.67326319217681884765625)
    x = call.tensor(0)
    return call.attribute("gamma", 1.05070102214813232421875) * (x.clamp(min=0) + alpha * (x.clamp(max=0).exp() - 1))


@operator("ThresholdedRelu")
def _thresholded_relu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.threshold(call.tensor(0), call.attribute("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(call: Call) -> Any:
    import torch.nn.functional as F

    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    # Exporters write 1/6 as a float32; converters have a kernel for torch's own slope.
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(call.tensor(0))
    return (call.tensor(0) * alpha + beta).clamp(0, 1)


@operator("HardSwish")
def _hard_swish(call: Call) -> Any:
    import torch.nn.functional as F

    return F.hardswish(call.tensor(0))


@operator("Swish")
def _swish(call: Call) -> Any:
    import torch.nn.functional as F

    x, alpha = call.tensor(0), call.attribute("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * (x * alpha).sigmoid()


@operator("Mish")
def _mish(call: Call) -> Any:
    import torch.nn.functional as F

    return F.mish(call.tensor(0))


@operator("Softplus")
def _softplus(call: Call) -> Any:
    import torch.nn.functional as F

    return F.softplus(call.tensor(0))


@operator("Softsign")
def _softsign(call: Call) -> Any:
    import torch.nn.functional as F

    return F.softsign(call.tensor(0))


@operator("Shrink")
def _shrink(call: Call) -> Any:
    import torch

    x, bias, limit = call.tensor(0), call.attribute("bias", 0.0), call.attribute("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero)).to(x.dtype)


@operator("Gelu")
def _gelu(call: Call) -> Any:
    import torch.nn.functional as F

    return F.gelu(call.tensor(0), approximate=call.attribute("approximate", "none"))


@operator("IsInf")
def _is_inf(call: Call) -> Any:
    import torch

    x = call.tensor(0)
    wanted = torch.zeros_like(x, dtype=torch.bool)
    if call.attribute("detect_positive", 1):
        wanted = wanted | torch.isposinf(x)
    if call.attribute("detect_negative", 1):
        wanted = wanted | torch.isneginf(x)
    return wanted


@operator("Dropout")
def _dropout(call: Call) -> Any:
    import torch

    if call.has(2) and call.number(2):  # training_mode, an input since opset 12
        raise NotImplementedError("Dropout in training mode")
    x = call.tensor(0)
    return x, torch.ones_like(x, dtype=torch.bool)


@operator("Cast")
def _cast(call: Call) -> Any:
    return _converted(call.tensor(0), torch_dtype(call.attribute("to")), bool(call.attribute("saturate", 1)))


@refuses("Cast")
def _refuse_cast(step: GraphStep) -> str | None:
    try:
        torch_dtype(step.attributes["to"])
    except NotImplementedError as error:
        return f"a type that cannot be cast to ({error})"
    return None


@operator("CastLike")
def _cast_like(call: Call) -> Any:
    return _converted(call.tensor(0), call.tensor(1).dtype, bool(call.attribute("saturate", 1)))


def _converted(x: Any, dtype: Any, saturate: bool) -> Any:
    """Convert to a type; `saturate` clamps numbers beyond a float8's largest one to it (Cast since opset 19)."""
    import torch

    if not str(dtype).startswith("torch.float8") or not x.is_floating_point():
        return x if x.dtype == dtype else x.to(dtype)  # no cast node where nothing changes
    wide = x.to(torch.float32)
    limit = torch.finfo(dtype).max
    if saturate:
        return wide.clamp(-limit, limit).to(dtype)
    return wide.to(dtype)

"""Operators on the host: shape arithmetic with integers and torch.SymInts in numpy arrays.

Every function here, Shape and Size excepted, has a counterpart for tensors. It returns NotImplemented if its result is
data rather than a shape; the counterpart runs then.
"""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.registry import Call, on_host, operator
from edgekit.sources.bridges._onnx.values import Host, host_array, settled

# Results of more elements are data: as tensors, converters see one operator rather than a constant. Shapes, axes and
# pads have at most 2 * rank elements.
_MAX_SHAPE_ELEMENTS = 64

# Types between which numpy's casts agree with torch's.
_NUMBERS = {"int32", "int64", "float32", "float64", "bool"}


def _host(call: Call, index: int) -> Host:
    array = call.host(index)
    assert array is not None  # the registry calls host operators only if all inputs are on the host
    return array


def _elementwise(function: Callable[..., Any], *arrays: Host) -> Host:
    """Apply the function to every element.

    numpy's own functions would convert the result of a symbolic comparison to bool, which adds a guard to the trace.
    """
    spread = np.broadcast_arrays(*arrays)
    results = [function(*items) for items in zip(*(array.reshape(-1) for array in spread), strict=True)]
    outcome = np.empty(len(results), object)
    for index, result in enumerate(results):
        outcome[index] = result
    return settled(outcome.reshape(spread[0].shape))


def _binary(symbolic: Callable[..., Any], numeric: Callable[..., Any]) -> Callable[[Call], Any]:
    """Return an operator that applies `symbolic` to arrays with torch.SymInts, else `numeric`."""

    def compute(call: Call) -> Any:
        left, right = _host(call, 0), _host(call, 1)
        if object in (left.dtype, right.dtype):
            return _elementwise(symbolic, left, right)
        return np.asarray(numeric(left, right))

    return compute


def _truncating(left: Host, right: Host) -> Host:
    """Divide as ONNX's Div does: the quotient of integers is truncated towards zero, numpy's is floored."""
    if left.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return np.asarray(np.divide(left, right))
    quotient = np.abs(left) // np.abs(right)
    return np.asarray(np.where((left < 0) != (right < 0), -quotient, quotient)).astype(left.dtype)


def _symbolic_division(left: Any, right: Any) -> Any:
    import torch

    # Floor equals truncation here: sizes are not negative.
    whole = (int, np.integer, torch.SymInt)
    return left // right if isinstance(left, whole) and isinstance(right, whole) else left / right


for _name, _symbolic, _numeric in (
    ("Add", python.add, np.add),
    ("Sub", python.sub, np.subtract),
    ("Mul", python.mul, np.multiply),
    ("Div", _symbolic_division, _truncating),
    ("Equal", python.eq, np.equal),
    ("Greater", python.gt, np.greater),
    ("GreaterOrEqual", python.ge, np.greater_equal),
    ("Less", python.lt, np.less),
    ("LessOrEqual", python.le, np.less_equal),
):
    on_host(_name)(_binary(_symbolic, _numeric))


@on_host("Max", "Min")
def _extreme(call: Call) -> Any:
    import torch

    arrays = [_host(call, index) for index in range(len(call.values))]
    largest = call.step.op_type == "Max"
    if all(array.dtype != object for array in arrays):
        result = arrays[0]
        for array in arrays[1:]:
            result = np.asarray((np.maximum if largest else np.minimum)(result, array))
        return result
    function = torch.sym_max if largest else torch.sym_min
    result = arrays[0]
    for array in arrays[1:]:
        result = _elementwise(function, result, array)
    return result


@on_host("Neg")
def _negative(call: Call) -> Any:
    return settled(-_host(call, 0))


@on_host("Not")
def _not(call: Call) -> Any:
    return settled(np.logical_not(_host(call, 0)))


@on_host("Floor", "Ceil")
def _rounded(call: Call) -> Any:
    import math

    array = _host(call, 0)
    if array.dtype != object:
        return (np.floor if call.step.op_type == "Floor" else np.ceil)(array).astype(array.dtype)
    return _elementwise(math.floor if call.step.op_type == "Floor" else math.ceil, array)


@on_host("Cast")
def _cast(call: Call) -> Any:
    import torch
    from onnx import helper

    array = _host(call, 0)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(call.attribute("to")))
    if array.dtype != object:  # torch covers types (bfloat16, float8) and rules (saturation) that numpy lacks
        return array.astype(dtype) if {array.dtype.name, dtype.name} <= _NUMBERS else NotImplemented
    if dtype.kind == "f":
        return _elementwise(torch.sym_float, array)
    return _elementwise(torch.sym_int, array) if dtype.kind in "iu" else NotImplemented


@operator("Shape")
def _shape(call: Call) -> Any:
    value = call.host(0)
    sizes = list(value.shape if value is not None else call.tensor(0).shape)
    return host_array(sizes[slice(call.attribute("start", 0), call.attribute("end"))])


@operator("Size")
def _size(call: Call) -> Any:
    value = call.host(0)
    sizes = value.shape if value is not None else call.tensor(0).shape
    total: Any = 1
    for size in sizes:
        total = total * size
    return host_array([total], ())


@on_host("Gather")
def _gather(call: Call) -> Any:
    return settled(np.take(_host(call, 0), _host(call, 1).astype(np.int64), axis=call.attribute("axis", 0)))


@on_host("Concat")
def _concat(call: Call) -> Any:
    arrays = [_host(call, index) for index in range(len(call.values))]
    return settled(np.concatenate(arrays, axis=call.attribute("axis")))


@on_host("Slice")
def _slice(call: Call) -> Any:
    array = _host(call, 0)
    # Before opset 10, starts and ends are attributes; such graphs compute no shapes worth the code.
    if any(call.has(i) and _host(call, i).dtype == object for i in range(1, 5)) or call.version < 10:
        return NotImplemented
    starts, ends = call.numbers(1), call.numbers(2)
    axes = call.numbers(3) if call.has(3) else range(len(starts))
    steps = call.numbers(4) if call.has(4) else [1] * len(starts)
    index = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Backwards, an end below -size means "including element 0", which Python's slices express as None.
        index[axis] = slice(start, None if step < 0 and end < -array.shape[axis] else end, step)
    return settled(array[tuple(index)])


@on_host("Unsqueeze")
def _unsqueeze(call: Call) -> Any:
    return np.expand_dims(_host(call, 0), tuple(call.axes(1) or ()))


@on_host("Squeeze")
def _squeeze(call: Call) -> Any:
    axes = call.axes(1)
    return np.squeeze(_host(call, 0), None if axes is None else tuple(axes))


@on_host("Reshape")
def _reshape(call: Call) -> Any:
    array, target = _host(call, 0), _host(call, 1)
    if target.dtype == object or call.attribute("allowzero"):
        return NotImplemented
    # A size of 0 copies the input's size (Reshape, unless allowzero is set).
    return array.reshape([array.shape[i] if size == 0 else size for i, size in enumerate(target.tolist())])


@on_host("Transpose")
def _transpose(call: Call) -> Any:
    return np.transpose(_host(call, 0), call.attribute("perm"))


@on_host("Where")
def _where(call: Call) -> Any:
    arrays = [_host(call, index) for index in range(3)]
    if all(array.dtype != object for array in arrays):
        return np.where(*arrays)
    # A symbolic condition is decided here: the trace gets a guard, since either shape alone can be traced.
    return _elementwise(lambda condition, yes, no: yes if condition else no, *arrays)


@on_host("Expand")
def _expand(call: Call) -> Any:
    target = _host(call, 1)
    if target.dtype == object or np.prod(target) > _MAX_SHAPE_ELEMENTS:
        return NotImplemented
    array = _host(call, 0)
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(target.tolist())))


@on_host("ConstantOfShape")
def _constant_of_shape(call: Call) -> Any:
    shape = _host(call, 0)
    if shape.dtype == object or np.prod(shape) > _MAX_SHAPE_ELEMENTS:
        return NotImplemented
    value = call.attribute("value", np.zeros(1, np.float32))  # the standard's default: float32 zero
    return np.full(tuple(shape.tolist()), value.reshape(-1)[0], value.dtype)


@on_host("Range")
def _range(call: Call) -> Any:
    bounds = [_host(call, index) for index in range(3)]
    if any(bound.dtype.kind not in "iu" for bound in bounds):
        return NotImplemented
    array = np.arange(*(bound.reshape(-1)[0] for bound in bounds), dtype=bounds[0].dtype)
    return array if array.size <= _MAX_SHAPE_ELEMENTS else NotImplemented


@on_host("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduce(call: Call) -> Any:
    import torch

    array, axes = _host(call, 0), call.axes(1)
    # Shapes are vectors: every axis is axis 0, unless the attribute turns the node into the identity.
    if array.ndim != 1 or (axes is None and call.attribute("noop_with_empty_axes")):
        return NotImplemented
    functions: dict[str, Callable[..., Any]] = {
        "ReduceProd": python.mul,
        "ReduceSum": python.add,
        "ReduceMax": torch.sym_max,
        "ReduceMin": torch.sym_min,
    }
    elements = [array[index] for index in range(array.size)]
    if not elements or array.dtype.kind == "f":
        return NotImplemented
    result = elements[0]
    for element in elements[1:]:
        result = functions[call.step.op_type](result, element)
    return host_array([result], (1,) if call.attribute("keepdims", 1) else ())


@on_host("Split")
def _split(call: Call) -> Any:
    array, axis = _host(call, 0), call.attribute("axis", 0)
    sizes = call.numbers(1) if call.has(1) else call.attribute("split")
    if sizes is None:
        return NotImplemented
    return [settled(part) for part in np.split(array, np.cumsum(sizes)[:-1], axis=axis)]

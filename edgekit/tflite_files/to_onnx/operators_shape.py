"""Operators that move, cut, join and pick values without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.tflite_files.to_onnx.builder import TO_FIRST, LiteOperator, Untranslatable, Value, translates

# Slice takes everything from an end where it is this large, or this small when it runs backwards.
_TO_THE_END = 2**31 - 1


@translates("RESHAPE")
def _reshape(operation: LiteOperator) -> None:
    new_shape = operation.option("newShape")
    if operation.has(1) and (operation.const(1) is None or operation.const(1).ndim == 1):  # type: ignore[union-attr]
        shape = operation.integers(1)
    elif new_shape is not None:
        numbers = [int(size) for size in new_shape]
        shape = operation.constant([] if numbers == [0] else numbers, "int64")  # old files write scalars as [0]
    else:
        shape = operation.constant(operation.output_shape(), "int64")
    operation.set(operation.emit("Reshape", operation.input(0), shape))


@translates("SQUEEZE")
def _squeeze(operation: LiteOperator) -> None:
    rank = operation.rank(0)
    dims = operation.option("squeezeDims")
    axes = [int(axis) % rank for axis in dims] if dims is not None and len(dims) else []
    axes = axes or [axis for axis, size in enumerate(operation.shape(0)) if size == 1]
    if not axes:
        operation.set_value(operation.value(0))
        return
    operation.set(operation.emit("Squeeze", operation.input(0), operation.constant(axes, "int64")))


@translates("EXPAND_DIMS")
def _expand_dims(operation: LiteOperator) -> None:
    axes = operation.constant(operation.numbers(1, "axes"), "int64")
    operation.set(operation.emit("Unsqueeze", operation.input(0), axes))


@translates("TRANSPOSE")
def _transpose(operation: LiteOperator) -> None:
    operation.set(operation.emit("Transpose", operation.input(0), perm=operation.numbers(1, "orders")))


@translates("CONCATENATION")
def _concatenation(operation: LiteOperator) -> None:
    rank, positions = len(operation.output_shape()), range(operation.inputs)
    axis = int(operation.option("axis", 0)) % rank
    if rank == 4 and any(operation.is_first(position) for position in positions):
        names = [operation.image(position) for position in positions]
        joined = operation.emit("Concat", *names, axis=TO_FIRST.index(axis))
        operation.set_image(operation.activated(joined))
        return
    names = [operation.input(position) for position in positions]
    operation.set(operation.activated(operation.emit("Concat", *names, axis=axis)))


@translates("PACK")
def _pack(operation: LiteOperator) -> None:
    axis = int(operation.option("axis", 0)) % len(operation.output_shape())
    axes = operation.constant([axis], "int64")
    parts = [operation.emit("Unsqueeze", operation.input(index), axes) for index in range(operation.inputs)]
    operation.set(operation.emit("Concat", *parts, axis=axis))


@translates("UNPACK")
def _unpack(operation: LiteOperator) -> None:
    axis, count = int(operation.option("axis", 0)) % operation.rank(0), len(operation.op.outputs)
    axes = operation.constant([axis], "int64")
    for position, part in enumerate(_parts(operation, 0, axis, [1] * count)):
        operation.set(operation.emit("Squeeze", part, axes), position)


@translates("SPLIT")
def _split(operation: LiteOperator) -> None:
    rank, count = operation.rank(1), len(operation.op.outputs)
    axis = operation.numbers(0, "axes")[0] % rank
    _set_parts(operation, 1, axis, [operation.shape(1)[axis] // count] * count)


@translates("SPLIT_V")
def _split_v(operation: LiteOperator) -> None:
    axis = operation.numbers(2, "axes")[0] % operation.rank(0)
    sizes = operation.numbers(1, "sizes")
    rest = operation.shape(0)[axis] - sum(size for size in sizes if size >= 0)
    _set_parts(operation, 0, axis, [rest if size < 0 else size for size in sizes])


def _set_parts(operation: LiteOperator, position: int, axis: int, sizes: Sequence[int]) -> None:
    first = operation.rank(position) == 4 and operation.is_first(position)
    place = TO_FIRST.index(axis) if first else axis
    for index, part in enumerate(_parts(operation, position, place, sizes, first=first)):
        operation.set_image(part, index) if first else operation.set(part, index)


def _parts(
    operation: LiteOperator, position: int, axis: int, sizes: Sequence[int], *, first: bool = False
) -> list[str]:
    name = operation.image(position) if first else operation.input(position)
    if len(sizes) == 1:
        return [name]
    return operation.emit_many("Split", [name, operation.constant(list(sizes), "int64")], len(sizes), axis=axis)


@translates("SLICE")
def _slice(operation: LiteOperator) -> None:
    rank = operation.rank(0)
    axes = operation.constant(list(range(rank)), "int64")
    begins, sizes = operation.const(1), operation.const(2)
    if begins is not None and sizes is not None:
        stops = [_TO_THE_END if size < 0 else begin + size for begin, size in zip(begins, sizes, strict=True)]
        start, stop = operation.constant(begins, "int64"), operation.constant(stops, "int64")
    else:
        start, size = operation.integers(1), operation.integers(2)
        unbounded = operation.emit("Less", size, operation.constant([0], "int64"))
        bounded = operation.emit("Add", start, size)
        stop = operation.emit("Where", unbounded, operation.constant([_TO_THE_END], "int64"), bounded)
    operation.set(operation.emit("Slice", operation.input(0), start, stop, axes))


@translates("STRIDED_SLICE")
def _strided_slice(operation: LiteOperator) -> None:
    if any(operation.option(name, 0) for name in ("ellipsisMask", "newAxisMask")):
        raise Untranslatable("with new axes or an ellipsis")
    rank = operation.rank(0)
    masks = {name: int(operation.option(f"{name}Mask", 0)) for name in ("begin", "end", "shrinkAxis")}
    strides = operation.numbers(3, "strides")
    axes = range(len(strides))
    shrunk = [axis for axis in axes if masks["shrinkAxis"] >> axis & 1]
    begins, ends = operation.const(1), operation.const(2)
    if begins is None or (ends is None and len(shrunk) < len(strides)):
        start, stop = _computed_bounds(operation, masks, strides, shrunk)
    else:
        starts = [
            _open_start(stride) if masks["begin"] >> axis & 1 and axis not in shrunk else int(begin)
            for axis, (begin, stride) in enumerate(zip(begins, strides, strict=True))
        ]
        # A shrunk axis has one value, whatever the end says; behind the value at -1 there is no number for the end.
        stops = [
            (starts[axis] + 1 or _TO_THE_END)
            if axis in shrunk
            else _open_stop(strides[axis])
            if masks["end"] >> axis & 1 or ends is None
            else int(ends[axis])
            for axis in axes
        ]
        start, stop = operation.constant(starts, "int64"), operation.constant(stops, "int64")
    steps = operation.constant([1 if axis in shrunk else stride for axis, stride in enumerate(strides)], "int64")
    result = operation.emit(
        "Slice", operation.input(0), start, stop, operation.constant(list(axes)[:rank], "int64"), steps
    )
    if shrunk:
        result = operation.emit("Squeeze", result, operation.constant(shrunk, "int64"))
    operation.set(result)


def _open_start(stride: int) -> int:
    return 0 if stride > 0 else _TO_THE_END


def _open_stop(stride: int) -> int:
    return _TO_THE_END if stride > 0 else -_TO_THE_END - 1


def _computed_bounds(
    operation: LiteOperator, masks: dict[str, int], strides: Sequence[int], shrunk: Sequence[int]
) -> tuple[str, str]:
    """Return where a slice begins and ends if that is computed, such as the state of a loop."""
    axes = range(len(strides))
    open_start = [bool(masks["begin"] >> axis & 1) and axis not in shrunk for axis in axes]
    open_stop = [bool(masks["end"] >> axis & 1) and axis not in shrunk for axis in axes]
    starts, stops = ([rule(stride) for stride in strides] for rule in (_open_start, _open_stop))
    start = operation.integers(1)
    if any(open_start):
        start = operation.emit(
            "Where", operation.constant(open_start, "bool"), operation.constant(starts, "int64"), start
        )
    following = operation.emit("Add", start, operation.constant([1], "int64"))
    wraps = operation.emit("Equal", following, operation.constant([0], "int64"))
    following = operation.emit("Where", wraps, operation.constant([_TO_THE_END], "int64"), following)
    stop = operation.emit(
        "Where",
        operation.constant([axis in shrunk for axis in axes], "bool"),
        following,
        operation.integers(2),
    )
    if any(open_stop):
        stop = operation.emit("Where", operation.constant(open_stop, "bool"), operation.constant(stops, "int64"), stop)
    return start, stop


@translates("PAD", "PADV2", "MIRROR_PAD")
def _pad(operation: LiteOperator) -> None:
    edges = np.array(operation.numbers(1, "paddings")).reshape(-1, 2)
    attributes = {}
    if operation.name == "MIRROR_PAD" and int(operation.option("mode", 0)):  # SYMMETRIC
        if edges.max() > 1:
            raise Untranslatable("in symmetric mode by more than one value")
        attributes["mode"] = "edge"  # the value at the edge once more is all that one value of the mirror image is
    elif operation.name == "MIRROR_PAD":
        attributes["mode"] = "reflect"
    first = len(edges) == 4 and operation.is_first(0)
    edges = edges[list(TO_FIRST)] if first else edges
    name = operation.image(0) if first else operation.input(0)
    value = [operation.input(2)] if operation.name == "PADV2" else []
    if value and operation.rank(2):
        value = [operation.emit("Reshape", value[0], operation.constant([], "int64"))]
    result = operation.emit("Pad", name, operation.constant(edges.T.reshape(-1), "int64"), *value, **attributes)
    operation.set_image(result) if first else operation.set(result)


@translates("TILE")
def _tile(operation: LiteOperator) -> None:
    operation.set(operation.emit("Tile", operation.input(0), operation.integers(1)))


@translates("BROADCAST_TO")
def _broadcast_to(operation: LiteOperator) -> None:
    operation.set(operation.emit("Expand", operation.input(0), operation.integers(1)))


@translates("BROADCAST_ARGS")
def _broadcast_args(operation: LiteOperator) -> None:
    if operation.shape(0) != operation.shape(1):
        raise Untranslatable("of shapes of unlike ranks")
    operation.set(operation.emit("Max", operation.input(0), operation.input(1)))


@translates("FILL")
def _fill(operation: LiteOperator) -> None:
    operation.set(operation.emit("Expand", operation.input(1), operation.integers(0)))


@translates("ZEROS_LIKE")
def _zeros_like(operation: LiteOperator) -> None:
    zero = operation.constant(0, operation.dtype(0))
    operation.set(operation.emit("Expand", zero, operation.emit("Shape", operation.input(0))))


@translates("SHAPE")
def _shape(operation: LiteOperator) -> None:
    operation.set(operation.cast(operation.emit("Shape", operation.input(0)), operation.output_dtype()))


@translates("RANK")
def _rank(operation: LiteOperator) -> None:
    operation.set_value(Value(constant=np.asarray(operation.rank(0), np.int32)))


@translates("RANGE")
def _range(operation: LiteOperator) -> None:
    operation.set(operation.emit("Range", *(operation.input(position) for position in range(3))))


@translates("GATHER")
def _gather(operation: LiteOperator) -> None:
    batch = int(operation.option("batchDims", 0))
    axis = int(operation.option("axis", 0)) % max(operation.rank(0), 1)
    if not batch:
        operation.set(operation.emit("Gather", operation.input(0), operation.integers(1), axis=axis))
        return
    if axis != batch:
        raise Untranslatable("with batch dimensions before another axis than the next")
    indices = operation.emit("Unsqueeze", operation.integers(1), operation.constant([-1], "int64"))
    operation.set(operation.emit("GatherND", operation.input(0), indices, batch_dims=batch))


@translates("EMBEDDING_LOOKUP")
def _embedding_lookup(operation: LiteOperator) -> None:
    operation.set(operation.emit("Gather", operation.input(1), operation.integers(0), axis=0))


@translates("GATHER_ND")
def _gather_nd(operation: LiteOperator) -> None:
    operation.set(operation.emit("GatherND", operation.input(0), operation.integers(1)))


@translates("SCATTER_ND")
def _scatter_nd(operation: LiteOperator) -> None:
    """Translate indices, updates and a shape; values that meet at one place are added."""
    zero = operation.constant(0, operation.dtype(1))
    zeros = operation.emit("Expand", zero, operation.integers(2))
    operation.set(operation.emit("ScatterND", zeros, operation.integers(0), operation.input(1), reduction="add"))


@translates("ONE_HOT")
def _one_hot(operation: LiteOperator) -> None:
    one = operation.constant([1], "int64")
    ends = [operation.emit("Reshape", operation.input(position), one) for position in (3, 2)]
    values = operation.emit("Concat", *ends, axis=0)  # off, then on
    depth = operation.emit("Reshape", operation.integers(1), operation.constant([], "int64"))
    axis = int(operation.option("axis", -1))
    operation.set(operation.emit("OneHot", operation.integers(0), depth, values, axis=axis))


@translates("WHERE")
def _where(operation: LiteOperator) -> None:
    condition = operation.cast(operation.input(0), "bool")
    indices = operation.emit("Transpose", operation.emit("NonZero", condition), perm=(1, 0))
    operation.set(operation.cast(indices, operation.output_dtype()))


@translates("REVERSE_V2")
def _reverse(operation: LiteOperator) -> None:
    axes = [axis % operation.rank(0) for axis in operation.numbers(1, "axes")]
    bounds = ([_TO_THE_END] * len(axes), [-_TO_THE_END - 1] * len(axes), axes, [-1] * len(axes))
    parts = (operation.constant(numbers, "int64") for numbers in bounds)
    operation.set(operation.emit("Slice", operation.input(0), *parts))


@translates("REVERSE_SEQUENCE")
def _reverse_sequence(operation: LiteOperator) -> None:
    axes = {"time_axis": int(operation.option("seqDim", 0)), "batch_axis": int(operation.option("batchDim", 0))}
    if set(axes.values()) != {0, 1}:
        raise Untranslatable("along other axes than the first two")
    operation.set(operation.emit("ReverseSequence", operation.input(0), operation.integers(1), **axes))


@translates("DYNAMIC_UPDATE_SLICE")
def _dynamic_update_slice(operation: LiteOperator) -> None:
    """Translate the replacement of a part of a tensor, whose place is computed, by a sum over all places."""
    if operation.rank(0) < 1 or any(
        whole != part
        for axis, (whole, part) in enumerate(zip(operation.shape(0), operation.shape(1), strict=True))
        if axis != _changed_axis(operation)
    ):
        raise Untranslatable("along several axes")
    axis = _changed_axis(operation)
    count, whole = operation.shape(1)[axis], operation.shape(0)[axis]
    start = operation.emit("Gather", operation.integers(2), operation.constant([axis], "int64"), axis=0)
    # As TFLite does, so that the part lies inside.
    start = operation.emit("Max", operation.constant([0], "int64"), start)
    start = operation.emit("Min", operation.constant([whole - count], "int64"), start)
    places = operation.emit("Add", start, operation.constant(np.arange(count), "int64"))
    shape = [count if index == axis else 1 for index in range(operation.rank(0))]
    indices = operation.emit("Reshape", places, operation.constant(shape, "int64"))
    indices = operation.emit("Expand", indices, operation.constant(operation.shape(1), "int64"))
    operation.set(operation.emit("ScatterElements", operation.input(0), indices, operation.input(1), axis=axis))


def _changed_axis(operation: LiteOperator) -> int:
    """Return the first axis along which the part is shorter than the whole."""
    pairs = enumerate(zip(operation.shape(0), operation.shape(1), strict=True))
    return next((axis for axis, (whole, part) in pairs if whole != part), 0)

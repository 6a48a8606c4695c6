"""Convolutions, pooling, resizing and normalization of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.tflite_files.to_onnx.builder import LiteOperator, Untranslatable, translates

# The numbers of the schema's Padding.
_SAME, _VALID = 0, 1
# From (out, height, width, in) to ONNX's (out, in, height, width), and to (in, out, height, width) of transposed ones.
_WEIGHT_ORDER, _TRANSPOSED_WEIGHT_ORDER = (0, 3, 1, 2), (3, 0, 1, 2)


def _strides(operation: LiteOperator) -> list[int]:
    return [int(operation.option("strideH", 1)), int(operation.option("strideW", 1))]


def _padding(
    operation: LiteOperator, position: int, kernel: list[int], strides: list[int], dilations: list[int]
) -> Any:
    """Return ONNX's attributes for a padding: pads if the size of the image is known, else the rule for them."""
    if int(operation.option("padding", _SAME)) == _VALID:
        return {}
    if any(operation.is_dynamic(position, axis) for axis in (1, 2)):
        return {"auto_pad": "SAME_UPPER"}
    begins, ends = [], []
    for size, width, stride, dilation in zip(operation.shape(position)[1:3], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return {"pads": [*begins, *ends]}


def _weights(operation: LiteOperator, position: int, order: tuple[int, ...]) -> str:
    constant = operation.const(position)
    if constant is None:
        return operation.emit("Transpose", operation.input(position), perm=order)
    return operation.constant(np.ascontiguousarray(constant.transpose(order)))


@translates("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(operation: LiteOperator) -> None:
    kernel, channels = list(operation.shape(1)[1:3]), operation.shape(0)[3]
    dilations = [int(operation.option("dilationHFactor", 1)), int(operation.option("dilationWFactor", 1))]
    strides = _strides(operation)
    if operation.name == "DEPTHWISE_CONV_2D":  # weights (1, height, width, out)
        weights, group = _weights(operation, 1, (3, 0, 1, 2)), channels
    else:  # weights (out, height, width, in of a group)
        weights, group = _weights(operation, 1, _WEIGHT_ORDER), channels // operation.shape(1)[3]
    result = operation.emit(
        "Conv",
        operation.image(0),
        weights,
        *([operation.input(2)] if operation.has(2) else []),
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        group=group,
        **_padding(operation, 0, kernel, strides, dilations),
    )
    operation.set_image(operation.activated(result))


@translates("TRANSPOSE_CONV")
def _transpose_convolution(operation: LiteOperator) -> None:
    """Translate the gradient of a convolution: inputs are the output's shape, the weights, the image and the bias."""
    if any(operation.is_dynamic(2, axis) for axis in (1, 2)):
        raise Untranslatable("of images whose size is unknown")
    sizes = (
        operation.numbers(0, "output shapes")[1:3] if operation.const(0) is not None else operation.output_shape()[1:3]
    )
    kernel, strides = list(operation.shape(1)[1:3]), _strides(operation)
    begins, ends, extra = [], [], []
    for size, wanted, width, stride in zip(operation.shape(2)[1:3], sizes, kernel, strides, strict=True):
        surplus = (size - 1) * stride + width - wanted
        begins.append(max(surplus, 0) // 2)
        ends.append(max(surplus, 0) - begins[-1])
        extra.append(max(-surplus, 0))
    result = operation.emit(
        "ConvTranspose",
        operation.image(2),
        _weights(operation, 1, _TRANSPOSED_WEIGHT_ORDER),
        *([operation.input(3)] if operation.has(3) else []),
        kernel_shape=kernel,
        strides=strides,
        pads=[*begins, *ends],
        output_padding=extra,
    )
    operation.set_image(operation.activated(result))


@translates("CONV_3D")
def _convolution_3d(operation: LiteOperator) -> None:
    """Translate a convolution of volumes (N, D, H, W, C) with weights (depth, height, width, in, out)."""
    strides = [int(operation.option(f"stride{letter}", 1)) for letter in "DHW"]
    dilations = [int(operation.option(f"dilation{letter}Factor", 1)) for letter in "DHW"]
    same = int(operation.option("padding", _SAME)) == _SAME
    result = operation.emit(
        "Conv",
        operation.emit("Transpose", operation.input(0), perm=(0, 4, 1, 2, 3)),
        _weights(operation, 1, (4, 3, 0, 1, 2)),
        *([operation.input(2)] if operation.has(2) else []),
        kernel_shape=list(operation.shape(1)[:3]),
        strides=strides,
        dilations=dilations,
        group=operation.shape(0)[4] // operation.shape(1)[3],
        auto_pad="SAME_UPPER" if same else "VALID",
    )
    operation.set(operation.activated(operation.emit("Transpose", result, perm=(0, 2, 3, 4, 1))))


@translates("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(operation: LiteOperator) -> None:
    kernel = [int(operation.option("filterHeight", 1)), int(operation.option("filterWidth", 1))]
    strides = _strides(operation)
    padding = _padding(operation, 0, kernel, strides, [1, 1])
    op_type = "MaxPool" if operation.name == "MAX_POOL_2D" else "AveragePool"  # which leaves padding out of the mean
    result = operation.emit(op_type, operation.image(0), kernel_shape=kernel, strides=strides, **padding)
    operation.set_image(operation.activated(result))


@translates("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def _resize(operation: LiteOperator) -> None:
    sizes = operation.numbers(1, "sizes")
    aligned, half_pixel = (bool(operation.option(name, False)) for name in ("alignCorners", "halfPixelCenters"))
    attributes: dict[str, Any] = {
        "coordinate_transformation_mode": "align_corners" if aligned else "half_pixel" if half_pixel else "asymmetric"
    }
    if operation.name == "RESIZE_BILINEAR":
        attributes |= {"mode": "linear"}
    else:
        # TFLite rounds aligned coordinates, and takes the pixel in which the centre of the new one lies.
        attributes |= {"mode": "nearest", "nearest_mode": "round_prefer_ceil" if aligned or half_pixel else "floor"}
    image = operation.image(0)
    if operation.is_dynamic(0, 0):
        ends = [operation.constant([end], "int64") for end in (0, 2)]
        kept = operation.emit("Slice", operation.emit("Shape", image), *ends)
        target = operation.emit("Concat", kept, operation.constant(sizes, "int64"), axis=0)
    else:
        target = operation.constant([operation.shape(0)[0], operation.shape(0)[3], *sizes], "int64")
    operation.set_image(operation.emit("Resize", image, "", "", target, **attributes))


@translates("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def _depth_and_space(operation: LiteOperator) -> None:
    op_type = "SpaceToDepth" if operation.name == "SPACE_TO_DEPTH" else "DepthToSpace"
    operation.set_image(operation.emit(op_type, operation.image(0), blocksize=int(operation.option("blockSize", 1))))


@translates("LOCAL_RESPONSE_NORMALIZATION")
def _local_response_normalization(operation: LiteOperator) -> None:
    size = 2 * int(operation.option("radius", 0)) + 1
    attributes = {name: float(operation.option(name, 0.0)) for name in ("bias", "beta")}
    alpha = float(operation.option("alpha", 0.0)) * size  # ONNX divides it by the size
    operation.set_image(operation.emit("LRN", operation.image(0), size=size, alpha=alpha, **attributes))


@translates("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
def _batch_and_space(operation: LiteOperator) -> None:
    """Translate the moves of blocks of an image (N, H, W, C) into the batch and back, around dilated convolutions."""
    if operation.rank(0) != 4 or any(operation.is_dynamic(0, axis) for axis in (1, 2)):
        raise Untranslatable("of anything but images of a known size")
    block = operation.numbers(1, "block sizes")
    edges = np.array(operation.numbers(2, "paddings")).reshape(2, 2)
    (_, height, width, channels), image = operation.shape(0), operation.input(0)
    if operation.name == "SPACE_TO_BATCH_ND":
        pads = operation.constant([0, *edges[:, 0], 0, 0, *edges[:, 1], 0], "int64")
        padded = operation.emit("Pad", image, pads)
        rows, columns = (height + edges[0].sum()) // block[0], (width + edges[1].sum()) // block[1]
        split = _reshaped(operation, padded, [-1, rows, block[0], columns, block[1], channels])
        moved = operation.emit("Transpose", split, perm=(2, 4, 0, 1, 3, 5))
        operation.set(_reshaped(operation, moved, [-1, rows, columns, channels]))
        return
    split = _reshaped(operation, image, [*block, -1, height, width, channels])
    moved = operation.emit("Transpose", split, perm=(2, 3, 0, 4, 1, 5))
    whole = _reshaped(operation, moved, [-1, height * block[0], width * block[1], channels])
    stops = [height * block[0] - edges[0, 1], width * block[1] - edges[1, 1]]
    parts = (operation.constant(numbers, "int64") for numbers in (edges[:, 0], stops, [1, 2]))
    operation.set(operation.emit("Slice", whole, *parts))


def _reshaped(operation: LiteOperator, name: str, shape: list[int] | Array) -> str:
    return operation.emit("Reshape", name, operation.constant(shape, "int64"))

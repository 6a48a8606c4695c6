"""Convolutions of volumes from convolutions of planes, for which every runtime has kernels."""

from __future__ import annotations

from typing import Any

from edgekit.targets._torch.kernels import each, same_sides


def convolve_volume(
    _func: Any,
    input: Any,  # noqa: A002 - PyTorch's name of the parameter
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Compute a convolution of volumes from one of planes: the depth of the kernel becomes channels.

    The slices that one slice of the result depends on are stacked as channels, and slices as samples.

    Args:
        _func: The function that is computed otherwise.
        input: Shape (N, C, depth, height, width).
        weight: Shape (outputs, C / groups, kernel depth, kernel height, kernel width).
        bias: Shape (outputs,) or None.
        stride: Three numbers, or one for all axes, as all that follow.
        padding: Zeros at both ends; or `valid` or `same`.
        dilation: The distance of the kernel's elements.
        groups: The number of groups of channels.

    Returns:
        Shape (N, outputs, ...), or NotImplemented for an input without a batch.
    """
    import torch
    import torch.nn.functional as F

    if input.dim() != weight.dim():
        return NotImplemented
    strides, steps = each(stride, 3), each(dilation, 3)
    if padding == "same":
        input = F.pad(input, same_sides(weight.shape[2:], steps))  # noqa: A001
    pads = [0, 0, 0] if isinstance(padding, str) else each(padding, 3)
    if groups > 1:
        biases = [None] * groups if bias is None else bias.chunk(groups)
        parts = zip(input.chunk(groups, 1), weight.chunk(groups, 0), biases, strict=True)
        return torch.cat([convolve_volume(None, *part, strides, pads, steps) for part in parts], 1)
    depth = weight.shape[2]
    x = F.pad(input, [0, 0, 0, 0, pads[0], pads[0]]) if pads[0] else input
    count = (x.shape[2] - steps[0] * (depth - 1) - 1) // strides[0] + 1
    # Each shape (N, C, count, H, W): what one slice of the kernel meets.
    meets = [
        x[:, :, index * steps[0] : index * steps[0] + (count - 1) * strides[0] + 1 : strides[0]]
        for index in range(depth)
    ]
    # Tensors of at most five axes: TFLite and XNNPACK have few kernels for more.
    stacked = meets[0] if depth == 1 else torch.cat(meets, 1)
    planes = stacked.transpose(1, 2).flatten(0, 1)  # (N * count, kernel depth * C, H, W)
    kernel = weight.transpose(1, 2).flatten(1, 2)
    result = F.conv2d(planes, kernel, bias, strides[1:], pads[1:], steps[1:])
    return result.unflatten(0, (input.shape[0], count)).transpose(1, 2)

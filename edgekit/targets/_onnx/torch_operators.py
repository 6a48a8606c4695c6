"""Translations of PyTorch's operators to ONNX that torch.onnx gets wrong."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any


def corrected_translations() -> dict[Any, Callable[..., Any]]:
    """Return translations for `torch.onnx.export(custom_translation_table=…)`.

    onnxscript's average pooling leaves out `divisor_override` without a word (0.7): the file divides by the size of the
    kernel. See `docs/upstream.md`.

    Returns:
        Functions of onnxscript by PyTorch's operator.
    """
    import torch
    from onnxscript.function_libs.torch_lib.ops import nn

    return {
        torch.ops.aten.avg_pool2d.default: _with_divisor(nn.aten_avg_pool2d, 2),
        torch.ops.aten.avg_pool3d.default: _with_divisor(nn.aten_avg_pool3d, 3),
    }


def _with_divisor(pool: Callable[..., Any], dims: int) -> Callable[..., Any]:
    """Return a translation of average pooling that divides by the number that the call names."""
    import onnxscript

    op: Any = onnxscript.opset18

    # With the annotations and defaults of the original, by which the exporter matches the arguments.
    @functools.wraps(pool)
    def translate(
        self: Any,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        if divisor_override is None:
            return pool(self, kernel_size, stride, padding, ceil_mode, count_include_pad)
        if ceil_mode:
            # The windows at the edge have other sizes there, by which ONNX has divided already.
            raise ValueError("average pooling with ceil_mode and divisor_override has no equivalent in ONNX")
        size = math.prod(kernel_size) if len(kernel_size) > 1 else kernel_size[0] ** dims
        # A padded zero adds nothing to the sum, which is the mean over all of the kernel times its size.
        mean = pool(self, kernel_size, stride, padding, False, True)
        return op.Mul(mean, op.CastLike(op.Constant(value_float=size / divisor_override), mean))

    return translate

"""Operators of PyTorch in forms that litert-torch can lower, while it traces a module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from edgekit.targets._torch.kernels import same_sides
from edgekit.targets._torch.other_forms import (
    Rule,
    antialiased,
    traced_in_forms,
    transposed_convolutions,
    volumes,
)

# How many axes a transpose exchanges.
_TRANSPOSED = 2
# More copies are gathered: each is an operand of a concatenation.
_MOST_CONCATENATED = 16


@contextlib.contextmanager
def lowerable_forms() -> Iterator[None]:
    """Trace some operators in other forms, with the same results, for as long as the block runs.

    litert-torch 0.10 fails on these:

    - `padding="same"` of an even kernel, with one more element at the end: a pad and a convolution instead.
    - Sums and comparisons of 8-bit and 16-bit integers, and comparisons of truth values, for which TFLite has no
      kernels: of int32 instead.
    - Sorting, whose indices are int64 where it expects int32: the top k of all elements instead.
    - Shifts by a number: multiplications and divisions by powers of two instead.
    - Transposed convolutions but for a few forms; the commonest of all fails, with a kernel of 3, a stride of 2, one
      element of padding and one of output padding. See `transposed_convolution.py`.
    - Convolutions of volumes with groups or dilation, which crash it: convolutions of planes instead, which have int8
      kernels too.
    - Antialiased resizing: two matrix products instead.

    And it computes this wrongly: a transpose of an axis that was expanded from a size of 1, such as the only key and
    value head of multi-query attention. The converter merges both into one broadcast, and reshapes where it should
    transpose. Copies are concatenated or gathered instead.
    """
    with traced_in_forms(_rules()):
        yield


def _rules() -> dict[Any, Rule]:
    """Return the rules by function; a rule returns NotImplemented where the function itself is right."""
    import torch
    import torch.nn.functional as F

    aten, method = torch.ops.aten, torch.Tensor
    rules: dict[Any, Rule] = dict.fromkeys((F.conv1d, F.conv2d, torch.conv1d, torch.conv2d), _convolve)
    rules |= dict.fromkeys((torch.sum, method.sum, aten.sum.default, aten.sum.dim_IntList), _sum)
    for name in ("gt", "ge", "lt", "le", "eq", "ne"):
        operators = (getattr(torch, name), getattr(method, name), getattr(method, f"__{name}__"))
        overloads = (getattr(aten, name).Scalar, getattr(aten, name).Tensor)
        rules |= dict.fromkeys((*operators, *overloads), _compare)
    rules |= dict.fromkeys((torch.sort, method.sort, aten.sort.default, aten.sort.stable), _sort)
    rules |= dict.fromkeys((method.__rshift__, torch.bitwise_right_shift, method.bitwise_right_shift), _shift_right)
    rules |= dict.fromkeys((method.__lshift__, torch.bitwise_left_shift, method.bitwise_left_shift), _shift_left)
    expansions = (method.expand, method.expand_as, method.broadcast_to, torch.broadcast_to, aten.expand.default)
    rules |= dict.fromkeys(expansions, _expand)
    rules |= transposed_convolutions(1, 2)
    rules |= volumes() | antialiased()
    attention = (F.scaled_dot_product_attention, aten.scaled_dot_product_attention.default)
    return rules | dict.fromkeys(attention, _attend)


def _is_narrow(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype in (torch.uint8, torch.int8, torch.int16)


def _widened(value: Any) -> Any:
    import torch

    return value.to(torch.int32) if _is_narrow(value) or _is_boolean(value) else value


def _is_boolean(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype is torch.bool


def _convolve(
    func: Any,
    input: Any,  # noqa: A002 - PyTorch's name of the parameter
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    import torch.nn.functional as F

    if padding != "same":
        return NotImplemented
    return func(F.pad(input, same_sides(weight.shape[2:], dilation)), weight, bias, stride, 0, dilation, groups)


def _sum(func: Any, x: Any, *args: Any, **keywords: Any) -> Any:
    import torch

    if not _is_narrow(x) or keywords.get("dtype") is not None:
        return NotImplemented
    return func(x.to(torch.int32), *args, **keywords).to(torch.int64)


def _compare(func: Any, *args: Any, **keywords: Any) -> Any:
    if not any(_is_narrow(value) or _is_boolean(value) for value in (*args, *keywords.values())):
        return NotImplemented
    return func(*map(_widened, args), **{name: _widened(value) for name, value in keywords.items()})


def _sort(_func: Any, x: Any, *args: Any, **keywords: Any) -> Any:
    import torch

    # sort(x, dim, descending), and of `stable`, which a full top k is as well: sort(x, stable, dim, descending).
    if args and isinstance(args[0], bool):
        args = args[1:]
    dim = keywords.get("dim", args[0] if args else -1)
    descending = keywords.get("descending", args[1] if len(args) > 1 else False)
    return torch.topk(x, x.shape[dim], dim, largest=descending, sorted=True)


def _shift_right(_func: Any, x: Any, bits: Any) -> Any:
    import torch

    return torch.div(x, 2**bits, rounding_mode="floor") if isinstance(bits, int) else NotImplemented


def _shift_left(_func: Any, x: Any, bits: Any) -> Any:
    return x * 2**bits if isinstance(bits, int) else NotImplemented


def _expand(func: Any, x: Any, *sizes: Any, **keywords: Any) -> Any:
    # A transpose changes the order of two axes that were not expanded. Masks are compared and added instead.
    if not x.is_floating_point() or sum(size != 1 for size in x.shape) < _TRANSPOSED or keywords:
        return NotImplemented
    shape = func(x, *sizes).shape
    x = x.reshape((1,) * (len(shape) - x.dim()) + tuple(x.shape))
    for axis, (before, after) in enumerate(zip(x.shape, shape, strict=True)):
        if before == 1 and after != 1:
            if not isinstance(after, int):
                return NotImplemented
            x = _copies(x, after, axis)
    return x


def _copies(x: Any, count: int, axis: int) -> Any:
    """Return copies of a tensor along an axis of size 1."""
    import torch

    if count <= _MOST_CONCATENATED:
        return torch.cat([x] * count, axis)
    return torch.index_select(x, axis, torch.zeros(count, dtype=torch.int64))


def _attend(func: Any, query: Any, key: Any, value: Any, *args: Any, **keywords: Any) -> Any:
    # With several heads the copies are interleaved, which is no broadcast.
    if not keywords.get("enable_gqa") or key.shape[-3] != 1 or query.shape[-3] == 1:
        return NotImplemented
    key, value = (_copies(x, query.shape[-3], x.dim() - 3) for x in (key, value))
    return func(query, key, value, *args, **{**keywords, "enable_gqa": False})

"""Operators of PyTorch in other forms, with the same results, for converters and runtimes that lack them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgekit.targets._torch import antialiased_resize
from edgekit.targets._torch.transposed_convolution import convolve_transposed
from edgekit.targets._torch.volume_convolution import convolve_volume

# Takes the function and its arguments; returns NotImplemented where the function itself is right.
Rule = Callable[..., Any]


@contextlib.contextmanager
def traced_in_forms(rules: Mapping[Any, Rule]) -> Iterator[None]:
    """Compute functions by their rules for as long as the block runs.

    Args:
        rules: Rules by function of PyTorch, method or overload of an operator.
    """
    from torch.overrides import TorchFunctionMode

    class Forms(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            rule = rules.get(func)
            result = NotImplemented if rule is None else rule(func, *args, **(kwargs or {}))
            return func(*args, **(kwargs or {})) if result is NotImplemented else result

    with Forms():
        yield


def transposed_convolutions(*ranks: int) -> dict[Any, Rule]:
    """Return the rules for transposed convolutions.

    Args:
        ranks: Numbers of spatial axes, 1 to 3.
    """
    import torch
    import torch.nn.functional as F

    rules: dict[Any, Rule] = {}
    for rank in ranks:
        name, overload = f"conv_transpose{rank}d", "default" if rank == 1 else "input"
        functions = (getattr(F, name), getattr(torch, name), getattr(getattr(torch.ops.aten, name), overload))
        rules |= dict.fromkeys(functions, convolve_transposed)
    return rules


def volumes() -> dict[Any, Rule]:
    """Return the rules for convolutions of volumes, transposed ones among them."""
    import torch
    import torch.nn.functional as F

    aten = torch.ops.aten
    functions = (F.conv3d, torch.conv3d, aten.conv3d.default, aten.conv3d.padding)
    return dict.fromkeys(functions, convolve_volume) | transposed_convolutions(3)


def antialiased() -> dict[Any, Rule]:
    """Return the rules for antialiased resizing."""
    import torch
    import torch.nn.functional as F

    rules: dict[Any, Rule] = {F.interpolate: antialiased_resize.interpolate}
    for mode in ("bilinear", "bicubic"):
        operator = getattr(torch.ops.aten, f"_upsample_{mode}2d_aa")
        rules[operator.default] = rules[operator.vec] = antialiased_resize.upsample(mode)
    return rules


def with_runnable_forms(program: Any, example: tuple[Any, ...]) -> Any:
    """Return an exported program without what ExecuTorch's kernels lack.

    The kernel of convolutions has two axes at most, and fails in three when the file is run (error 0x12). There is none
    of bicubic antialiased resizing.

    Args:
        program: The `ExportedProgram`.
        example: Inputs of the program.

    Returns:
        The program itself where it has no such operators.
    """
    import torch
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    rules = volumes() | antialiased()
    if not any(node.target in rules for node in program.graph.nodes if node.op == "call_function"):
        return program

    class InOtherForms(torch.nn.Module):  # type: ignore[misc]
        """The program, traced once more."""

        def __init__(self) -> None:
            super().__init__()
            self.module = program.module()

        def forward(self, *inputs: Any) -> Any:
            with traced_in_forms(rules):
                return self.module(*inputs)

    # A quantizer takes weights that are constants, not reshaped ones.
    return constant_prop_pass(torch.export.export(InOtherForms(), example))

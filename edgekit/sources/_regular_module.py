"""What is done to a user's PyTorch module, so that every converter takes it.

Converters expect weights of their own in float32 and in order of their axes, positional arguments that stay unchanged,
and a flat tuple of tensors as the result. Users' modules reparametrize weights, compute in half precision, change
their inputs in place, take keyword arguments and return nested structures.
"""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from edgekit.core.values.specs import TensorSpec
from edgekit.sources._encoder_masks import without_nested_tensors
from edgekit.sources._module_outputs import is_flat, outputs_of

# The floating-point types that are rebuilt in float32, by numpy's and torch's names.
OTHER_FLOATS = ("float16", "bfloat16", "float64")
# Methods of tensors that convert to such a type, without an argument that names it.
_CASTS = ("half", "bfloat16", "double", "float")


def in_float32(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return specs of inputs with float32 in place of the other floating-point types."""
    return tuple(replace(spec, dtype="float32") if spec.dtype in OTHER_FLOATS else spec for spec in specs)


def other_floats(module: Any) -> list[str]:
    """Return the floating-point types but float32 of a module's weights, sorted."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors} & set(OTHER_FLOATS))


def with_plain_weights(module: Any) -> Any:
    """Change a module in eval mode so that its weights are plain tensors in float32.

    Parametrizations (weight and spectral norm, orthogonal matrices, pruning) are computed once and removed. Weights are
    stored in order of their axes. Weights in another floating-point type become float32. Convolutions with
    `padding="same"` state their padding in numbers, and transformer encoders use no nested tensors.

    Args:
        module: The module, with its weights loaded.

    Returns:
        The module itself, or, if its weights were of another floating-point type, a module around it that computes in
        float32 whatever types the code names.
    """
    import torch

    others = other_floats(module)
    with torch.no_grad():
        # In the type of the weights: a decomposition in float32 is another one than in float64.
        _remove_parametrizations(module)
        _pad_explicitly(module)
        without_nested_tensors(module)
        if others:
            module = _in_float32_module(module.float())
        _make_contiguous(module)
    return module


def _remove_parametrizations(module: Any) -> None:
    from torch.nn.utils import parametrize, prune
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _compute_parametrized(part)
        for key, hook in list(part._forward_pre_hooks.items()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)
            elif isinstance(hook, (WeightNorm, SpectralNorm)):
                hook.remove(part)
                # The weight was an attribute that the hook computed; the hook itself would compute it again.
                part._forward_pre_hooks.pop(key, None)


def _compute_parametrized(part: Any) -> None:
    """Turn the parametrized tensors of a module into parameters."""
    import torch

    values = {name: getattr(part, name).detach().clone() for name in part.parametrizations}
    # `remove_parametrizations` (torch 2.13) deletes the properties of the class, which copies of the module share.
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))


def _pad_explicitly(module: Any) -> None:
    """State the padding of convolutions with `padding="same"` in numbers; an even kernel gets a pad of its own."""
    import torch

    pads = {1: torch.nn.ConstantPad1d, 2: torch.nn.ConstantPad2d, 3: torch.nn.ConstantPad3d}
    replaced: dict[Any, Any] = {}
    for parent in list(module.modules()):
        for name, conv in list(parent._modules.items()):
            if conv in replaced:
                parent._modules[name] = replaced[conv]
            if not isinstance(conv, torch.nn.modules.conv._ConvNd) or conv.padding != "same":
                continue
            # The last axis first, as F.pad takes them; PyTorch pads one more at the end.
            sides = list(conv._reversed_padding_repeated_twice)
            if conv.padding_mode != "zeros" or type(conv).__name__ not in ("Conv1d", "Conv2d", "Conv3d"):
                continue
            conv.padding = tuple(reversed(sides[::2]))
            if sides[::2] != sides[1::2]:
                conv.padding = (0,) * (len(sides) // 2)
                replaced[conv] = torch.nn.Sequential(pads[len(sides) // 2](tuple(sides), 0.0), conv).eval()
                parent._modules[name] = replaced[conv]


def _make_contiguous(module: Any) -> None:
    """Store every weight in order of its axes, in memory of its own."""
    import torch

    # ExecuTorch 1.5 cannot lower channels-last weights, and its XNNPACK serializer ignores strides.
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if not tensor.is_sparse and tensor.layout is torch.strided and not tensor.is_quantized:
            if not tensor.is_contiguous():
                tensor.data = tensor.data.contiguous()
            elif tensor.dim() >= 4 and tensor.stride() != _strides(tensor.shape):
                # A 1x1 kernel is contiguous in both memory formats; its strides still say channels last.
                tensor.data = tensor.data.clone(memory_format=torch.contiguous_format).reshape(-1).view(tensor.shape)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor whose elements lie in order of its axes."""
    sizes = [max(size, 1) for size in shape]
    return tuple(itertools.accumulate(reversed(sizes[1:]), operator.mul, initial=1))[::-1]


def _in_float32_module(module: Any) -> Any:
    import torch

    class InFloat32(torch.nn.Module):  # type: ignore[misc]
        """A module whose code may name other floating-point types, but computes in that of its weights."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.described_forward = module.forward

        def forward(self, *arguments: Any, **keywords: Any) -> Any:
            # float64 where the rounding of float32 is measured.
            weights = next(filter(torch.is_floating_point, self.module.state_dict().values()))
            with naming_only(weights.dtype):
                return self.module(*arguments, **keywords)

    return InFloat32().eval()


@contextmanager
def naming_only(dtype: Any) -> Iterator[None]:
    """Let code that names a floating-point type get this one, for as long as the block runs."""
    import torch
    from torch.overrides import TorchFunctionMode

    names = {torch.float32, *(getattr(torch, name) for name in OTHER_FLOATS)}

    def renamed(value: Any) -> Any:
        return dtype if isinstance(value, torch.dtype) and value in names else value

    class Naming(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in _CASTS:
                return args[0].to(dtype)
            return func(*map(renamed, args), **{name: renamed(value) for name, value in (kwargs or {}).items()})

    with Naming():
        yield


@dataclass(frozen=True)
class Adaptation:
    """How a module is called.

    Attributes:
        keywords: The parameter of `forward` for each input; empty if the inputs are positional.
        copied: The positions of inputs that the module changes in place.
        flattened: Whether the result is nested, or contains more than tensors.
        variadic: Whether `forward` takes `*inputs`, whose number exporters cannot read from it.
    """

    keywords: tuple[str, ...] = ()
    copied: tuple[int, ...] = ()
    flattened: bool = False
    variadic: bool = False

    def apply(self, module: Any, inputs: int, outputs: int) -> Any:
        """Return the module, wrapped if it needs it.

        Args:
            module: The module.
            inputs: The number of its inputs.
            outputs: The number of tensors that it returns.

        Returns:
            A module with positional inputs that it does not change, which returns a tensor or a tuple of tensors.
        """
        if self == Adaptation():
            return module
        import torch

        def copy(graph: Any, nodes: list[Any]) -> list[Any]:
            return [
                graph.call_function(torch.clone, (node,)) if index in self.copied else node
                for index, node in enumerate(nodes)
            ]

        return wrapped(module, inputs, outputs, copy, lambda _graph, nodes: nodes, self.keywords)


def adaptation(module: Any, names: Sequence[str], examples: Sequence[Any]) -> Adaptation:
    """Run a module once and return how it has to be called.

    Args:
        module: The module.
        names: The names of the inputs.
        examples: A tensor for each input.

    Returns:
        The adaptation.

    Raises:
        Exception: Whatever the user's code raises.
    """
    keywords = keywords_of(module, names)
    # The counter of in-place operations: values may happen to stay, as those of a ReLU on positive numbers.
    tensors = [example.clone() for example in examples]
    versions = [tensor._version for tensor in tensors]
    result = observed(module, tensors, keywords)
    changed = tuple(index for index, tensor in enumerate(tensors) if tensor._version != versions[index])
    return Adaptation(keywords, changed, not is_flat(result), _is_variadic(module))


def observed(module: Any, tensors: Sequence[Any], keywords: Sequence[str]) -> Any:
    """Return what a module returns, and leave its buffers and the random numbers as they were."""
    import torch

    parts = [(part, dict(part._buffers.items())) for part in module.modules()]
    lazy = torch.nn.parameter.is_lazy  # a buffer without values yet
    values = [(buffer, buffer.clone()) for buffer in module.buffers() if not lazy(buffer)]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return called(module, tensors, keywords)
    finally:
        for part, buffers in parts:  # assigned anew, or changed in place
            if isinstance(part, torch.jit.ScriptModule):  # its `_buffers` is a view that cannot be written
                for name, buffer in buffers.items():
                    setattr(part, name, buffer)
            else:
                part._buffers.update(buffers)
        for buffer, before in values:
            buffer.data = before


def called(module: Any, tensors: Sequence[Any], keywords: Sequence[str]) -> Any:
    """Return what a module returns for its inputs, by keyword if there are keywords."""
    return module(**dict(zip(keywords, tensors, strict=True))) if keywords else module(*tensors)


def keywords_of(module: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of inputs if they have to be passed by keyword, else an empty tuple.

    Inputs are passed by position, as users declare them in the order of a call, unless all are named like parameters
    of `forward` that positions would not reach: in another order, keyword-only, or with optional ones left out.
    """
    try:
        parameters = inspect.signature(getattr(module, "described_forward", module.forward)).parameters
    except (TypeError, ValueError):  # a forward of C++ describes no parameters
        return ()
    kinds = inspect.Parameter
    by_name = [name for name, parameter in parameters.items() if parameter.kind in _BY_NAME]
    positional = [name for name in by_name if parameters[name].kind is kinds.POSITIONAL_OR_KEYWORD]
    if not set(names) <= set(by_name) or positional[: len(names)] == list(names):
        return ()
    return tuple(names)


def _is_variadic(module: Any) -> bool:
    import torch

    if isinstance(module, torch.fx.GraphModule):  # its graph has one placeholder for each input
        return False
    parameters = inspect.signature(module.forward).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

GraphEdit = Callable[[Any, list[Any]], list[Any]]


def wrapped(
    model: Any,
    inputs: int,
    outputs: int,
    before: GraphEdit,
    after: GraphEdit,
    keywords: Sequence[str] = (),
    parts: Mapping[str, Any] | None = None,
) -> Any:
    """Return a GraphModule that calls another module, with nodes inserted before and after the call.

    It is built as a graph because FX does not trace a forward with `*inputs`; a graph with one placeholder per input is
    accepted by FX, jit and export alike.

    Args:
        model: The inner module.
        inputs: The number of its inputs.
        outputs: The number of its outputs.
        before: Adds nodes for the inputs, and returns what the inner module is called with.
        after: Adds nodes for the outputs, and returns the results.
        keywords: The parameters to which the inputs are passed; empty for positions.
        parts: Modules that the added nodes call, by name.

    Returns:
        A `torch.fx.GraphModule` in eval mode.
    """
    import torch

    graph = torch.fx.Graph()
    arguments = before(graph, [graph.placeholder(f"input_{index}") for index in range(inputs)])
    named = dict(zip(keywords, arguments, strict=True)) if keywords else {}
    call = graph.call_module("module", () if named else tuple(arguments), named)
    returned = graph.call_function(outputs_of, (call,))
    results = [graph.call_function(operator.getitem, (returned, index)) for index in range(outputs)]
    results = after(graph, results)
    graph.output(results[0] if len(results) == 1 else tuple(results))
    root = torch.nn.Module()
    root.module = model
    for name, part in (parts or {}).items():
        root.add_module(name, part)
    return torch.fx.GraphModule(root, graph).eval()

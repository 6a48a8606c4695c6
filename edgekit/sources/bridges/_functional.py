"""Rewriting of a module's exported graph into idiomatic PyTorch: torch functions, folded constants, no redundant casts.

Graphs of other frameworks contain casts to the type that a tensor already has, weights that are permuted at every call,
and matmul and add in place of linear. Quantizers and delegates match PyTorch's own forms only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgekit.core.values.specs import Dim, Signature, TensorSpec

# Checks that torch.export inserts. They compute nothing, and no converter has a kernel for them.
_ASSERTIONS = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")
# The names of folded constants' buffers; they end up in converted files.
_FOLDED = "folded_"
# Operators that return their input's value, provided that they do not change its type.
_SAME_TYPE = ("to", "contiguous", "clone", "detach", "alias", "_to_copy", "dropout", "lift_fresh_copy")


def functional(module: Any, signature: Signature, examples: tuple[Any, ...] | None = None) -> Any:
    """Export a module and rewrite its graph with PyTorch's functions.

    Args:
        module: A module whose forward takes `*inputs`, in the signature's order.
        signature: The inputs and outputs; each symbolic dimension becomes one symbol of the graph.
        examples: Inputs that the module accepts; zeros of suitable sizes by default.

    Returns:
        A `torch.fx.GraphModule` over the same weights, whose outputs are equal up to rounding.

    Raises:
        Exception: Whatever torch.export raises if it cannot trace the module, or not for every size of a dimension.
    """
    import torch

    examples = example_inputs(signature) if examples is None else examples
    program = _exported(module, signature, examples)
    graph_module = program.module(check_guards=False)
    # The order matters: casts hide constants from folding, folded matrices are what linear needs, and convolutions
    # absorb their arithmetic before activations move across the permutes behind them.
    for rewrite in (_drop_nothing, _drop_casts, _fold_constants, _to_linear, _affine_into_convolution, _permutes_down):
        rewrite(graph_module)
        graph_module.graph.eliminate_dead_code()
    _cancel_permutes(graph_module)
    _name_functions(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    # A new GraphModule copies only the attributes that the graph still reads: replaced weights are left behind.
    clean = torch.fx.GraphModule(graph_module, graph_module.graph)
    for part in clean.modules():
        part.training = False  # exported modules override eval() with an error
    for parameter in clean.parameters():
        parameter.requires_grad_(False)
    return clean


def _exported(module: Any, signature: Signature, examples: tuple[Any, ...]) -> Any:
    """Return the program of a module, whose symbolic dimensions are independent symbols."""
    import torch

    # The module's forward has the single parameter *inputs, so the shapes are passed as one nested tuple.
    shapes = _dynamic_shapes(signature)
    try:
        return torch.export.export(module, examples, dynamic_shapes=(shapes,))
    except Exception:  # raised also for a graph that is right for most sizes, such as even ones
        inner = {*signature.symbols} - {signature.batch}
        if not inner:
            raise
        anything = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in shapes)
        program = torch.export.export(
            module, examples, dynamic_shapes=(anything,), prefer_deferred_runtime_asserts_over_guards=True
        )
        if not _independent(program, signature):
            raise
        return program


def _independent(program: Any, signature: Signature) -> bool:
    """Return whether each symbolic dimension of the signature is a symbol of its own in a program."""
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    symbols: dict[str, set[str]] = {}
    for name, spec in zip(program.graph_signature.user_inputs, signature.inputs, strict=True):
        for actual, dim in zip(shapes[name], spec.shape, strict=True):
            if isinstance(dim, str):
                symbols.setdefault(dim, set()).add("" if isinstance(actual, int) else str(actual))
    found = [next(iter(names)) for names in symbols.values()]
    return all(len(names) == 1 for names in symbols.values()) and "" not in found and len({*found}) == len(found)


def functional_or_single(module: Any, signature: Signature) -> tuple[Any, Signature]:
    """Rewrite a module as `functional` does, for a batch of one if its graph is that of one number of samples only.

    Args:
        module: A module whose forward takes `*inputs`, in the signature's order.
        signature: The inputs and outputs.

    Returns:
        The module, and its signature, whose batch may be 1.

    Raises:
        Exception: Whatever torch.export raises if it cannot trace the module for one sample either.
    """
    try:
        return functional(module, signature), signature
    except Exception:
        single = _one_sample(signature)
        if single == signature:
            raise
    return functional(module, single), single


def _one_sample(signature: Signature) -> Signature:
    """Return the signature with a batch of one.

    Exporters that trace with one sample write its size into reshapes, but declare the dimension symbolic.
    """
    batches = {spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)}

    def with_batch_of_one(spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=tuple(1 if dim in batches else dim for dim in spec.shape))

    return Signature(tuple(map(with_batch_of_one, signature.inputs)), tuple(map(with_batch_of_one, signature.outputs)))


def example_inputs(signature: Signature) -> tuple[Any, ...]:
    """Return zeros as the inputs of an export, with a different size for each symbolic dimension.

    Args:
        signature: The inputs.

    Returns:
        One tensor per input, in the signature's order.
    """
    import torch

    # From 2 up: torch.export specializes dimensions of size 0 and 1 to constants.
    batches = (spec.shape[0] for spec in signature.inputs if spec.shape)
    sizes = {name: size for size, name in enumerate(dict.fromkeys(filter(_symbolic, batches)), start=2)}
    # Other symbols may be the sides of an image: 64 survives the five halvings of common networks, and multiples of 32
    # leave no remainder at any of them.
    inner = (dim for spec in signature.inputs for dim in spec.shape[1:] if _symbolic(dim) and dim not in sizes)
    sizes |= {name: 64 + 32 * index for index, name in enumerate(dict.fromkeys(inner))}
    return tuple(
        torch.zeros(
            [dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape], dtype=getattr(torch, spec.dtype)
        )
        for spec in signature.inputs
    )


def _symbolic(dim: Dim) -> bool:
    return isinstance(dim, str)


def _dynamic_shapes(signature: Signature) -> tuple[dict[int, Any], ...]:
    """Return torch.export's description of each input: the dynamic axes, with one `Dim` per symbolic name."""
    import torch

    names = dict.fromkeys(dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str))
    dims = {name: torch.export.Dim(f"d{index}") for index, name in enumerate(names)}  # an identifier, whatever the name
    return tuple(
        {axis: dims[dim] for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in signature.inputs
    )


def _op(node: Any) -> str:
    """Return the operator of an aten call, `conv2d` for `aten.conv2d.default`; empty for any other node."""
    return str(node.target).split(".")[1] if node.op == "call_function" and str(node.target).startswith("aten.") else ""


def _constant(graph_module: Any, node: Any) -> Any:
    """Return the tensor of a get_attr node, else None."""
    if getattr(node, "op", None) != "get_attr":
        return None
    value = operator.attrgetter(node.target)(graph_module)
    return value.detach()


def _add_constant(graph_module: Any, before: Any, tensor: Any) -> Any:
    """Insert a get_attr node for the tensor before another node and return it."""
    import torch

    # Equal tensors share one buffer: an unrolled recurrent layer folds the same weights at every step.
    folded = {name: buffer for name, buffer in graph_module.named_buffers() if name.startswith(_FOLDED)}
    same = (name for name, buffer in folded.items() if buffer.dtype == tensor.dtype and torch.equal(buffer, tensor))
    name = next(same, None)
    if name is None:
        name = f"{_FOLDED}{len(folded)}"
        # Cloned: a view would bring its whole storage into the saved file.
        graph_module.register_buffer(name, tensor.detach().clone(memory_format=torch.contiguous_format))
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def _drop_nothing(graph_module: Any) -> None:
    """Remove the assertions that torch.export inserts."""
    for node in list(graph_module.graph.nodes):
        if any(name in str(node.target) for name in _ASSERTIONS):
            graph_module.graph.erase_node(node)


def _drop_casts(graph_module: Any) -> None:
    """Remove copies, and casts to the type that the input already has."""
    for node in list(graph_module.graph.nodes):
        if _op(node) in _SAME_TYPE and hasattr(node.args[0], "meta"):
            before, after = node.args[0].meta.get("val"), node.meta.get("val")
            described = before is not None and after is not None
            constant = _constant(graph_module, node.args[0])
            # The get_attr nodes that `_add_constant` inserts have no meta: the tensor itself has the type.
            before = constant if constant is not None else before
            if (described or constant is not None) and before.dtype == after.dtype:
                node.replace_all_uses_with(node.args[0])
                graph_module.graph.erase_node(node)


def _fold_constants(graph_module: Any) -> None:
    """Compute calls whose tensors are all constants."""
    import torch

    for node in list(graph_module.graph.nodes):
        inputs = node.all_input_nodes
        if not _op(node) or not inputs or any(_constant(graph_module, argument) is None for argument in inputs):
            continue
        values = {argument: _constant(graph_module, argument) for argument in inputs}
        arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
        tensor = node.target(*arguments, **keywords)
        if not isinstance(tensor, torch.Tensor):  # such as chunk: its readers are getitem calls, which are not folded
            continue
        node.replace_all_uses_with(_add_constant(graph_module, node, tensor))
        graph_module.graph.erase_node(node)


def _sole_add(graph_module: Any, node: Any) -> tuple[Any, Any]:
    """Return the add that is a node's only reader, with the constant that it adds; else (None, None)."""
    readers = list(node.users)
    # kwargs: add(x, y, alpha=2) scales y.
    if len(readers) == 1 and _op(readers[0]) == "add" and not readers[0].kwargs:
        other = readers[0].args[1] if readers[0].args[0] is node else readers[0].args[0]
        return readers[0], _constant(graph_module, other)
    return None, None


def _along_last(bias: Any, size: int) -> bool:
    """Return whether the constant has `size` values, all along its last axis, as a bias must."""
    return bool(bias.numel() == size and bias.dim() > 0 and bias.shape[-1] == size)


def _no_wider(bias: Any, node: Any) -> bool:
    """Return whether adding the constant keeps the node's rank: (N, C) plus (1, 1, C) is (1, N, C)."""
    value = node.meta.get("val")
    return bool(bias.dim() == 1 or (value is not None and bias.dim() <= value.dim()))


def _to_linear(graph_module: Any) -> None:
    """Replace matmul by a constant matrix, and the add of a constant vector behind it, by linear."""
    import torch

    for node in list(graph_module.graph.nodes):
        weight = _constant(graph_module, node.args[1]) if _op(node) in ("matmul", "mm") else None
        if weight is None or weight.dim() != 2 or not weight.is_floating_point():
            continue
        add, bias = _sole_add(graph_module, node)
        if bias is not None and not (_along_last(bias, weight.shape[1]) and _no_wider(bias, node)):
            add, bias = None, None
        matrix = _add_constant(graph_module, node, weight.t())  # linear takes (out, in), matmul (in, out)
        vector = None if bias is None else _add_constant(graph_module, node, bias.reshape(-1))
        with graph_module.graph.inserting_before(node):
            linear = graph_module.graph.call_function(
                torch.ops.aten.linear.default,
                (node.args[0], matrix) if vector is None else (node.args[0], matrix, vector),
            )
        (node if bias is None else add).replace_all_uses_with(linear)


def _affine_into_convolution(graph_module: Any) -> None:
    """Fold arithmetic with one constant per channel behind a convolution and its permute into the weights and bias.

    Keras's torch backend writes both this way: the bias as an add, and batch norm as a multiplication and an add.
    """
    for node in list(graph_module.graph.nodes):
        if _op(node) not in ("conv1d", "conv2d") or len(node.users) != 1:
            continue
        last = next(iter(node.users))
        weight = _constant(graph_module, node.args[1])
        # A permute to channels last: channels (axis 1) become the last axis, along which the constants broadcast.
        if _op(last) != "permute" or last.args[1][-1] != 1 or weight is None:
            continue
        bias = _constant(graph_module, node.args[2]) if len(node.args) > 2 else None
        if len(node.args) > 2 and node.args[2] is not None and bias is None:
            continue
        _fold_readers(graph_module, node, last, weight, bias)


def _fold_readers(graph_module: Any, node: Any, last: Any, weight: Any, bias: Any) -> None:
    """Fold the chain of sole readers behind the permute, as long as each applies one constant per channel."""
    changed = False
    while (step := _channelwise(graph_module, last, weight.shape[0])) is not None:
        reader, operation, constant = step
        weight, bias = _applied(operation, constant.reshape(-1), weight, bias)
        reader.replace_all_uses_with(last)
        graph_module.graph.erase_node(reader)
        changed = True
    if changed:
        matrix = _add_constant(graph_module, node, weight)
        vector = None if bias is None else _add_constant(graph_module, node, bias)
        node.args = (node.args[0], matrix, vector, *node.args[3:])


def _channelwise(graph_module: Any, node: Any, channels: int) -> tuple[Any, str, Any] | None:
    """Return a node's only reader, its operation and its constant, if it applies one constant per channel."""
    names = {"add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul"}
    readers = list(node.users)
    operation = names.get(_op(readers[0]).removesuffix("_")) if len(readers) == 1 else None
    if operation is None or readers[0].kwargs or len(readers[0].args) != 2:
        return None
    first, second = readers[0].args
    if first is not node and operation == "sub":  # constant - x would also negate the weights
        return None
    constant = _constant(graph_module, second if first is node else first)
    if constant is None or not _along_last(constant, channels) or constant.dim() > node.meta["val"].dim():
        return None
    return readers[0], operation, constant


def _applied(operation: str, constant: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Return weight (O, ...) and bias (O,) after the operation: c * (w x + b) = (c w) x + c b."""
    if operation == "mul":
        scaled = weight * constant.reshape(-1, *[1] * (weight.dim() - 1))
        return scaled, None if bias is None else bias * constant
    shift = constant if operation == "add" else -constant
    return weight, shift if bias is None else bias + shift


def _permutes_down(graph_module: Any) -> None:
    """Rewrite relu(permute(x)) as permute(relu(x)).

    The permutes of neighbouring layers then become adjacent and cancel, and quantizers find the activation directly
    behind its convolution.
    """
    elementwise = (
        "relu",
        "relu6",
        "hardtanh",
        "sigmoid",
        "tanh",
        "silu",
        "hardswish",
        "hardsigmoid",
        "leaky_relu",
        "elu",
    )
    for node in list(graph_module.graph.nodes):
        permute = node.args[0] if _op(node) in elementwise else None
        if permute is None or _op(permute) != "permute" or len(permute.users) != 1:
            continue
        node.replace_input_with(permute, permute.args[0])
        with graph_module.graph.inserting_after(node):
            moved = graph_module.graph.call_function(permute.target, (node, permute.args[1]))
        # All readers but the new permute, which reads the node itself; the default argument binds the loop's value.
        node.replace_all_uses_with(moved, delete_user_cb=lambda user, moved=moved: user is not moved)


def _cancel_permutes(graph_module: Any) -> None:
    """Merge permutes of permutes, and remove those that keep the order."""
    for node in list(graph_module.graph.nodes):
        if _op(node) != "permute":
            continue
        order = list(node.args[1])
        first = node.args[0]
        if _op(first) == "permute":
            order = [first.args[1][index] for index in order]
            node.args = (first.args[0], order)
        if order == sorted(order):
            node.replace_all_uses_with(node.args[0])


def _name_functions(graph_module: Any) -> None:
    """Replace aten operators by PyTorch's functions where FX quantization matches those; keep all others."""
    import torch
    import torch.nn.functional as F

    names: dict[str, Callable[..., Any]] = {
        "conv1d": F.conv1d,
        "conv2d": F.conv2d,
        "linear": F.linear,
        "relu": F.relu,
        "relu6": F.relu6,
        "hardtanh": F.hardtanh,
        "hardswish": F.hardswish,
        "max_pool2d": F.max_pool2d,
        "avg_pool2d": F.avg_pool2d,
        "adaptive_avg_pool2d": F.adaptive_avg_pool2d,
        "add": operator.add,
        "cat": torch.cat,
        "permute": torch.permute,
        "reshape": torch.reshape,
        "softmax": torch.softmax,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "mean": torch.mean,
    }
    for node in graph_module.graph.nodes:
        name = _op(node)
        if name in names and not (name == "add" and node.kwargs):  # operator.add has no alpha
            node.target = names[name]
        if name == "sym_size" and len(node.args) > 1:  # torch.jit.trace records the method, and a number otherwise
            node.op, node.target = "call_method", "size"
        if name in ("conv1d", "conv2d"):  # FX quantization packs weights only if every argument is explicit
            size = int(name[4])
            defaults = (None, [1] * size, [0] * size, [1] * size, 1)
            node.args = (*node.args, *defaults[len(node.args) - 2 :])

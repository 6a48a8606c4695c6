"""A module's exported graph, written again as a PyTorch user would have: torch functions, folded constants, no casts.

A graph that was written in another framework is full of casts to the type it has already, of weights that are permuted
at every call, and of matmul and add where PyTorch says linear. Quantizers and delegates look for PyTorch's own forms.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from edgekit.core.values.specs import Dim, Signature

_NOTHING = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")
_FOLDED = "folded_"
_SAME_TYPE = ("to", "contiguous", "clone", "detach", "alias", "_to_copy", "dropout", "lift_fresh_copy")


def functional(module: Any, signature: Signature, examples: tuple[Any, ...] | None = None) -> Any:
    """The module as a torch.fx.GraphModule over the same weights. Outputs are equal up to rounding.

    The module takes the signature's inputs one by one, as `*inputs`; what is symbolic there stays symbolic, a symbol
    each name. `examples` are inputs that it is known to take. Raises what torch.export raises when it cannot trace the
    module, or not for every size of a dimension.
    """
    import torch

    examples = example_inputs(signature) if examples is None else examples
    # The module's forward takes its inputs as *inputs: their shapes are given as one tuple.
    program = torch.export.export(module, examples, dynamic_shapes=(_dynamic_shapes(signature),))
    graph_module = program.module(check_guards=False)
    for rewrite in (_drop_nothing, _drop_casts, _fold_constants, _to_linear, _affine_into_convolution, _permutes_down):
        rewrite(graph_module)
        graph_module.graph.eliminate_dead_code()
    _cancel_permutes(graph_module)
    _name_functions(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    clean = torch.fx.GraphModule(graph_module, graph_module.graph)
    for part in clean.modules():
        part.training = False  # eval() of an exported graph refuses
    for parameter in clean.parameters():
        parameter.requires_grad_(False)
    return clean


def example_inputs(signature: Signature) -> tuple[Any, ...]:
    """Zeros of every input's shape, each symbolic dimension with a size of its own.

    No size is 0 or 1, which torch.export takes for constants. A batch is small; elsewhere a symbol may be an image's
    side, which has to last through all of a network's strides.
    """
    import torch

    batches = (spec.shape[0] for spec in signature.inputs if spec.shape)
    sizes = {name: size for size, name in enumerate(dict.fromkeys(filter(_symbolic, batches)), start=2)}
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
    """What torch.export is told of each input: which axes are free, and which of them are the same."""
    import torch

    names = dict.fromkeys(dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str))
    dims = {name: torch.export.Dim(f"d{index}") for index, name in enumerate(names)}  # an identifier, whatever the name
    return tuple(
        {axis: dims[dim] for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in signature.inputs
    )


def _op(node: Any) -> str:
    """`conv2d` of `aten.conv2d.default`; empty for anything but an aten call."""
    return str(node.target).split(".")[1] if node.op == "call_function" and str(node.target).startswith("aten.") else ""


def _constant(graph_module: Any, node: Any) -> Any:
    """The tensor of a get_attr node, or None."""
    if getattr(node, "op", None) != "get_attr":
        return None
    value = operator.attrgetter(node.target)(graph_module)
    return value.detach()


def _add_constant(graph_module: Any, before: Any, tensor: Any) -> Any:
    """A get_attr node for the tensor, placed before a node. Equal tensors, a recurrent layer's at each step, are one.

    The tensor is copied: a view, kept, would take all of its storage into the file.
    """
    import torch

    folded = {name: buffer for name, buffer in graph_module.named_buffers() if name.startswith(_FOLDED)}
    same = (name for name, buffer in folded.items() if buffer.dtype == tensor.dtype and torch.equal(buffer, tensor))
    name = next(same, None)
    if name is None:
        name = f"{_FOLDED}{len(folded)}"
        graph_module.register_buffer(name, tensor.detach().clone(memory_format=torch.contiguous_format))
    with graph_module.graph.inserting_before(before):
        return graph_module.graph.get_attr(name)


def _drop_nothing(graph_module: Any) -> None:
    for node in list(graph_module.graph.nodes):
        if any(name in str(node.target) for name in _NOTHING):
            graph_module.graph.erase_node(node)


def _drop_casts(graph_module: Any) -> None:
    """Casts to the type that is there already, and copies: the value is the input's."""
    for node in list(graph_module.graph.nodes):
        if _op(node) in _SAME_TYPE and hasattr(node.args[0], "meta"):
            before, after = node.args[0].meta.get("val"), node.meta.get("val")
            known = before is not None and after is not None
            constant = _constant(graph_module, node.args[0])
            before = constant if constant is not None else before
            if (known or constant is not None) and before.dtype == after.dtype:
                node.replace_all_uses_with(node.args[0])
                graph_module.graph.erase_node(node)


def _fold_constants(graph_module: Any) -> None:
    """Calls whose tensors are all weights are computed now."""
    import torch

    for node in list(graph_module.graph.nodes):
        inputs = node.all_input_nodes
        if not _op(node) or not inputs or any(_constant(graph_module, item) is None for item in inputs):
            continue
        values = {item: _constant(graph_module, item) for item in inputs}
        arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
        tensor = node.target(*arguments, **keywords)
        if not isinstance(tensor, torch.Tensor):  # chunks, say: whoever reads one of them is no call of aten
            continue
        node.replace_all_uses_with(_add_constant(graph_module, node, tensor))
        graph_module.graph.erase_node(node)


def _sole_add(graph_module: Any, node: Any) -> tuple[Any, Any]:
    """The add of a constant that is the only reader of a node, and the constant; or (None, None)."""
    readers = list(node.users)
    if len(readers) == 1 and _op(readers[0]) == "add" and not readers[0].kwargs:
        other = readers[0].args[1] if readers[0].args[0] is node else readers[0].args[0]
        return readers[0], _constant(graph_module, other)
    return None, None


def _along_last(bias: Any, size: int) -> bool:
    """Whether the constant has `size` values and all of them stand along the last axis, as a bias must."""
    return bool(bias.numel() == size and bias.dim() > 0 and bias.shape[-1] == size)


def _no_wider(bias: Any, node: Any) -> bool:
    """Whether adding the constant leaves the node's rank: (1, 1, C) makes a row of every (N, C)."""
    value = node.meta.get("val")
    return bool(bias.dim() == 1 or (value is not None and bias.dim() <= value.dim()))


def _to_linear(graph_module: Any) -> None:
    """matmul by a constant matrix, and the add of a constant vector behind it."""
    import torch

    for node in list(graph_module.graph.nodes):
        weight = _constant(graph_module, node.args[1]) if _op(node) in ("matmul", "mm") else None
        if weight is None or weight.dim() != 2 or not weight.is_floating_point():
            continue
        add, bias = _sole_add(graph_module, node)
        if bias is not None and not (_along_last(bias, weight.shape[1]) and _no_wider(bias, node)):
            add, bias = None, None
        matrix = _add_constant(graph_module, node, weight.t())
        vector = None if bias is None else _add_constant(graph_module, node, bias.reshape(-1))
        with graph_module.graph.inserting_before(node):
            linear = graph_module.graph.call_function(
                torch.ops.aten.linear.default,
                (node.args[0], matrix) if vector is None else (node.args[0], matrix, vector),
            )
        (node if bias is None else add).replace_all_uses_with(linear)


def _affine_into_convolution(graph_module: Any) -> None:
    """What is added to, subtracted from and multiplied with each channel of a convolution, permuted to channels last,
    goes into its weights and bias: a bias that stands apart, and batch norm, which Keras writes out as arithmetic."""
    for node in list(graph_module.graph.nodes):
        if _op(node) not in ("conv1d", "conv2d") or len(node.users) != 1:
            continue
        last = next(iter(node.users))
        weight = _constant(graph_module, node.args[1])
        if _op(last) != "permute" or last.args[1][-1] != 1 or weight is None:
            continue
        bias = _constant(graph_module, node.args[2]) if len(node.args) > 2 else None
        if len(node.args) > 2 and node.args[2] is not None and bias is None:
            continue
        _fold_readers(graph_module, node, last, weight, bias)


def _fold_readers(graph_module: Any, node: Any, last: Any, weight: Any, bias: Any) -> None:
    """Folds the chain of sole readers behind the permute, as long as each applies one constant a channel."""
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
    """The only reader of a node, where it adds, subtracts or multiplies one constant a channel; what it does; it."""
    names = {"add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul"}
    readers = list(node.users)
    operation = names.get(_op(readers[0]).removesuffix("_")) if len(readers) == 1 else None
    if operation is None or readers[0].kwargs or len(readers[0].args) != 2:
        return None
    first, second = readers[0].args
    if first is not node and operation == "sub":
        return None
    constant = _constant(graph_module, second if first is node else first)
    if constant is None or not _along_last(constant, channels) or constant.dim() > node.meta["val"].dim():
        return None
    return readers[0], operation, constant


def _applied(operation: str, constant: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    if operation == "mul":
        scaled = weight * constant.reshape(-1, *[1] * (weight.dim() - 1))
        return scaled, None if bias is None else bias * constant
    shift = constant if operation == "add" else -constant
    return weight, shift if bias is None else bias + shift


def _permutes_down(graph_module: Any) -> None:
    """relu(permute(x)) to permute(relu(x)): the permutes of two layers then meet, and a convolution meets its relu."""
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
        node.replace_all_uses_with(moved, delete_user_cb=lambda user, moved=moved: user is not moved)


def _cancel_permutes(graph_module: Any) -> None:
    """A permute of a permute is one; the one that changes nothing is none."""
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
    """PyTorch's functions in place of aten's, where quantizers look for them; the rest stays as it is."""
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
        if name in names and not (name == "add" and node.kwargs):
            node.target = names[name]
        if name in ("conv1d", "conv2d"):  # FX quantization packs the weights with all of these
            size = int(name[4])
            defaults = (None, [1] * size, [0] * size, [1] * size, 1)
            node.args = (*node.args, *defaults[len(node.args) - 2 :])

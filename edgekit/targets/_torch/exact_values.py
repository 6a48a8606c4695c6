"""Operators of PyTorch graphs that stay in float beside integers, since they decide by exact values or mask."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

from edgekit.core.numerics.exact_values import MASKING_FROM, GraphOperation, Role, exact_values, is_mask

# Names of functions, methods, overloads and lower-case names of modules alike.
_DECIDES = frozenset(
    {
        "eq", "ne", "lt", "le", "gt", "ge", "equal", "isclose", "floor", "ceil", "round", "trunc", "sign", "remainder",
        "fmod", "floor_divide", "floordiv", "mod", "argmax", "argmin", "topk", "sort", "argsort", "nonzero", "unique",
        "isnan", "isinf", "bool", "long", "int", "bucketize", "searchsorted",
    }
)  # fmt: skip
_FORWARDS = frozenset(
    {
        "reshape", "view", "flatten", "unflatten", "permute", "transpose", "t", "slice", "select", "getitem", "squeeze",
        "unsqueeze", "index", "index_select", "gather", "pad", "constant_pad_nd", "cat", "concat", "stack", "split",
        "chunk", "split_with_sizes", "unbind", "narrow", "repeat", "tile", "expand", "expand_as", "broadcast_to",
        "flip", "roll", "clone", "contiguous", "detach", "alias", "identity", "dropout", "max", "min", "amax", "amin",
        "any", "all", "sum", "mean", "add", "add_", "iadd", "sub", "sub_", "isub", "rsub", "mul", "mul_", "imul", "div",
        "div_", "truediv", "abs", "neg", "square", "maximum", "minimum", "clamp", "clip", "relu", "where",
        "masked_fill", "masked_fill_", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or",
        "bitwise_not", "and_", "or_", "invert", "to", "_to_copy", "type_as", "float", "full", "full_like", "ones",
        "zeros", "ones_like", "zeros_like", "tril", "triu", "arange", "scalar_tensor",
    }
)  # fmt: skip
# Only these hide a value by a constant, or make such a constant.
_MASKS = frozenset(
    {
        "add", "add_", "iadd", "sub", "sub_", "isub", "rsub", "mul", "mul_", "imul", "where", "masked_fill",
        "masked_fill_", "maximum", "minimum", "full", "full_like",
    }
)  # fmt: skip
_OBSERVER = "activation_post_process"


def keep(prepared: Any, examples: tuple[Any, ...]) -> bool:
    """Remove the observers around operators that integers would falsify, so that these stay in float.

    Observers of tensors that are no floats, which FX graph mode (torch 2.13) inserts as well, are removed too. So are
    those of scalars: a pass of XNNPACK's partitioner (ExecuTorch 1.5) takes the first element of each quantized input.

    Args:
        prepared: A graph module with observers, of FX graph mode or PT2E.
        examples: Inputs of one call.

    Returns:
        Whether operators stay in float.
    """
    floats, scalars = _results(prepared, examples)
    computing = [
        node
        for node in prepared.graph.nodes
        if node.op in ("call_function", "call_method", "call_module") and not _is_observer(node)
    ]
    operations = [_operation(prepared, node, floats) for node in computing]
    exact = exact_values(operations, [node.name for node in prepared.graph.nodes if node.op == "placeholder"])
    for index in exact.operations:
        _unobserve(computing[index], exact.tensors)
    for node in list(prepared.graph.nodes):
        if _is_observer(node):
            observed = node.all_input_nodes[0]
            if not floats.get(observed.name, True) or observed.name in scalars:
                node.replace_all_uses_with(observed)
    prepared.graph.eliminate_dead_code()
    prepared.recompile()
    return bool(exact)


def _is_observer(node: Any) -> bool:
    return node.op == "call_module" and str(node.target).rpartition(".")[2].startswith(_OBSERVER)


def _observed(node: Any) -> Any:
    """Return the node that an observer looks at, or the node itself."""
    while _is_observer(node):
        node = node.all_input_nodes[0]
    return node


def _unobserve(node: Any, exact: frozenset[str]) -> None:
    for user in list(node.users):
        if _is_observer(user):
            user.replace_all_uses_with(node)
    for read in node.all_input_nodes:
        source = _observed(read)
        if read is not source and (source.op == "get_attr" or source.name in exact):
            node.replace_input_with(read, source)


def _results(module: Any, examples: tuple[Any, ...]) -> tuple[dict[str, bool], set[str]]:
    """Return whether the result of each node is a floating-point tensor, and the nodes whose result is a scalar tensor.

    No observer sees the values.
    """
    import torch

    floats: dict[str, bool] = {}
    scalars: set[str] = set()

    class FloatRecorder(torch.fx.Interpreter):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            result = self.fetch_args_kwargs_from_env(node)[0][0] if _is_observer(node) else super().run_node(node)
            floats[node.name] = not isinstance(result, torch.Tensor) or result.is_floating_point()
            if isinstance(result, torch.Tensor) and not result.ndim:
                scalars.add(node.name)
            return result

    with torch.no_grad():
        FloatRecorder(module).run(*examples)
    return floats, scalars


def _name(module: Any, node: Any) -> str:
    if node.op == "call_module":
        return type(module.get_submodule(node.target)).__name__.lower()
    name = getattr(node.target, "__name__", str(node.target))  # the overload `ne.Scalar` of an operator, else `ne`
    return str(name).partition(".")[0]


def _operation(module: Any, node: Any, floats: dict[str, bool]) -> GraphOperation:
    name = _name(module, node)
    role = Role.DECIDES if name in _DECIDES else Role.FORWARDS if name in _FORWARDS else Role.APPROXIMATES
    read = [_observed(source) for source in node.all_input_nodes]
    if role is Role.FORWARDS and name in ("to", "_to_copy", "type_as") and not floats[node.name]:
        role = Role.DECIDES if any(floats[source.name] for source in read) else role
    variables = tuple(source.name for source in read if source.op != "get_attr")
    masks = name in _MASKS and any(map(_is_large, _constants(module, node)))
    return GraphOperation(role, variables, (node.name,), masks)


def _constants(module: Any, node: Any) -> Iterator[Any]:
    yield from (value for value in (*node.args, *node.kwargs.values()) if isinstance(value, (int, float)))
    for source in map(_observed, node.all_input_nodes):
        if source.op == "get_attr":
            yield operator.attrgetter(source.target)(module)


def _is_large(constant: Any) -> bool:
    if isinstance(constant, (int, float)):
        return not math.isnan(constant) and abs(constant) >= MASKING_FROM
    return bool(constant.is_floating_point()) and is_mask(constant.detach().float().numpy())

"""Inputs of ONNX graphs that become constants, and the branches that are decided by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.core.values.fixed_inputs import FixedInput
from edgekit.sources._onnx_file import names_read, subgraphs

# Operators whose result differs at every run, even if their inputs are constants.
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def with_constants(model: Any, fixed: Sequence[FixedInput], batch_input: str | None) -> Any:
    """Return a graph with constants in place of some inputs, and without what they make unreachable.

    Each `If` whose condition follows from constants alone is replaced by the nodes of the branch that it takes.

    Args:
        model: The `onnx.ModelProto`; it is edited.
        fixed: The inputs.
        batch_input: The input whose batch the constants with a symbolic first dimension follow.

    Returns:
        The model.
    """
    from onnx import numpy_helper

    graph = model.graph
    names = {item.spec.name for item in fixed}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    before: list[Any] = []
    for item in fixed:
        follows = bool(item.spec.shape) and isinstance(item.spec.shape[0], str) and batch_input is not None
        name = f"{item.spec.name}/one_sample" if follows else item.spec.name
        graph.initializer.append(numpy_helper.from_array(item.array(), name))
        if follows:
            before += _expanded(graph, item, name, str(batch_input))
    nodes = [*before, *graph.node]
    _set_nodes(graph, _resolved(nodes, graph, model))
    _prune(graph)
    return model


def _expanded(graph: Any, item: FixedInput, name: str, batch_input: str) -> list[Any]:
    """Return nodes that repeat a constant for each sample of another input."""
    import numpy as np
    from onnx import helper, numpy_helper

    prefix = item.spec.name
    parts = {f"{prefix}/first": np.array([0]), f"{prefix}/sample": np.array(item.array().shape[1:], np.int64)}
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
    first, sample = parts
    return [
        helper.make_node("Shape", [batch_input], [f"{prefix}/sizes"]),
        helper.make_node("Gather", [f"{prefix}/sizes", first], [f"{prefix}/rows"]),
        helper.make_node("Concat", [f"{prefix}/rows", sample], [f"{prefix}/shape"], axis=0),
        helper.make_node("Expand", [name, f"{prefix}/shape"], [item.spec.name]),
    ]


def _resolved(nodes: Sequence[Any], graph: Any, model: Any) -> list[Any]:
    """Return the nodes with each decided `If` replaced by its branch, also inside of branches."""
    result: list[Any] = []
    for node in nodes:
        condition = _condition(node, result, graph, model) if node.op_type == "If" and not node.domain else None
        if condition is None:
            result.append(node)
            continue
        wanted = "then_branch" if condition else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        # Its weights are appended to the graph, so that conditions inside of the branch are computed too.
        for inner in _inlined(branch, node, graph):
            result += _resolved_after(inner, result, graph, model)
    return result


def _resolved_after(node: Any, before: Sequence[Any], graph: Any, model: Any) -> list[Any]:
    """Return what becomes of a node that follows others."""
    return _resolved([*before, node], graph, model)[len(before) :] if node.op_type == "If" else [node]


def _condition(node: Any, before: Sequence[Any], graph: Any, model: Any) -> bool | None:
    """Return the condition of an `If` where constants alone decide it, else None."""
    import onnxruntime
    from onnx import TensorProto, helper

    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: maker for maker in before for name in maker.output if name}
    needed, pending, used = set[str](), [node.input[0]], list[Any]()
    while pending:
        name = pending.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in weights:
            used.append(weights[name])
        elif name not in makers or makers[name].op_type in _RANDOM:
            return None
        else:
            pending += names_read(makers[name])
    steps = [maker for maker in before if needed & set(maker.output)]
    output = helper.make_tensor_value_info(node.input[0], TensorProto.BOOL, None)
    if node.input[0] in weights:  # a graph needs a node
        steps, output.name = [helper.make_node("Identity", [node.input[0]], ["condition"])], "condition"
    part = helper.make_model(
        helper.make_graph(steps, "condition", [], [output], used),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=model.functions,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an error leaves the If as it is
    try:
        session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (value,) = session.run(None, {})
    except Exception:  # noqa: BLE001 - onnxruntime's exceptions share no base class
        return None
    return bool(value.reshape(-1)[0]) if value.size else None


def _inlined(branch: Any, node: Any, graph: Any) -> list[Any]:
    """Return the nodes of a branch under names of the outer graph, which receives the branch's weights."""
    from onnx import helper

    own = [tensor.name for tensor in branch.initializer] + [name for inner in branch.node for name in inner.output]
    names = {name: f"{node.output[0]}/{name}" for name in own if name}
    for tensor in branch.initializer:
        copy = type(tensor).FromString(tensor.SerializeToString())
        copy.name = names[tensor.name]
        graph.initializer.append(copy)
    results = [
        helper.make_node("Identity", [names.get(value.name, value.name)], [output])
        for value, output in zip(branch.output, node.output, strict=True)
        if output
    ]
    return [*(_renamed(inner, names) for inner in branch.node), *results]


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """Return a copy of a node that reads and writes other names, in its subgraphs too."""
    copy = type(node).FromString(node.SerializeToString())
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for inside in subgraphs(copy):
        _rename_free(inside, names)
    return copy


def _rename_free(graph: Any, names: Mapping[str, str]) -> None:
    """Rename the outer names that a subgraph reads; its own names hide outer ones."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own |= {name for node in graph.node for name in node.output}
    outer = {name: new for name, new in names.items() if name not in own}
    for node in graph.node:
        node.input[:] = [outer.get(name, name) for name in node.input]
        for inside in subgraphs(node):
            _rename_free(inside, outer)
    for value in graph.output:
        value.name = outer.get(value.name, value.name)


def _prune(graph: Any) -> None:
    """Remove nodes and weights that no output depends on."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(names_read(node))
            kept.append(node)
    _set_nodes(graph, kept[::-1])
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in weights]
    del graph.initializer[:], graph.value_info[:]  # types of tensors that may be gone
    graph.initializer.extend(copies)


def _set_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)

"""An ONNX graph as an nn.Module that runs it node by node, constants computed and batch norms folded beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.sources._onnx_file import label
from edgekit.sources.bridges._onnx import registry
from edgekit.sources.bridges._onnx.passes import fold_norms, needed, with_last_use
from edgekit.sources.bridges._onnx.registry import Step
from edgekit.sources.bridges._onnx.values import Constant, Host, is_data, settled, to_host, to_tensor

_NOT_CONSTANT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}


class UnsupportedOperators(Exception):
    """The graph has nodes that this package cannot run; `nodes` describes each of them."""

    def __init__(self, nodes: Sequence[str]) -> None:
        super().__init__(", ".join(nodes))
        self.nodes = tuple(nodes)


def build(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The module; it takes tensors one by one in the order of `inputs`, and gives a tensor, or a tuple of them.

    Raises UnsupportedOperators, naming all of them, before it makes anything.
    """
    reader = _Reader(_inlined(model))
    reader.read(reader.model.graph)
    if reader.unsupported:
        raise UnsupportedOperators(reader.unsupported)
    steps = fold_norms(reader.steps, reader.constants, outputs)
    return _module(with_last_use(needed(steps, outputs), outputs), reader.constants, inputs, outputs)


def _inlined(model: Any) -> Any:
    """The model without functions of its own, and with the bodies of those standard operators that are unknown here."""
    from onnx import inliner

    known = registry.known()
    if model.functions:
        model = inliner.inline_local_functions(model)
    if all((_domain(node), node.op_type) in known for node in model.graph.node):
        return model
    try:
        return inliner.inline_selected_functions(model, known, exclude=True, inline_schema_functions=True)
    except (RuntimeError, ValueError):  # a body that depends on types it cannot find: the operator stays, and is named
        return model


def _static_shapes(model: Any) -> dict[str, tuple[int | None, ...]]:
    """Shapes by name as inference finds them from the inputs' own; None for dimensions that vary.

    What the file says of inner values is not asked: it is a note, and may be stale.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare)
    except (ValueError, RuntimeError):  # larger than 2 GB, or a type that does not fit
        return {}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*inferred.graph.input, *inferred.graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }


def _domain(item: Any) -> str:
    """The domain of a node or an opset import; the standard one has two spellings."""
    return "" if item.domain == "ai.onnx" else str(item.domain)


class _Reader:
    """Goes through the nodes once: what depends on constants only is computed, the rest becomes steps."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.versions = {_domain(item): item.version for item in model.opset_import}
        self.shapes = _static_shapes(model)
        self.constants: dict[str, Constant] = {}
        self.steps: list[Step] = []
        self.unsupported: list[str] = []

    def read(self, graph: Any) -> None:
        """A graph, or the branch of an If that is always taken."""
        for tensor in graph.initializer:
            self.constants[tensor.name] = Constant(_array(tensor))
        for tensor in graph.sparse_initializer:
            self.constants[tensor.values.name] = Constant(_dense(tensor))
        for node in graph.node:
            self._read_node(node)

    def _read_node(self, node: Any) -> None:
        step = Step(
            label(node),
            _domain(node),
            node.op_type,
            self.versions.get(_domain(node), 0),
            tuple(node.input),
            tuple(node.output),
            {item.name: _attribute(item) for item in node.attribute},
        )
        if step.op_type == "If" and not step.domain and step.inputs[0] in self.constants:
            self._read_branch(step)
            return
        reason = registry.unsupported(step)
        if reason is not None:
            self.unsupported.append(reason)
        elif not self._folded(step):
            self.steps.append(step)

    def _read_branch(self, step: Step) -> None:
        taken = bool(self.constants[step.inputs[0]].array.reshape(-1)[0])
        branch = step.attributes["then_branch" if taken else "else_branch"]
        self.read(branch)
        for value, output in zip(branch.output, step.outputs, strict=True):
            if value.name in self.constants:
                self.constants[output] = self.constants[value.name]
            else:
                self.steps.append(replace(step, op_type="Identity", inputs=(value.name,), outputs=(output,)))

    def _folded(self, step: Step) -> bool:
        """Computes the step now, if all that it reads is known."""
        import torch

        if step.op_type in ("Shape", "Size") and not step.domain and self._folded_shape(step):
            return True
        if step.op_type in _NOT_CONSTANT or any(name and name not in self.constants for name in step.inputs):
            return False
        with torch.no_grad():
            results = registry.run(step, tuple(self.constants.get(name) for name in step.inputs))
        for name, result in zip(step.outputs, results, strict=False):
            self.constants[name] = result if isinstance(result, Constant) else Constant(_writable(result))
        return True

    def _folded_shape(self, step: Step) -> bool:
        shape = self.shapes.get(step.inputs[0])
        if shape is None:
            return False
        sizes = shape[slice(step.attributes.get("start", 0), step.attributes.get("end"))]
        if None in sizes:
            return False
        array = np.array(sizes, np.int64)
        self.constants[step.outputs[0]] = Constant(array if step.op_type == "Shape" else np.asarray(array.prod()))
        return True


def _writable(value: Any) -> Host:
    array = settled(value) if isinstance(value, (np.ndarray, np.generic)) else to_host(value)
    return array if array.flags.writeable else array.copy()


def _array(tensor: Any) -> Host:
    from onnx import numpy_helper

    array: Host = numpy_helper.to_array(tensor)
    return array if array.flags.writeable else array.copy()


def _dense(tensor: Any) -> Host:
    """A sparse tensor with its zeros."""
    values, indices = _array(tensor.values), _array(tensor.indices)
    flat = np.zeros(int(np.prod(tensor.dims)), values.dtype)
    flat[indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(tensor.dims))] = values
    return flat.reshape(tuple(tensor.dims))


def _attribute(attribute: Any) -> Any:
    from onnx import AttributeProto, helper

    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return _array(value)
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return _dense(value)
    if attribute.type == AttributeProto.STRING:
        return value.decode()
    if attribute.type == AttributeProto.STRINGS:
        return [item.decode() for item in value]
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _module(
    steps: Sequence[Step], constants: dict[str, Constant], inputs: Sequence[str], outputs: Sequence[str]
) -> Any:
    import torch

    used = {name for step in steps for name in step.inputs} | set(outputs)
    kept = {name: constant for name, constant in constants.items() if name in used}

    class OnnxModule(torch.nn.Module):  # type: ignore[misc]
        """The graph; weights are its parameters, under the names that they have in the file."""

        def __init__(self) -> None:
            super().__init__()
            self._attributes = _register(self, kept)

        def forward(self, *tensors: Any) -> Any:
            values: dict[str, Any] = dict(zip(inputs, tensors, strict=True))
            for name, constant in kept.items():
                values.setdefault(name, self._constant(name, constant))
            for step in steps:
                _run(step, values)
            results = tuple(_as_tensor(values[name]) for name in outputs)
            return results[0] if len(results) == 1 else results

        def _constant(self, name: str, constant: Constant) -> Constant:
            attribute = self._attributes.get(name)
            return constant if attribute is None else Constant(constant.array, getattr(self, attribute))

    return OnnxModule().eval()


def _run(step: Step, values: dict[str, Any]) -> None:
    try:
        results = registry.run(step, tuple(values[name] if name else None for name in step.inputs))
    except Exception as error:
        error.add_note(f"in {step}")
        raise
    values.update({name: result for name, result in zip(step.outputs, results, strict=False) if name})
    for name in step.last_use:
        values.pop(name, None)


def _as_tensor(value: Any) -> Any:
    if isinstance(value, Constant):
        return value.tensor if value.tensor is not None else to_tensor(value.array)
    return to_tensor(value) if isinstance(value, np.ndarray) else value


def _register(module: Any, constants: dict[str, Constant]) -> dict[str, str]:
    """Makes weights the module's own, each once; constant name -> attribute name."""
    import torch

    attributes: dict[str, str] = {}
    by_array: dict[int, str] = {}
    for name, constant in constants.items():
        if not is_data(constant.array):
            continue
        attribute = by_array.get(id(constant.array))
        if attribute is None:
            attribute = by_array[id(constant.array)] = _attribute_name(name, module)
            tensor = to_tensor(constant.array)
            if tensor.is_floating_point():
                module.register_parameter(attribute, torch.nn.Parameter(tensor, requires_grad=False))
            else:
                module.register_buffer(attribute, tensor)
        attributes[name] = attribute
    return attributes


def _attribute_name(name: str, module: Any) -> str:
    """`conv1_weight` of `conv1.weight`: an identifier that the module does not have yet."""
    base = re.sub(r"\W", "_", name)
    base = base if base[:1].isalpha() else f"constant_{base}"
    candidate, count = base, 0
    while hasattr(module, candidate):
        count += 1
        candidate = f"{base}_{count}"
    return candidate

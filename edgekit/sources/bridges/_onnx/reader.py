"""Reading a graph: constants are computed, branches and loops that do not depend on the input are written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.sources._onnx_file import label
from edgekit.sources.bridges._onnx import registry
from edgekit.sources.bridges._onnx.registry import Step
from edgekit.sources.bridges._onnx.values import Constant, Host, settled, to_host

_NOT_CONSTANT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
_LONGEST = 4096
"""A loop of more iterations than this would be no graph any more."""


class Reader:
    """Goes through the nodes once: what depends on constants only is computed, the rest becomes steps.

    `unsupported` describes every node that cannot be run. Values inside of branches and loops get names of their own.
    """

    def __init__(self, model: Any) -> None:
        self._model = inlined(model)
        self._versions = {_domain(item): item.version for item in self._model.opset_import}
        self._shapes = _static_shapes(self._model)
        self._names: Mapping[str, str] = {}
        self.constants: dict[str, Constant] = {}
        self.steps: list[Step] = []
        self.unsupported: list[str] = []

    def read(self) -> None:
        """The whole model."""
        self._read_weights(self._model.graph)
        self._read_nodes(self._model.graph)

    def _read_weights(self, graph: Any) -> None:
        for tensor in graph.initializer:
            self.constants[self._name(tensor.name)] = Constant(_array(tensor))
        for tensor in graph.sparse_initializer:
            self.constants[self._name(tensor.values.name)] = Constant(_dense(tensor))

    def _read_nodes(self, graph: Any) -> None:
        for node in graph.node:
            self._read_node(node)

    def _name(self, name: str) -> str:
        return self._names.get(name, name)

    @contextmanager
    def _scope(self, names: Mapping[str, str]) -> Iterator[None]:
        """Within it, these names stand for other ones, beside those of the scopes around it."""
        outer, self._names = self._names, {**self._names, **names}
        try:
            yield
        finally:
            self._names = outer

    def _read_node(self, node: Any) -> None:
        step = Step(
            label(node),
            _domain(node),
            node.op_type,
            self._versions.get(_domain(node), 0),
            tuple(map(self._name, node.input)),
            tuple(map(self._name, node.output)),
            {item.name: _attribute(item) for item in node.attribute},
        )
        if step.op_type in ("If", "Loop") and not step.domain:
            (self._read_if if step.op_type == "If" else self._read_loop)(step)
            return
        reason = registry.unsupported(step)
        if reason is not None:
            self.unsupported.append(reason)
        elif not self._folded(step):
            self.steps.append(step)

    def _read_if(self, step: Step) -> None:
        if step.inputs[0] not in self.constants:
            self.unsupported.append(f"{step} with a condition that depends on the input")
            return
        taken = bool(self._scalar(step.inputs[0]))
        branch = step.attributes["then_branch" if taken else "else_branch"]
        with self._scope(_renamed(branch, step.outputs[0])):
            self._read_weights(branch)
            self._read_nodes(branch)
            results = [self._name(value.name) for value in branch.output]
        for result, output in zip(results, step.outputs, strict=True):
            self._alias(step, result, output)

    def _read_loop(self, step: Step) -> None:
        """Writes the body out as often as it runs; its condition has to be a constant after each time."""
        if any(name and name not in self.constants for name in step.inputs[:2]):
            self.unsupported.append(f"{step} with a number of iterations that depends on the input")
            return
        trips = int(self._scalar(step.inputs[0])) if step.inputs[0] else _LONGEST + 1
        goes_on = bool(self._scalar(step.inputs[1])) if step.inputs[1] else True
        body = step.attributes["body"]
        carried, scanned = list(step.inputs[2:]), list[list[str]]()
        with self._scope(_renamed(body, step.outputs[0])):
            self._read_weights(body)
            while goes_on and len(scanned) < trips:
                found = self._iteration(step, body, carried, len(scanned))
                if found is None:
                    return
                goes_on, carried = found[0], found[1 : 1 + len(carried)]
                scanned.append(found[1 + len(carried) :])
        for name, output in zip(carried, step.outputs, strict=False):
            self._alias(step, name, output)
        for index, output in enumerate(step.outputs[len(carried) :]):
            self._stack(step, [names[index] for names in scanned], output)

    def _iteration(self, step: Step, body: Any, carried: list[str], index: int) -> list[Any] | None:
        """Whether the loop goes on, and the names of the body's other outputs; None where something is unsupported."""
        count, before = f"{step.outputs[0]}[{index}]", len(self.unsupported)
        self.constants[count] = Constant(np.array(index, np.int64))
        self.constants[f"{count}.goes_on"] = Constant(np.array(True))
        inputs = [count, f"{count}.goes_on", *carried]
        names = {output: f"{count}.{output}" for node in body.node for output in node.output if output}
        names |= {value.name: name for value, name in zip(body.input, inputs, strict=True)}
        with self._scope(names):
            self._read_nodes(body)
            condition, *results = (self._name(value.name) for value in body.output)
        if index >= _LONGEST or (condition not in self.constants and len(self.unsupported) == before):
            self.unsupported.append(f"{step} with a number of iterations that depends on the input")
        return [bool(self._scalar(condition)), *results] if len(self.unsupported) == before else None

    def _scalar(self, name: str) -> Any:
        return self.constants[name].array.reshape(-1)[0]

    def _alias(self, step: Step, name: str, output: str) -> None:
        if name in self.constants:
            self.constants[output] = self.constants[name]
        elif output:
            self.steps.append(replace(step, op_type="Identity", inputs=(name,), outputs=(output,), attributes={}))

    def _stack(self, step: Step, names: list[str], output: str) -> None:
        """One value an iteration, along a new first axis."""
        rows = []
        for name in names:
            rows.append(f"{name}.row.{output}")
            made = replace(step, op_type="Unsqueeze", inputs=(name,), outputs=(rows[-1],), attributes={"axes": [0]})
            if not self._folded(made):
                self.steps.append(made)
        if output and rows:
            joined = replace(step, op_type="Concat", inputs=tuple(rows), outputs=(output,), attributes={"axis": 0})
            if not self._folded(joined):
                self.steps.append(joined)
        elif output:
            self.unsupported.append(f"{step} with no iteration at all")

    def _folded(self, step: Step) -> bool:
        """Computes the step now, if all that it reads is known."""
        import torch

        if step.op_type in ("Shape", "Size") and not step.domain and self._folded_shape(step):
            return True
        if step.op_type in _NOT_CONSTANT or any(name and name not in self.constants for name in step.inputs):
            return False
        try:
            with torch.no_grad():
                results = registry.run(step, tuple(self.constants.get(name) for name in step.inputs))
        except Exception:  # noqa: BLE001 - whatever it is, it will come again when the step runs, if it ever does
            return False
        for name, result in zip(step.outputs, results, strict=False):
            self.constants[name] = result if isinstance(result, Constant) else Constant(_writable(result))
        return True

    def _folded_shape(self, step: Step) -> bool:
        shape = self._shapes.get(step.inputs[0])
        if shape is None:
            return False
        sizes = shape[slice(step.attributes.get("start", 0), step.attributes.get("end"))]
        if None in sizes:
            return False
        array = np.array(sizes, np.int64)
        self.constants[step.outputs[0]] = Constant(array if step.op_type == "Shape" else np.asarray(array.prod()))
        return True


def _renamed(graph: Any, prefix: str) -> dict[str, str]:
    """New names for everything that the graph itself makes: two branches may use the same, and so may two runs."""
    own = [item.name for item in graph.initializer] + [name for node in graph.node for name in node.output]
    return {name: f"{prefix}/{name}" for name in own if name}


def inlined(model: Any) -> Any:
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

"""Reading of an ONNX graph into steps: constants are folded, constant branches inlined and constant loops unrolled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.sources._onnx_file import label
from edgekit.sources.bridges._onnx import registry
from edgekit.sources.bridges._onnx.registry import GraphStep
from edgekit.sources.bridges._onnx.values import Constant, Host, settled, to_host

# Operators whose result differs at every run, even if their inputs are constants.
_RANDOM_OPERATORS = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
# Loops of more iterations are refused: every iteration becomes a copy of the body, and torch.export takes seconds for a
# thousand nodes.
_MAX_ITERATIONS = 4096


class Reader:
    """A single pass over the nodes that computes constants and turns all other nodes into steps.

    Values inside branches and loops get prefixed names, since each subgraph has a scope of its own (ONNX IR, "Names
    Within a Graph").

    Attributes:
        constants: The weights and computed constants, by name.
        steps: The steps that depend on the inputs, in order.
        unsupported: A description of every node that cannot be executed.
    """

    def __init__(self, model: Any) -> None:
        self._model = inlined(model)
        self._versions = {_domain(opset): opset.version for opset in self._model.opset_import}
        self._shapes = _static_shapes(self._model)
        self._names: Mapping[str, str] = {}
        self.constants: dict[str, Constant] = {}
        self.steps: list[GraphStep] = []
        self.unsupported: list[str] = []

    def read(self) -> None:
        """Read the whole model; the results are the reader's attributes."""
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
        """Replace names within the block, in addition to those of the outer scopes."""
        outer, self._names = self._names, {**self._names, **names}
        try:
            yield
        finally:
            self._names = outer

    def _read_node(self, node: Any) -> None:
        step = GraphStep(
            label(node),
            _domain(node),
            node.op_type,
            self._versions.get(_domain(node), 0),
            tuple(map(self._name, node.input)),
            tuple(map(self._name, node.output)),
            {attribute.name: _attribute_value(attribute) for attribute in node.attribute},
        )
        if step.op_type in ("If", "Loop") and not step.domain:
            (self._read_if if step.op_type == "If" else self._read_loop)(step)
            return
        reason = registry.unsupported_reason(step)
        if reason is not None:
            self.unsupported.append(reason)
        elif not self._folded(step):
            self.steps.append(step)

    def _read_if(self, step: GraphStep) -> None:
        if step.inputs[0] not in self.constants:
            self._read_both(step)
            return
        condition = bool(self._scalar(step.inputs[0]))
        results = self._read_branch(step.attributes["then_branch" if condition else "else_branch"], step.outputs[0])
        for result, output in zip(results, step.outputs, strict=True):
            self._alias(step, result, output)

    def _read_both(self, step: GraphStep) -> None:
        """Compute both branches, which have no side effects, and select between their results."""
        branches = [
            self._read_branch(step.attributes[f"{branch}_branch"], f"{step.outputs[0]}/{branch}")
            for branch in ("then", "else")
        ]
        for then, otherwise, output in zip(*branches, step.outputs, strict=True):
            if output:
                inputs = (step.inputs[0], then, otherwise)
                self.steps.append(replace(step, inputs=inputs, outputs=(output,), attributes={}))

    def _read_branch(self, branch: Any, prefix: str) -> list[str]:
        """Read the nodes of a branch; return the names of its results."""
        with self._scope(_scoped_names(branch, prefix)):
            self._read_weights(branch)
            self._read_nodes(branch)
            return [self._name(value.name) for value in branch.output]

    def _read_loop(self, step: GraphStep) -> None:
        """Unroll the loop; its condition must be constant after every iteration.

        Loop has the inputs (trip count, condition, carried values) and the outputs (carried values, scan outputs); its
        body has the inputs (iteration, condition, carried values) and the outputs (condition, carried values, scan
        outputs). An omitted trip count means no limit, an omitted condition true.
        """
        if any(name and name not in self.constants for name in step.inputs[:2]):
            self.unsupported.append(f"{step} with a number of iterations that depends on the input")
            return
        trips = int(self._scalar(step.inputs[0])) if step.inputs[0] else _MAX_ITERATIONS + 1
        condition = bool(self._scalar(step.inputs[1])) if step.inputs[1] else True
        body = step.attributes["body"]
        carried, scanned = list(step.inputs[2:]), list[list[str]]()
        with self._scope(_scoped_names(body, step.outputs[0])):
            self._read_weights(body)
            while condition and len(scanned) < trips:
                results = self._iteration(step, body, carried, len(scanned))
                if results is None:
                    return
                condition, carried = results[0], results[1 : 1 + len(carried)]
                scanned.append(results[1 + len(carried) :])
        for name, output in zip(carried, step.outputs, strict=False):
            self._alias(step, name, output)
        for index, output in enumerate(step.outputs[len(carried) :]):
            self._stack(step, [names[index] for names in scanned], output)

    def _iteration(self, step: GraphStep, body: Any, carried: list[str], index: int) -> list[Any] | None:
        """Return the condition and the names of the body's other outputs; None if something is unsupported."""
        count, before = f"{step.outputs[0]}[{index}]", len(self.unsupported)
        self.constants[count] = Constant(np.array(index, np.int64))
        self.constants[f"{count}.goes_on"] = Constant(np.array(True))
        inputs = [count, f"{count}.goes_on", *carried]
        names = {output: f"{count}.{output}" for node in body.node for output in node.output if output}
        names |= {value.name: name for value, name in zip(body.input, inputs, strict=True)}
        with self._scope(names):
            self._read_nodes(body)
            condition, *results = (self._name(value.name) for value in body.output)
        if index >= _MAX_ITERATIONS or (condition not in self.constants and len(self.unsupported) == before):
            self.unsupported.append(f"{step} with a number of iterations that depends on the input")
        return [bool(self._scalar(condition)), *results] if len(self.unsupported) == before else None

    def _scalar(self, name: str) -> Any:
        return self.constants[name].array.reshape(-1)[0]

    def _alias(self, step: GraphStep, name: str, output: str) -> None:
        if name in self.constants:
            self.constants[output] = self.constants[name]
        elif output:
            self.steps.append(replace(step, op_type="Identity", inputs=(name,), outputs=(output,), attributes={}))

    def _stack(self, step: GraphStep, names: list[str], output: str) -> None:
        """Add steps that stack one value per iteration along a new first axis."""
        rows = []
        for name in names:
            rows.append(f"{name}.row.{output}")
            # `Call.axes` reads the axes from the attribute as well, although opset 13 made them an input.
            row = replace(step, op_type="Unsqueeze", inputs=(name,), outputs=(rows[-1],), attributes={"axes": [0]})
            if not self._folded(row):
                self.steps.append(row)
        if output and rows:
            joined = replace(step, op_type="Concat", inputs=tuple(rows), outputs=(output,), attributes={"axis": 0})
            if not self._folded(joined):
                self.steps.append(joined)
        elif output:
            # The shape of an empty scan output is known at run time only.
            self.unsupported.append(f"{step} without any iteration")

    def _folded(self, step: GraphStep) -> bool:
        """Compute the step if all its inputs are constants; return whether that succeeded."""
        import torch

        if step.op_type in ("Shape", "Size") and not step.domain and self._folded_shape(step):
            return True
        if step.op_type in _RANDOM_OPERATORS or any(name and name not in self.constants for name in step.inputs):
            return False
        try:
            with torch.no_grad():
                results = registry.run(step, tuple(self.constants.get(name) for name in step.inputs))
        except Exception:  # noqa: BLE001 - the same error recurs when the step runs, if any output needs it
            return False
        for name, result in zip(step.outputs, results, strict=False):
            self.constants[name] = result if isinstance(result, Constant) else Constant(_writable(result))
        return True

    def _folded_shape(self, step: GraphStep) -> bool:
        """Compute Shape or Size from the inferred shape of a tensor; return whether all its sizes are static."""
        shape = self._shapes.get(step.inputs[0])
        if shape is None:
            return False
        sizes = shape[slice(step.attributes.get("start", 0), step.attributes.get("end"))]
        if None in sizes:
            return False
        array = np.array(sizes, np.int64)
        self.constants[step.outputs[0]] = Constant(array if step.op_type == "Shape" else np.asarray(array.prod()))
        return True


def _scoped_names(graph: Any, prefix: str) -> dict[str, str]:
    """Return prefixed names for all values of a subgraph: both branches of an If may use the same names."""
    names = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    return {name: f"{prefix}/{name}" for name in names if name}


def inlined(model: Any) -> Any:
    """Return the model with its functions inlined.

    Local functions are inlined, and so are the function bodies (ONNX IR, "Functions") of standard operators that this
    package does not implement.

    Args:
        model: The `onnx.ModelProto`.

    Returns:
        The model, or an equivalent one.
    """
    from onnx import inliner

    supported = registry.supported_operators()
    if model.functions:
        model = inliner.inline_local_functions(model)
    if all((_domain(node), node.op_type) in supported for node in model.graph.node):
        return model
    try:
        return inliner.inline_selected_functions(model, supported, exclude=True, inline_schema_functions=True)
    except (
        RuntimeError,
        ValueError,
    ):  # a body depends on types that inference cannot find: the node stays, unsupported
        return model


def _static_shapes(model: Any) -> dict[str, tuple[int | None, ...]]:
    """Return inferred shapes by name, with None for dynamic dimensions.

    Only the shapes of inputs are trusted: value_info and output shapes in the file are annotations and may be stale.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare)
    except (ValueError, RuntimeError):  # larger than protobuf's 2 GB, or types that contradict each other
        return {}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*inferred.graph.input, *inferred.graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }


def _domain(proto: Any) -> str:
    """Return the domain of a node or opset import; the default one has the spellings "" and "ai.onnx"."""
    return "" if proto.domain == "ai.onnx" else str(proto.domain)


def _writable(value: Any) -> Host:
    """Return a step's result as a writable array, since tensors will share its memory."""
    array = settled(value) if isinstance(value, (np.ndarray, np.generic)) else to_host(value)
    return array if array.flags.writeable else array.copy()


def _array(tensor: Any) -> Host:
    from onnx import numpy_helper

    array: Host = numpy_helper.to_array(tensor)
    return array if array.flags.writeable else array.copy()


def _dense(tensor: Any) -> Host:
    """Return a SparseTensorProto as a dense array; its indices are flat positions (NNZ,) or coordinates (NNZ, rank)."""
    values, indices = _array(tensor.values), _array(tensor.indices)
    flat = np.zeros(int(np.prod(tensor.dims)), values.dtype)
    flat[indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(tensor.dims))] = values
    return flat.reshape(tuple(tensor.dims))


def _attribute_value(attribute: Any) -> Any:
    from onnx import AttributeProto, helper

    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return _array(value)
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return _dense(value)
    if attribute.type == AttributeProto.STRING:
        return value.decode()
    if attribute.type == AttributeProto.STRINGS:
        return [string.decode() for string in value]
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value

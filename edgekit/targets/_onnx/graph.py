"""Reading of ONNX graphs, and removal of what exporters leave behind."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import ONNX, require
from edgekit.core.values.onnx_metadata import recorded_quantization
from edgekit.core.values.specs import Dim, ModelDescription, OpCount, Signature, TensorSpec
from edgekit.targets._onnx import block_weights
from edgekit.targets._onnx.nested_graphs import graphs

# tf2onnx appends a counter of the process to names, such as `Transpose__26:0`.
_COUNTER = re.compile(r"__\d+(?=$|:)")


def tidy(model: Any, signature: Signature) -> None:
    """Order inputs and outputs, name symbolic dimensions, and remove the exporter's metadata.

    Args:
        model: The `ModelProto` to edit.
        signature: The order and the dimensions of inputs and outputs.
    """
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    _restore_inputs(model.graph, signature)
    _reorder(model.graph.input, [spec.name for spec in signature.inputs])
    _reorder(model.graph.output, [spec.name for spec in signature.outputs])
    for value in (*model.graph.input, *model.graph.output):
        if value.name in specs:
            _set_dims(value, specs[value.name])
    del model.graph.value_info[:]  # inferred again, with the signature's names of symbolic dimensions
    # torch 2.13 writes stack traces with source code and paths of the machine into metadata.
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for element in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        element.doc_string = ""
        del element.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    # Builds of one release give the same bytes: `2.13.0+cpu`, and tf2onnx's unknown git revision, `1.17 None`.
    model.producer_version = model.producer_version.partition("+")[0].removesuffix(" None")
    model.graph.name = "model"


def _restore_inputs(graph: Any, signature: Signature) -> None:
    """Declare the inputs again that no node reads: onnxslim removes them, and callers would still pass them."""
    import numpy as np
    from onnx import helper

    present = {value.name for value in graph.input}
    for spec in signature.inputs:
        if spec.name not in present:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
            graph.input.append(helper.make_tensor_value_info(spec.name, element, spec.shape))


def _reorder(values: Any, names: list[str]) -> None:
    """Put values into the order of the names."""
    # TensorFlow sorts the keys of the dict that a function returns. Other names are left for the caller to reject.
    if {value.name for value in values} == set(names):
        ordered = sorted(values, key=lambda value: names.index(value.name))
        # Clearing a repeated field invalidates references to its elements.
        copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
        del values[:]
        values.extend(copies)


def _set_dims(value: Any, spec: TensorSpec) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(spec.shape):
        del dims[:]
        for _ in spec.shape:
            dims.add()
    for dim, size in zip(dims, spec.shape, strict=True):
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size


def rename(model: Any, names: dict[str, str]) -> None:
    """Rename values in the graph and in all nested graphs.

    Args:
        model: The `ModelProto` to edit.
        names: Old name -> new name; other names stay.
    """
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = names.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def name_ends(model: Any, names: dict[str, str]) -> None:
    """Give inputs and outputs their names; an inner value that has one of them already gets another.

    Exporters name inner values after operators, such as `max`, and would write two values of one name.

    Args:
        model: The `ModelProto` to edit, exported with names that no inner value has.
        names: Name in the graph -> final name, for inputs and outputs.
    """
    used = {
        name
        for graph in graphs(model.graph)
        for values in (*(node.output for node in graph.node), [tensor.name for tensor in graph.initializer])
        for name in values
    }
    inner = {name: f"{name}_inner" for name in names.values() if name in used and name not in names}
    rename(model, {**inner, **names})


def write_constant_outputs(model: Any) -> None:
    """Let a node write each output that is a constant of the file.

    ONNX allows constants as outputs, and torch.onnx makes them, but tools that edit a file take them for weights.

    Args:
        model: The `ModelProto` to edit.
    """
    from onnx import helper

    outputs = [value.name for value in model.graph.output]
    constants = {tensor.name for tensor in model.graph.initializer} & {*outputs}
    used = {name for graph in graphs(model.graph) for node in graph.node for name in (*node.input, *node.output)}
    names = {}
    for name in (name for name in dict.fromkeys(outputs) if name in constants):
        candidates = (f"{name}_value{index or ''}" for index in itertools.count())
        names[name] = next(candidate for candidate in candidates if candidate not in used)
    rename(model, names)
    for value, name in zip(model.graph.output, outputs, strict=True):
        value.name = name
    model.graph.node.extend(helper.make_node("Identity", [constant], [name]) for name, constant in names.items())


def canonical_names(model: Any) -> None:
    """Order and rename nodes and inner values so that they depend on the model only; inputs and outputs keep names.

    Args:
        model: The `ModelProto` to edit.
    """
    # tf2onnx 1.17 iterates over sets of objects: the order of independent nodes, and which of several equal constants
    # it keeps, differ from run to run. So nodes are ordered by their use, counters are removed from names, and a
    # constant is named after the first node that reads it.
    for graph in graphs(model.graph):
        _order_nodes(graph)
    outer = [value.name for value in (*model.graph.input, *model.graph.output)]
    values, nodes = _Renaming(outer), _Renaming([])
    _name_constants(model.graph, values)
    for graph in graphs(model.graph):
        for value in (*graph.initializer, *graph.input, *graph.output):
            value.name = values(value.name)
        for node in graph.node:
            node.input[:] = [values(name) for name in node.input]
            node.output[:] = [values(name) for name in node.output]
            node.name = nodes(node.name)


def _order_nodes(graph: Any) -> None:
    """Sort the nodes topologically, depth first from the outputs; nodes that no output needs come last."""
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    ordered: dict[int, None] = {}

    # Not graphlib.TopologicalSorter: it returns nodes level by level, in an order that its documentation leaves open,
    # and the order decides the bytes of the file. A stack instead of recursion, since graphs may be deeper than
    # Python's recursion limit.
    def visit(name: str) -> None:
        stack = [producers[name]] if name in producers else []
        while stack:
            dependencies = (producers[read] for read in reads(graph.node[stack[-1]]) if read in producers)
            missing = next((index for index in dependencies if index not in ordered), None)
            if missing is None:
                ordered[stack.pop()] = None
            else:
                stack.append(missing)

    for value in graph.output:
        visit(value.name)
    unused = [index for index in range(len(graph.node)) if index not in ordered]
    nodes = [graph.node[index] for index in (*ordered, *unused)]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def reads(node: Any) -> Iterator[str]:
    """Iterate over the values that a node reads, including those that its nested graphs read.

    Args:
        node: The `NodeProto`.

    Returns:
        The names of the values, possibly repeated.
    """
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)


def _name_constants(graph: Any, values: _Renaming) -> None:
    """Order constants by their first use, and name them after node and input position (`conv.1`)."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ordered = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in constants:
                values.rename(name, f"{_COUNTER.sub('', node.name)}.{position}")
                ordered.append(constants.pop(name))
    del graph.initializer[:]
    graph.initializer.extend([*ordered, *constants.values()])


class _Renaming:
    """A mapping from old names to unique new names without counters; reserved and empty names stay."""

    def __init__(self, reserved: list[str]) -> None:
        self._renamed = {"": "", **{name: name for name in reserved}}  # an empty name is an absent optional input
        self._used = set(reserved)

    def __call__(self, name: str) -> str:
        if name not in self._renamed:
            self.rename(name, _COUNTER.sub("", name))
        return self._renamed[name]

    def rename(self, name: str, base: str) -> None:
        """Map `name` to `base`, with a suffix if that is taken.

        Args:
            name: The old name.
            base: The new name, such as `conv.1`; suffixes give `conv.1_1`.
        """
        candidates = (base if index == 0 else f"{base}_{index}" for index in itertools.count())
        self._renamed[name] = next(candidate for candidate in candidates if candidate not in self._used)
        self._used.add(self._renamed[name])


def prune_opsets(model: Any) -> None:
    """Remove the operator sets that no node uses.

    Args:
        model: The `ModelProto` to edit.
    """
    # ONNX Runtime 1.32's quantizer declares nine, no matter which ones the graph uses.
    domains = {node.domain for graph in graphs(model.graph) for node in graph.node} | {""}
    used = [opset for opset in model.opset_import if opset.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(used)


def expose(model: Any) -> Any:
    """Make every tensor that a node computes an output, in execution order.

    Args:
        model: The `ModelProto`, which is edited.

    Returns:
        The same model.
    """
    import onnx

    typed = {value.name: value for value in model.graph.output}
    del model.graph.output[:]
    # ONNX Runtime infers the types of outputs that have none.
    computed = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(typed.get(name) or onnx.ValueInfoProto(name=name) for name in computed)
    return model


def parse(path: Path) -> Any:
    """Read an ONNX file.

    Args:
        path: The model file.

    Returns:
        The `ModelProto`.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
        MissingDependency: The onnx package is not installed.
    """
    require((ONNX,), "reading .onnx files")
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(path, "model file")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise malformed_file_error(path, "ONNX") from error
    # Many byte sequences are valid protobuf messages without any known field.
    if not model.graph.node and not model.graph.initializer:
        raise malformed_file_error(path, "ONNX", "it contains no graph")
    return model


def _dtype(element_type: int) -> str:
    from onnx import helper

    return str(np.dtype(helper.tensor_dtype_to_np_dtype(element_type)))


def _spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    dims: list[Dim] = []
    for index, dim in enumerate(tensor.shape.dim):
        dims.append(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"dim{index}")
    return TensorSpec(value.name, tuple(dims), _dtype(tensor.elem_type))


def _signature(model: Any) -> Signature:
    # Up to IR version 3, initializers are listed as inputs too.
    constants = {tensor.name for tensor in model.graph.initializer}
    scales = recorded_quantization({entry.key: entry.value for entry in model.metadata_props})

    def specs(values: Iterable[Any]) -> tuple[TensorSpec, ...]:
        plain = [_spec(value) for value in values]
        return tuple(replace(spec, quantization=scales.get(spec.name)) for spec in plain)

    inputs = [value for value in model.graph.input if value.name not in constants]
    return Signature(specs(inputs), specs(model.graph.output))


def read_signature(path: Path) -> Signature:
    """Read the inputs (without initializers) and outputs of an ONNX file.

    Args:
        path: The model file.

    Returns:
        The signature; layouts are unknown.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
    """
    return _signature(parse(path))


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the fully known shapes of tensors for one sample: symbolic input dimensions are set to 1."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _stand_in(fixed)
    for dim in (dim for value in fixed.graph.input for dim in value.type.tensor_type.shape.dim):
        dim.dim_value = dim.dim_value or 1
    # Recorded shapes hold the symbols, and inference would keep them.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _stand_in(model: Any) -> None:
    """Replace ONNX Runtime's own operators, whose shapes onnx does not infer, by operators of the same shapes."""
    from onnx import TensorProto, helper

    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain != block_weights.DOMAIN:
            continue
        if node.op_type == block_weights.MATMUL:
            shape, operator, position = block_weights.matrix_shape(node), "MatMul", 1
        elif node.op_type == block_weights.GATHER:
            shape, operator, position = sizes.get(node.input[0], ()), "Gather", 0
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
            continue
        else:
            continue
        matrix = f"{node.input[position]}_as_float"
        if all(value.name != matrix for value in model.graph.input):
            model.graph.input.append(helper.make_tensor_value_info(matrix, TensorProto.FLOAT, shape))
        node.op_type, node.domain, node.input[position] = operator, "", matrix
        del node.input[2:], node.attribute[:]


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int | None:
    """Return the multiply-accumulates of a node per inference, or None for other operators and unknown shapes."""
    if node.op_type == block_weights.MATMUL:
        output = shapes.get(node.output[0])
        return None if output is None else int(np.prod(output)) * block_weights.matrix_shape(node)[0]
    weight_at = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "MatMulInteger": 1}.get(
        node.op_type
    )
    if weight_at is None:
        return None
    operands = [shapes.get(name) for name in (node.input[0], node.input[weight_at], node.output[0])]
    if any(shape is None for shape in operands):
        return None
    first, weight, output = (shape or () for shape in operands)
    outputs = int(np.prod(output))
    if node.op_type in ("Conv", "ConvInteger"):  # weight (out, in / groups, ...)
        return outputs * int(np.prod(weight[1:]))
    if node.op_type == "ConvTranspose":  # weight (in, out / groups, ...): each input value meets out / groups * kernel
        return int(np.prod(first)) * int(np.prod(weight[1:]))
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return outputs * first[0 if transposed else -1]  # A is (M, K), or (K, M) if transposed
    return outputs * first[-1]  # (..., M, K) x (..., K, N)


def describe(path: Path) -> ModelDescription:
    """Describe an ONNX file: operators, tensors, parameters, multiply-accumulates and quantization.

    Args:
        path: The model file.

    Returns:
        The description, for one sample where the batch is symbolic.

    Raises:
        InputError: The file is empty, truncated or no ONNX model.
    """
    model = parse(path)
    shapes = _shapes(model)
    counts = Counter(node.op_type for node in model.graph.node)
    macs: dict[str, int] = {}
    unknown = False
    for node in model.graph.node:
        count = _macs(node, shapes)
        if count is not None:
            macs[node.op_type] = macs.get(node.op_type, 0) + count
        elif node.op_type in ("Conv", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", block_weights.MATMUL):
            unknown = True
    weights = list(_constants(model.graph))
    packed = block_weights.packed_values(model.graph)
    counts_of_values = [packed.get(tensor.name, int(np.prod(tensor.dims))) for tensor in weights]
    activations = {name for node in model.graph.node for name in node.output}
    return ModelDescription(
        format="onnx",
        signature=_signature(model),
        ops=tuple(OpCount(name, count, macs.get(name)) for name, count in counts.most_common()),
        tensors=len({name for node in model.graph.node for name in (*node.input, *node.output) if name}),
        parameters=sum(count for tensor, count in zip(weights, counts_of_values, strict=True) if _is_parameter(tensor)),
        weight_bytes=sum(map(_n_bytes, weights)),
        macs=None if unknown else sum(macs.values()),
        # 4 bytes per value: activations between Q/DQ pairs are counted as float32.
        activation_bytes=None
        if not activations <= shapes.keys()
        else 4 * sum(int(np.prod(shapes[name])) for name in activations),
        quantized_tensors=counts["QuantizeLinear"]
        + counts["DynamicQuantizeLinear"]
        + counts[block_weights.MATMUL]
        + counts[block_weights.GATHER],
        metadata={
            "opset": ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in model.opset_import),
            "ir_version": str(model.ir_version),
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
        },
    )


def _constants(graph: Any) -> Iterator[Any]:
    """Yield the initializers and constant nodes of a graph and of the bodies of its If, Loop and Scan nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield attribute.t
            if attribute.HasField("g"):
                yield from _constants(attribute.g)


def _n_bytes(tensor: Any) -> int:
    """Return the bytes of a constant's values."""
    values, dtype = int(np.prod(tensor.dims)), _dtype(tensor.data_type)
    if dtype in ("int4", "uint4"):  # numpy gives each of them a byte
        return -(-values // 2)
    return values * np.dtype(dtype).itemsize


def _is_parameter(tensor: Any) -> bool:
    """Return whether a constant is a parameter of the model, not a shape, an axis or a quantization parameter."""
    # ONNX Runtime's quantizer marks the kinds by suffixes of names; an int32 tensor is a quantized bias or a shape.
    name = tensor.name.lower()
    dtype = _dtype(tensor.data_type)
    if dtype == "int32":
        return bool(name.endswith("_quantized"))
    return dtype not in ("int64", "bool") and not name.endswith(("scale", "zero_point"))

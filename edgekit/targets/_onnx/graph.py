"""Reading ONNX graphs, and tidying what exporters leave behind."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.target import malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import ONNX, require
from edgekit.core.values.specs import Dim, ModelDescription, OpCount, Signature, TensorSpec

_COUNTER = re.compile(r"__\d+(?=$|:)")


def tidy(model: Any, signature: Signature) -> None:
    """Orders inputs and outputs, names the symbolic dimensions, and takes out the exporter's notes.

    Those hold source code and paths.
    """
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    _reorder(model.graph.input, [spec.name for spec in signature.inputs])
    _reorder(model.graph.output, [spec.name for spec in signature.outputs])
    for value in (*model.graph.input, *model.graph.output):
        if value.name in specs:
            _set_dims(value, specs[value.name])
    del model.graph.value_info[:]  # inferred again, with the symbols' own names
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    model.producer_version = model.producer_version.partition("+")[0].removesuffix(" None")
    model.graph.name = "model"


def _reorder(values: Any, names: list[str]) -> None:
    """TensorFlow sorts the keys of what a function returns."""
    if {value.name for value in values} == set(names):
        ordered = sorted(values, key=lambda value: names.index(value.name))
        copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
        del values[:]
        values.extend(copies)


def _set_dims(value: Any, spec: TensorSpec) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(spec.shape):
        del dims[:]
        for _ in spec.shape:
            dims.add()
    for dim, wanted in zip(dims, spec.shape, strict=True):
        dim.Clear()
        if isinstance(wanted, str):
            dim.dim_param = wanted
        else:
            dim.dim_value = wanted


def rename(model: Any, names: dict[str, str]) -> None:
    """Gives values other names, wherever they stand."""
    for graph in _graphs(model.graph):
        for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            item.name = names.get(item.name, item.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def canonical_names(model: Any) -> None:
    """Takes out of all inner names what depends on the process and not on the model; inputs and outputs keep theirs.

    tf2onnx counts (`Transpose__26:0`); of equal constants it keeps one, and of nodes that could come in any order it
    puts one first, whichever comes first in a set of objects. So nodes are put into the order in which the outputs need
    them, counters go, and a constant is called after the first node that reads it.
    """
    for graph in _graphs(model.graph):
        _order(graph)
    outer = [value.name for value in (*model.graph.input, *model.graph.output)]
    values, nodes = _Renaming(outer), _Renaming([])
    _name_constants(model.graph, values)
    for graph in _graphs(model.graph):
        for item in (*graph.initializer, *graph.input, *graph.output):
            item.name = values(item.name)
        for node in graph.node:
            node.input[:] = [values(name) for name in node.input]
            node.output[:] = [values(name) for name in node.output]
            node.name = nodes(node.name)


def _order(graph: Any) -> None:
    """Puts the nodes into the order in which they are met from the outputs on, each behind what it reads."""
    writers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    ordered: dict[int, None] = {}

    def visit(name: str) -> None:
        path = [writers[name]] if name in writers else []
        while path:
            needed = (writers[read] for read in reads(graph.node[path[-1]]) if read in writers)
            first = next((index for index in needed if index not in ordered), None)
            if first is None:
                ordered[path.pop()] = None
            else:
                path.append(first)

    for value in graph.output:
        visit(value.name)
    nodes = [
        graph.node[index] for index in (*ordered, *(index for index in range(len(graph.node)) if index not in ordered))
    ]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def reads(node: Any) -> Iterator[str]:
    """What the node reads, also from within the graphs that it holds."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)


def _name_constants(graph: Any, values: _Renaming) -> None:
    """Constants in the order of their first use, named after node and position (`conv.1`)."""
    constants = {item.name: item for item in graph.initializer}
    ordered = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in constants:
                values.rename(name, f"{_COUNTER.sub('', node.name)}.{position}")
                ordered.append(constants.pop(name))
    del graph.initializer[:]
    graph.initializer.extend([*ordered, *constants.values()])


class _Renaming:
    """Old name -> new name without a counter, each new name given once; empty names and the kept ones stay."""

    def __init__(self, kept: list[str]) -> None:
        self._renamed = {"": "", **{name: name for name in kept}}
        self._used = set(kept)

    def __call__(self, name: str) -> str:
        if name not in self._renamed:
            self.rename(name, _COUNTER.sub("", name))
        return self._renamed[name]

    def rename(self, name: str, base: str) -> None:
        """Gives `name` the new name `base`, with a count where that is taken."""
        candidates = (base if index == 0 else f"{base}_{index}" for index in itertools.count())
        self._renamed[name] = next(candidate for candidate in candidates if candidate not in self._used)
        self._used.add(self._renamed[name])


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph and every graph in its nodes' attributes."""
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            if inner.node:
                yield from _graphs(inner)


def prune_opsets(model: Any) -> None:
    """Drops the operator sets that no node uses (the quantizer declares nine)."""
    domains = {node.domain for graph in _graphs(model.graph) for node in graph.node} | {""}
    kept = [item for item in model.opset_import if item.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def expose(model: Any) -> Any:
    """The model with everything that its nodes compute among its outputs, in the order of computation."""
    import onnx

    known = {value.name: value for value in model.graph.output}
    del model.graph.output[:]
    # Types are left to the runtime, which infers them anyway.
    computed = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in computed)
    return model


def parse(path: Path) -> Any:
    """The model. Raises InputError when the file is empty, truncated, or something else."""
    require((ONNX,), "reading .onnx files")
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(path, "model file")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise malformed_file_error(path, "ONNX") from error
    if not model.graph.node and not model.graph.initializer:
        raise malformed_file_error(path, "ONNX", "there is no graph in it")
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
    constants = {item.name for item in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in constants)
    return Signature(inputs, tuple(_spec(value) for value in model.graph.output))


def read_signature(path: Path) -> Signature:
    """Inputs (without initializers) and outputs."""
    return _signature(parse(path))


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every whole shape that inference finds for one sample: symbolic dimensions of the inputs are set to 1."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for dim in (dim for value in fixed.graph.input for dim in value.type.tensor_type.shape.dim):
        dim.dim_value = dim.dim_value or 1
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int | None:
    """Multiply-accumulates of one inference of one node; None for other operators, or where a shape is unknown."""
    weight_at = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "MatMulInteger": 1}.get(
        node.op_type
    )
    if weight_at is None:
        return None
    known = [shapes.get(name) for name in (node.input[0], node.input[weight_at], node.output[0])]
    if any(shape is None for shape in known):
        return None
    first, weight, output = (shape or () for shape in known)
    outputs = int(np.prod(output))
    if node.op_type in ("Conv", "ConvInteger"):  # weight (out, in / groups, ...)
        return outputs * int(np.prod(weight[1:]))
    if node.op_type == "ConvTranspose":  # weight (in, out / groups, ...)
        return int(np.prod(first)) * int(np.prod(weight[1:]))
    if node.op_type == "Gemm":
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        return outputs * first[0 if transposed else -1]
    return outputs * first[-1]


def describe(path: Path) -> ModelDescription:
    """Operators, tensors, parameters, multiply-accumulates and quantization."""
    model = parse(path)
    shapes = _shapes(model)
    counts = Counter(node.op_type for node in model.graph.node)
    macs: dict[str, int] = {}
    unknown = False
    for node in model.graph.node:
        count = _macs(node, shapes)
        if count is not None:
            macs[node.op_type] = macs.get(node.op_type, 0) + count
        elif node.op_type in ("Conv", "ConvInteger", "Gemm", "MatMul", "MatMulInteger"):
            unknown = True
    weights = list(model.graph.initializer)
    sizes = [(int(np.prod(item.dims)), np.dtype(_dtype(item.data_type)).itemsize) for item in weights]
    activations = {name for node in model.graph.node for name in node.output}
    return ModelDescription(
        format="onnx",
        signature=_signature(model),
        ops=tuple(OpCount(name, count, macs.get(name)) for name, count in counts.most_common()),
        tensors=len({name for node in model.graph.node for name in (*node.input, *node.output) if name}),
        parameters=sum(count for item, (count, _) in zip(weights, sizes, strict=True) if _learned(item)),
        weight_bytes=sum(count * size for count, size in sizes),
        macs=None if unknown else sum(macs.values()),
        activation_bytes=None
        if not activations <= shapes.keys()
        else 4 * sum(int(np.prod(shapes[n])) for n in activations),
        quantized_tensors=counts["QuantizeLinear"] + counts["DynamicQuantizeLinear"],
        metadata={
            "opset": ", ".join(f"{item.domain or 'ai.onnx'} {item.version}" for item in model.opset_import),
            "ir_version": str(model.ir_version),
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
        },
    )


def _learned(tensor: Any) -> bool:
    """Shapes, axes and quantization parameters are no parameters of the model; a quantized bias (int32) is one."""
    name = tensor.name.lower()
    dtype = _dtype(tensor.data_type)
    if dtype == "int32":
        return bool(name.endswith("_quantized"))
    return dtype not in ("int64", "bool") and not name.endswith(("scale", "zero_point"))

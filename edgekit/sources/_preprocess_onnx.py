"""Steps in front of the inputs of an ONNX graph, as nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.values.preprocessing import Preprocessing
from edgekit.sources._onnx_file import subgraphs

# The first opset in which Resize takes sizes without a region of interest.
_OPSET = 13


def preprocessed(model: Any, items: Sequence[Preprocessing]) -> Any:
    """Return a graph that takes the application's images.

    Args:
        model: The `onnx.ModelProto`, which is not changed.
        items: The steps.

    Raises:
        InputError: The graph is of an older opset that onnx cannot convert to one with the operators of the steps.
    """
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed = _at_opset(changed)
    inner = {item.spec.name: f"{item.spec.name}/preprocessed" for item in items}
    _rename(changed.graph, inner)
    nodes: list[Any] = []
    for item in items:
        writer = _Writer(item, changed.graph)
        writer.write(inner[item.spec.name])
        nodes += writer.nodes
    nodes += changed.graph.node
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _at_opset(model: Any) -> Any:
    import onnx

    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _OPSET)
    if version >= _OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _OPSET)
    except Exception as error:  # RuntimeError of the C++ converter, and whatever its adapters raise
        raise InputError(
            f"preprocessing needs opset {_OPSET}, to which onnx cannot convert this model of opset {version}; export it"
            f" with opset {_OPSET} or newer",
            parameters=("preprocess",),
        ) from error


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Let every node that reads one of the names read another one, also inside of branches and loops."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for inside in subgraphs(node):
            own = {value.name for value in (*inside.input, *inside.initializer)}
            own |= {name for inner in inside.node for name in inner.output}
            outer = {name: new for name, new in names.items() if name not in own}
            _rename(inside, outer)
            for value in inside.output:  # a branch may return the tensor as it is
                value.name = outer.get(value.name, value.name)


def _factor(size: int, wanted: int) -> np.float32:
    """Return the factor of a side, whose product with the side is not below the wanted length: runtimes round down."""
    factor = np.float32(wanted / size)
    while np.float32(size) * factor < wanted:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor


class _Writer:
    """Writes the nodes of one input."""

    def __init__(self, item: Preprocessing, graph: Any) -> None:
        self.nodes: list[Any] = []
        self._item = item
        self._graph = graph
        self._prefix = f"{item.spec.name}/preprocess"

    def write(self, result: str) -> None:
        """Write all nodes, and the new type of the graph's input.

        Args:
            result: The name of the tensor that the model reads.
        """
        from onnx import TensorProto, helper

        item = self._item
        elements = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
        value = next(value for value in self._graph.input if value.name == item.spec.name)
        batch = value.type.tensor_type.shape.dim[0]
        first = batch.dim_value if batch.HasField("dim_value") else batch.dim_param or None
        shape = (first, *item.raw.shape[1:])
        value.CopyFrom(helper.make_tensor_value_info(item.spec.name, elements[item.dtype], shape))
        name = item.spec.name
        if item.dtype != "float32":
            name = self._add("Cast", name, to=TensorProto.FLOAT)
        if item.layout == "NHWC":
            name = self._add("Transpose", name, perm=(0, 3, 1, 2))
        name = self._image_steps(name)
        if item.spec.layout == "NHWC":
            name = self._add("Transpose", name, perm=(0, 2, 3, 1))
        if item.spec.dtype != "float32":
            name = self._add("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(item.spec.dtype)))
        self.nodes.append(helper.make_node("Identity", [name], [result]))

    def _image_steps(self, name: str) -> str:
        """Write what is computed of an image of shape (N, C, H, W)."""
        item = self._item
        if item.resize is not None:
            factors = [_factor(*sides) for sides in zip(item.size, item.resize, strict=True)]
            # Not `sizes`, which would have to name the batch.
            scales = self._constant("scales", np.array([1, 1, *factors], np.float32))
            name = self._add("Resize", name, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
        if item.offsets is not None and item.crop is not None:
            starts = np.array(item.offsets, np.int64)
            ends = starts + np.array(item.crop, np.int64)
            bounds = [self._constant(key, value) for key, value in (("starts", starts), ("ends", ends))]
            name = self._add("Slice", name, *bounds, self._constant("axes", np.array([2, 3], np.int64)))
        if item.mixes:
            # All steps that change channels: in int8 each row of its weights has a scale of its own.
            weights = self._constant("channels", item.matrix()[:, :, None, None].astype(np.float32))
            bias = self._constant("offsets", item.bias().astype(np.float32))
            name = self._add("Conv", name, weights, bias, kernel_shape=(1, 1))
        return name

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{self._prefix}/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, key: str, value: Any) -> str:
        from onnx import numpy_helper

        name = f"{self._prefix}/{key}"
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

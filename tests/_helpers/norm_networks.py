"""Small ONNX networks with batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


def norm_network(
    *, norms: bool = True, dtype: int = TensorProto.FLOAT, side: Any = 6, scale: float = 0.3
) -> ModelProto:
    """Return a network from images x (batch, 3, side, side) to y (batch, 4).

    Args:
        norms: Whether it has batch norms, of the input and behind the convolution. In training, the input was noise of
            mean 3 and standard deviation 2.
        dtype: The type of the input.
        side: Height and width; a text is a symbol.
        scale: The scale of the convolution's weights.
    """
    rng = np.random.default_rng(0)
    values = {"w": rng.normal(size=(4, 3, 3, 3)) * scale, "b": rng.normal(size=4)}
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)]
    if norms:
        values |= {"one": np.ones(3), "zero": np.zeros(3), "m": np.full(3, 3.0), "v": np.full(3, 4.0)}
        values |= {
            "one2": np.ones(4),
            "zero2": np.zeros(4),
            "m2": values["b"],
            "v2": np.minimum((values["w"] ** 2).sum((1, 2, 3)), 1e30),
        }
        nodes.append(helper.make_node("BatchNormalization", ["f", "one", "zero", "m", "v"], ["n"]))
    names = iter(("c", "c2") if norms else ("c2", "c2"))
    nodes.append(helper.make_node("Conv", ["n" if norms else "f", "w", "b"], [next(names)]))
    if norms:
        nodes.append(helper.make_node("BatchNormalization", ["c", "one2", "zero2", "m2", "v2"], [next(names)]))
    nodes += [
        helper.make_node("Relu", ["c2"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", dtype, ["batch", 3, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    weights = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

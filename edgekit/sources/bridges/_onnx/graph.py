"""Building of a `torch.nn.Module` that runs an ONNX graph node by node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx import registry
from edgekit.sources.bridges._onnx.passes import fold_norms, needed, with_last_use
from edgekit.sources.bridges._onnx.reader import Reader
from edgekit.sources.bridges._onnx.registry import GraphStep
from edgekit.sources.bridges._onnx.values import Constant, is_data, to_tensor


class UnsupportedOperators(Exception):
    """Raised for a graph with operators that this package does not implement.

    Attributes:
        nodes: A description of each such node.
    """

    def __init__(self, nodes: Sequence[str]) -> None:
        super().__init__(", ".join(nodes))
        self.nodes = tuple(nodes)


def build(model: Any, inputs: Sequence[str], outputs: Sequence[str], *, fold: bool = True) -> Any:
    """Build the module of an ONNX model.

    Args:
        model: The `onnx.ModelProto`, with its weights in memory.
        inputs: The names of the inputs, in the order of the module's arguments.
        outputs: The names of the outputs, in the order of the module's results.
        fold: Whether convolutions absorb the batch norms and the arithmetic behind them.

    Returns:
        A `torch.nn.Module` in eval mode; it returns one tensor, or a tuple if there are several outputs.

    Raises:
        UnsupportedOperators: The graph contains unsupported operators; the exception names all of them.
    """
    reader = Reader(model)
    reader.read()
    if reader.unsupported:
        raise UnsupportedOperators(reader.unsupported)
    steps = fold_norms(reader.steps, reader.constants, outputs) if fold else reader.steps
    return _module(with_last_use(needed(steps, outputs), outputs), reader.constants, inputs, outputs)


def _module(
    steps: Sequence[GraphStep], constants: dict[str, Constant], inputs: Sequence[str], outputs: Sequence[str]
) -> Any:
    import torch

    used = {name for step in steps for name in step.inputs} | set(outputs)
    kept = {name: constant for name, constant in constants.items() if name in used}

    class OnnxModule(torch.nn.Module):  # type: ignore[misc]
        """The graph; its weights are parameters, named as in the file as far as they are identifiers."""

        def __init__(self) -> None:
            super().__init__()
            self._attributes = _register(self, kept)

        def forward(self, *tensors: Any) -> Any:
            values: dict[str, Any] = dict(zip(inputs, tensors, strict=True))
            # setdefault: an initializer that is also an input is only its default value (ONNX IR, "Graphs").
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


def _run(step: GraphStep, values: dict[str, Any]) -> None:
    try:
        results = registry.run(step, tuple(values[name] if name else None for name in step.inputs))
    except Exception as error:
        error.add_note(f"in {step}")  # `onnx_to_torch` reports the node
        raise
    # strict=False: an operator may return optional outputs that the node does not name.
    values.update({name: result for name, result in zip(step.outputs, results, strict=False) if name})
    for name in step.last_use:
        values.pop(name, None)


def _as_tensor(value: Any) -> Any:
    if isinstance(value, Constant):
        return value.tensor if value.tensor is not None else to_tensor(value.array)
    return to_tensor(value) if isinstance(value, np.ndarray) else value


def _register(module: Any, constants: dict[str, Constant]) -> dict[str, str]:
    """Register weights as parameters and buffers; return attribute names by constant name."""
    import torch

    attributes: dict[str, str] = {}
    by_array: dict[int, str] = {}  # constants that share an array (aliases of the reader) share the parameter
    for name, constant in constants.items():
        if not is_data(constant.array):
            continue
        attribute = by_array.get(id(constant.array))
        if attribute is None:
            attribute = by_array[id(constant.array)] = _attribute_name(name, module)
            tensor = to_tensor(constant.array)
            if tensor.is_floating_point():  # parameters must be able to require a gradient, so integers are buffers
                module.register_parameter(attribute, torch.nn.Parameter(tensor, requires_grad=False))
            else:
                module.register_buffer(attribute, tensor)
        attributes[name] = attribute
    return attributes


def _attribute_name(name: str, module: Any) -> str:
    """Return an identifier that the module does not use yet, such as `conv1_weight` for `conv1.weight`."""
    base = re.sub(r"\W", "_", name)
    base = base if base[:1].isalpha() else f"constant_{base}"
    candidate, count = base, 0
    while hasattr(module, candidate):
        count += 1
        candidate = f"{base}_{count}"
    return candidate

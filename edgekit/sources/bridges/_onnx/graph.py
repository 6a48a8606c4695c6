"""An ONNX graph as an nn.Module that runs it node by node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx import registry
from edgekit.sources.bridges._onnx.passes import fold_norms, needed, with_last_use
from edgekit.sources.bridges._onnx.reader import Reader
from edgekit.sources.bridges._onnx.registry import Step
from edgekit.sources.bridges._onnx.values import Constant, is_data, to_tensor


class UnsupportedOperators(Exception):
    """The graph has nodes that this package cannot run; `nodes` describes each of them."""

    def __init__(self, nodes: Sequence[str]) -> None:
        super().__init__(", ".join(nodes))
        self.nodes = tuple(nodes)


def build(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The module; it takes tensors one by one in the order of `inputs`, and gives a tensor, or a tuple of them.

    Raises UnsupportedOperators, naming all of them, before it makes anything.
    """
    reader = Reader(model)
    reader.read()
    if reader.unsupported:
        raise UnsupportedOperators(reader.unsupported)
    steps = fold_norms(reader.steps, reader.constants, outputs)
    return _module(with_last_use(needed(steps, outputs), outputs), reader.constants, inputs, outputs)


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

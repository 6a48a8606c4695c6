"""TorchScript in libtorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature
from edgekit.runtimes._torch import TorchRuntime


class TorchScriptRuntime(TorchRuntime):
    """Runs .pt files."""

    name = "torchscript"
    title = "TorchScript runtime"
    targets = ("torchscript",)

    def _load(self, path: str) -> Any:
        import torch

        return torch.jit.load(path, map_location="cpu")

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        session = self._open(path, 1, signature)
        try:
            function, names = _exposed(session._module)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{path}: this TorchScript does not show what it computes inside ({reason})") from error
        inputs = Signature(session.signature.inputs, ())
        return batching.stack_traces(_values(function, names, call) for call in batching.iter_batches(inputs, samples))


def _exposed(module: Any) -> tuple[Callable[..., Any], list[str]]:
    """A function that returns what every operator of the module computes, and names for it: operator and number."""
    import torch

    graph = module.forward.graph.copy()
    torch._C._jit_pass_inline(graph)
    graph, weights = torch._C._jit_pass_lower_graph(graph, module._c)
    found, names, counts = [], [], Counter[str]()
    for node in list(graph.nodes()):
        operation = node.kind().partition("::")[2]
        if operation in ("Constant", "If", "Loop"):
            continue
        for output in node.outputs():
            if output.type().kind() == "TensorType":
                names.append(f"{operation}_{counts[operation]}" if counts[operation] else operation)
                counts[operation] += 1
                found.append(_kept(graph, node, output))
    bundle = graph.create("prim::TupleConstruct", found)
    bundle.output().setType(torch._C.TupleType([value.type() for value in found]))
    graph.appendNode(bundle)
    for index in reversed(range(len(list(graph.outputs())))):
        graph.eraseOutput(index)
    graph.registerOutput(bundle.output())
    function = torch._C._create_function_from_graph("forward", graph)
    return lambda *tensors: function(*tensors, *weights), names


def _kept(graph: Any, node: Any, output: Any) -> Any:
    """A copy of the value, made at once: an operator that works in place would overwrite it."""
    copy = graph.create("aten::clone", [output, graph.insertConstant(None)])
    copy.insertAfter(node)
    copy.output().setType(output.type())
    nothing = list(copy.inputs())[1].node()
    nothing.moveBefore(copy)
    return copy.output()


def _values(function: Callable[..., Any], names: list[str], inputs: list[Array]) -> dict[str, Array]:
    import torch

    with torch.no_grad():
        results = function(*map(torch.from_numpy, inputs))
    real = (
        (name, tensor.dequantize() if tensor.is_quantized else tensor)
        for name, tensor in zip(names, results, strict=True)
    )
    return {name: np.asarray(tensor.numpy()) for name, tensor in real if tensor.is_floating_point()}


RUNTIME = TorchScriptRuntime()

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
from edgekit.torch_files import script_archive


class TorchScriptRuntime(TorchRuntime):
    """Runs .pt files."""

    name = "torchscript"
    title = "TorchScript runtime"
    targets = ("torchscript",)

    def _load(self, path: Path) -> Any:
        return script_archive.load_script(path)

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        session = self._open(path, 1, signature)
        try:
            function, names = _traced_function(session._module)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{path}: cannot trace the operators of this TorchScript model ({reason})") from error
        inputs = Signature(session.signature.inputs, ())
        return batching.stack_traces(_values(function, names, call) for call in batching.iter_batches(inputs, samples))


def _traced_function(module: Any) -> tuple[Callable[..., Any], list[str]]:
    """Return a function with the outputs of all operators of the module, and their names: operator and number."""
    import torch

    graph = module.forward.graph.copy()
    torch._C._jit_pass_inline(graph)
    graph, weights = torch._C._jit_pass_lower_graph(graph, module._c)
    copies, names, counts = [], [], Counter[str]()
    for node in list(graph.nodes()):
        operation = node.kind().partition("::")[2]
        if operation in ("Constant", "If", "Loop"):
            continue
        for output in node.outputs():
            if output.type().kind() == "TensorType":
                names.append(f"{operation}_{counts[operation]}" if counts[operation] else operation)
                counts[operation] += 1
                copies.append(_insert_copy(graph, node, output))
    bundle = graph.create("prim::TupleConstruct", copies)
    bundle.output().setType(torch._C.TupleType([value.type() for value in copies]))
    graph.appendNode(bundle)
    for index in reversed(range(len(list(graph.outputs())))):
        graph.eraseOutput(index)
    graph.registerOutput(bundle.output())
    function = torch._C._create_function_from_graph("forward", graph)
    return lambda *tensors: function(*tensors, *weights), names


def _insert_copy(graph: Any, node: Any, output: Any) -> Any:
    """Copy a value directly after the node that computes it, since a later in-place operator may overwrite it."""
    copy = graph.create("aten::clone", [output, graph.insertConstant(None)])
    copy.insertAfter(node)
    copy.output().setType(output.type())
    none = list(copy.inputs())[1].node()
    none.moveBefore(copy)
    return copy.output()


def _values(function: Callable[..., Any], names: list[str], inputs: list[Array]) -> dict[str, Array]:
    import torch

    with torch.no_grad():
        results = function(*map(torch.from_numpy, inputs))
    tensors = (
        (name, tensor.dequantize() if tensor.is_quantized else tensor)
        for name, tensor in zip(names, results, strict=True)
    )
    return {name: np.asarray(tensor.numpy()) for name, tensor in tensors if tensor.is_floating_point()}


RUNTIME = TorchScriptRuntime()

"""What the kinds that are PyTorch modules in memory share: running one, wrapping it, seeing what it returns."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Container, Mapping
from typing import Any

from edgekit.contracts.source import LoadedModel, unknown_outputs
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources.bridges._functional import functional


class LoadedTorch(LoadedModel):
    """An nn.Module in eval mode."""

    kind = "torch"
    _traceable: Any = None

    def _run(self, inputs: list[Array]) -> list[Array]:
        import torch

        with torch.no_grad():
            result: Any = self.model(*(torch.from_numpy(array) for array in inputs))
        return [output.numpy() for output in outputs_of(result)]

    def call(self, *tensors: Any) -> list[Any]:
        return outputs_of(self.model(*tensors))

    def _trace(self, inputs: list[Array]) -> dict[str, Array]:
        import torch

        tensors = tuple(map(torch.from_numpy, inputs))
        if self._traceable is None:  # once for all samples, which are of one shape
            self._traceable = torch.export.export(self.model, tensors).module(check_guards=False)
        return _watched(self._traceable, tensors)

    def _in_float64(self) -> Any:
        return copy.deepcopy(self.model).double()

    def parameters(self) -> dict[str, Array]:
        # Batch norm counts its batches beside its weights: nothing is computed from that.
        state = {
            key: value for key, value in self.model.state_dict().items() if not key.endswith("num_batches_tracked")
        }
        return {name: tensor.detach().numpy() for name, tensor in state.items()}

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        return permuted(self.model, inputs, outputs)


def _watched(graph_module: Any, tensors: tuple[Any, ...]) -> dict[str, Array]:
    """What every call in an exported graph returns, by the path of its module and its operator."""
    import torch

    found: dict[str, Array] = {}

    class Watcher(torch.fx.Interpreter):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if node.op == "call_function" and isinstance(result, torch.Tensor) and result.is_floating_point():
                found[unused(_place(node), found)] = result.detach().clone().numpy()
            return result

    with torch.no_grad():
        Watcher(graph_module).run(*tensors)
    return found


def _place(node: Any) -> str:
    """`features.0.conv2d`: where in the module the call stands, and what it calls."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()), ("",))[0] if stack else ""
    path = path.removeprefix("L['self']").strip(".").replace("._modules", "").replace("['", "").replace("']", "")
    operation = str(node.target).removeprefix("aten.").split(".")[0]
    return f"{path}.{operation}" if path else operation


def unused(name: str, taken: Container[str]) -> str:
    """The name, with a number where it is taken."""
    numbered = (f"{name}_{index}" if index else name for index in itertools.count())
    return next(candidate for candidate in numbered if candidate not in taken)


def outputs_of(result: Any) -> list[Any]:
    """The tensors that a module returned: one, a tuple, a list, or a dict (such as a data class of transformers)."""
    if isinstance(result, Mapping):
        return list(result.values())
    return list(result) if isinstance(result, (list, tuple)) else [result]


def permuted(model: Any, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
    """A module around another, with permutes before and behind it."""
    import torch

    def moved(graph: Any, node: Any, order: Permutation | None) -> Any:
        return node if order is None else graph.call_function(torch.permute, (node, order))

    return _around(
        model,
        len(inputs),
        len(outputs),
        lambda graph, nodes: [moved(graph, node, order) for node, order in zip(nodes, inputs, strict=True)],
        lambda graph, nodes: [moved(graph, node, order) for node, order in zip(nodes, outputs, strict=True)],
    )


def positional(model: Any, inputs: int, outputs: int) -> Any:
    """A module around one that returns a dict: it returns the values, as converters want them."""
    return _around(model, inputs, outputs, lambda _graph, nodes: nodes, lambda _graph, nodes: nodes)


Between = Callable[[Any, list[Any]], list[Any]]


def _around(model: Any, inputs: int, outputs: int, before: Between, behind: Between) -> Any:
    """A module that calls another, with something in the graph before and behind it.

    It is built as a graph: FX, jit and export all take one with an argument an input, and FX no `*inputs`.
    """
    import torch

    graph = torch.fx.Graph()
    arguments = before(graph, [graph.placeholder(f"input_{index}") for index in range(inputs)])
    returned = graph.call_function(outputs_of, (graph.call_module("module", tuple(arguments)),))
    results = [graph.call_function(operator.getitem, (returned, index)) for index in range(outputs)]
    results = behind(graph, results)
    graph.output(results[0] if len(results) == 1 else tuple(results))
    root = torch.nn.Module()
    root.module = model
    return torch.fx.GraphModule(root, graph).eval()


def program_module(program: Any, signature: Signature, examples: tuple[Any, ...]) -> Any:
    """A program as a module over PyTorch's functions, which can be traced, exported and quantized again."""
    import torch

    inner = program.module(check_guards=False)
    inner._forward_pre_hooks.clear()  # they compare shapes with the example's, which a trace cannot follow

    class Program(torch.nn.Module):  # type: ignore[misc]
        """Takes its inputs one by one."""

        def __init__(self) -> None:
            super().__init__()
            self.program = inner

        def forward(self, *tensors: Any) -> Any:
            return self.program(*tensors)

    return functional(Program(), signature, examples)


def probed(module: Any, inputs: tuple[TensorSpec, ...]) -> Any:
    """What the module returns for zeros, two for each symbolic dimension."""
    import torch

    shapes = [[dim if isinstance(dim, int) else 2 for dim in spec.shape] for spec in inputs]
    with torch.no_grad():
        return module(
            *(torch.zeros(shape, dtype=getattr(torch, spec.dtype)) for shape, spec in zip(shapes, inputs, strict=True))
        )


def output_names(module: Any, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Outputs of which only the names are known: what a dict calls them, else numbered. The module is run once to see.

    Raises InputError when it does not take such inputs.
    """
    try:
        result = probed(module, inputs)
    except Exception as error:  # whatever the user's code raises
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        raise InputError(f"the network does not take these inputs ({'; '.join(map(str, inputs))}): {reason}") from error
    count = len(outputs_of(result))
    names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    return unknown_outputs(list(result) if isinstance(result, Mapping) else names)

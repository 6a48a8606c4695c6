"""Running, tracing and wrapping PyTorch modules; shared by all source kinds that are modules in memory."""

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
    """A `torch.nn.Module` in eval mode."""

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
        if self._traceable is None:  # exported once: all samples have the same shape
            # No guards: the inputs' shapes are checked against the signature, and guards are no layers to record.
            self._traceable = torch.export.export(self.model, tensors).module(check_guards=False)
        return _operator_results(self._traceable, tensors)

    def _in_float64(self) -> Any:
        return copy.deepcopy(self.model).double()

    def parameters(self) -> dict[str, Array]:
        # Batch norm's counter of training batches has no influence on inference.
        state = {
            key: value for key, value in self.model.state_dict().items() if not key.endswith("num_batches_tracked")
        }
        return {name: tensor.detach().numpy() for name, tensor in state.items()}

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        return permuted(self.model, inputs, outputs)


def _operator_results(graph_module: Any, tensors: tuple[Any, ...]) -> dict[str, Array]:
    """Return the floating-point result of every call in an exported graph, by module path and operator."""
    import torch

    results: dict[str, Array] = {}

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if node.op == "call_function" and isinstance(result, torch.Tensor) and result.is_floating_point():
                # Cloned: an in-place operator further down would change the recorded values.
                results[unused_name(_call_path(node), results)] = result.detach().clone().numpy()
            return result

    with torch.no_grad():
        Recorder(graph_module).run(*tensors)
    return results


def _call_path(node: Any) -> str:
    """Return the module path and operator of a call, such as `features.0.conv2d`."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()), ("",))[0] if stack else ""
    # Dynamo writes `L['self']._modules['features']._modules['0']` where other tracers write `features.0`.
    path = path.removeprefix("L['self']").strip(".").replace("._modules", "").replace("['", "").replace("']", "")
    operation = str(node.target).removeprefix("aten.").split(".")[0]
    return f"{path}.{operation}" if path else operation


def unused_name(name: str, used: Container[str]) -> str:
    """Return the name, with a numeric suffix if it is used already."""
    numbered = (f"{name}_{index}" if index else name for index in itertools.count())
    return next(candidate for candidate in numbered if candidate not in used)


def outputs_of(result: Any) -> list[Any]:
    """Return the tensors in a module's result: a tensor, tuple, list or dict (such as a ModelOutput of transformers).

    The name of this function becomes a node's name in traced graphs: do not rename it.
    """
    if isinstance(result, Mapping):
        return list(result.values())
    return list(result) if isinstance(result, (list, tuple)) else [result]


def permuted(model: Any, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
    """Return a module around another one that permutes its inputs and outputs.

    Args:
        model: The inner module.
        inputs: A permutation per input, applied before the inner module; None leaves the input unchanged.
        outputs: A permutation per output, applied after the inner module; None leaves the output unchanged.

    Returns:
        A `torch.fx.GraphModule` in eval mode.
    """
    import torch

    def permute(graph: Any, node: Any, order: Permutation | None) -> Any:
        return node if order is None else graph.call_function(torch.permute, (node, order))

    return _wrap(
        model,
        len(inputs),
        len(outputs),
        lambda graph, nodes: [permute(graph, node, order) for node, order in zip(nodes, inputs, strict=True)],
        lambda graph, nodes: [permute(graph, node, order) for node, order in zip(nodes, outputs, strict=True)],
    )


def positional(model: Any, inputs: int, outputs: int) -> Any:
    """Return a module that returns the values of the dict that another module returns, as converters require.

    Args:
        model: The inner module.
        inputs: The number of its inputs.
        outputs: The number of its outputs.

    Returns:
        A `torch.fx.GraphModule` in eval mode.
    """
    return _wrap(model, inputs, outputs, lambda _graph, nodes: nodes, lambda _graph, nodes: nodes)


GraphEdit = Callable[[Any, list[Any]], list[Any]]


def _wrap(model: Any, inputs: int, outputs: int, before: GraphEdit, after: GraphEdit) -> Any:
    """Return a GraphModule that calls another module, with nodes inserted before and after the call.

    It is built as a graph because FX does not trace a forward with `*inputs`; a graph with one placeholder per input is
    accepted by FX, jit and export alike.
    """
    import torch

    graph = torch.fx.Graph()
    arguments = before(graph, [graph.placeholder(f"input_{index}") for index in range(inputs)])
    returned = graph.call_function(outputs_of, (graph.call_module("module", tuple(arguments)),))
    results = [graph.call_function(operator.getitem, (returned, index)) for index in range(outputs)]
    results = after(graph, results)
    graph.output(results[0] if len(results) == 1 else tuple(results))
    root = torch.nn.Module()
    root.module = model
    return torch.fx.GraphModule(root, graph).eval()


def program_module(program: Any, signature: Signature, examples: tuple[Any, ...]) -> Any:
    """Return an exported program as a module over PyTorch's functions.

    Args:
        program: The `torch.export.ExportedProgram`.
        signature: Its inputs and outputs.
        examples: Inputs that the program accepts.

    Returns:
        A module that can be traced, exported and quantized again.
    """
    import torch

    inner = program.module(check_guards=False)
    # The hooks compare shapes with those of the program's example, which would fail, or become constants, in a trace.
    inner._forward_pre_hooks.clear()

    class Program(torch.nn.Module):  # type: ignore[misc]
        """The program with one positional argument per input."""

        def __init__(self) -> None:
            super().__init__()
            self.program = inner

        def forward(self, *tensors: Any) -> Any:
            return self.program(*tensors)

    return functional(Program(), signature, examples)


def probed(module: Any, inputs: tuple[TensorSpec, ...]) -> Any:
    """Return what the module returns for zeros; symbolic dimensions become 2.

    Args:
        module: The module.
        inputs: The specs of its inputs.

    Returns:
        The result as the module returns it: a tensor, tuple, list or dict.
    """
    import torch

    # 2 rather than 1: a size of 1 broadcasts and would hide inputs that do not fit.

    shapes = [[dim if isinstance(dim, int) else 2 for dim in spec.shape] for spec in inputs]
    with torch.no_grad():
        return module(
            *(torch.zeros(shape, dtype=getattr(torch, spec.dtype)) for shape, spec in zip(shapes, inputs, strict=True))
        )


def output_names(module: Any, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return specs with the names of a module's outputs, after one run with zeros.

    Args:
        module: The module.
        inputs: The specs of its inputs.

    Returns:
        Specs of unknown shape and dtype, named by the keys of a returned dict, else `output` or `output_INDEX`.

    Raises:
        InputError: The module does not accept such inputs.
    """
    try:
        result = probed(module, inputs)
    except Exception as error:  # the user's code may raise anything
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        raise InputError(f"the network does not take these inputs ({'; '.join(map(str, inputs))}): {reason}") from error
    count = len(outputs_of(result))
    names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    return unknown_outputs(list(result) if isinstance(result, Mapping) else names)

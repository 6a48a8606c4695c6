"""Running, tracing and wrapping PyTorch modules; shared by all source kinds that are modules in memory."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import sysconfig
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.source import LoadedModel, unknown_outputs
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.channel_scales import ChannelGroups
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.values.fixed_inputs import FixedInput
from edgekit.core.values.preprocessing import Preprocessing
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._data_reads import data_reads
from edgekit.sources._module_outputs import output_names_of, outputs_of
from edgekit.sources._preprocess_torch import preprocessed
from edgekit.sources._regular_module import adaptation, called, keywords_of, observed, wrapped
from edgekit.sources._torch_channels import channel_graph, measure
from edgekit.sources._torch_norms import norm_gradient
from edgekit.sources.bridges._functional import functional

_log = logging.getLogger(__name__)

# Samples that ranges of channels are measured with, and how many of them in one call.
_RANGE_SAMPLES, _RANGE_BATCH = 64, 32


class LoadedTorch(LoadedModel):
    """A `torch.nn.Module` in eval mode."""

    kind = "torch"
    _traceable: Any = None

    def with_examples(self, inputs: Mapping[str, Array]) -> LoadedModel:
        """Return the model with its calling convention adapted to what converters take, as the inputs show it."""
        copied = super().with_examples(inputs)
        specs = self.signature.inputs
        try:
            adapted = adaptation(self.model, [spec.name for spec in specs], example_tensors(specs, inputs))
        except Exception:  # noqa: BLE001 - the run on all samples reports the error of the user's code
            return copied
        copied.model = adapted.apply(self.model, len(specs), len(self.signature.outputs))
        return copied

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

    def data_reads(self) -> tuple[str, ...]:
        import torch

        def read() -> tuple[str, ...]:
            return tuple(map(str, data_reads(self.model, tuple(map(torch.from_numpy, self.examples(1))))))

        return self.cached("data reads", read)

    def parameters(self) -> dict[str, Array]:
        # Batch norm's counter of training batches has no influence on inference.
        state = {
            key: value for key, value in self.model.state_dict().items() if not key.endswith("num_batches_tracked")
        }
        return {name: tensor.detach().numpy() for name, tensor in state.items()}

    def state(self) -> Mapping[str, Array]:
        import torch

        # numpy has neither bfloat16 nor quantized and sparse tensors; such buffers are tables and no state.
        kinds = (torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16)
        return {
            name: buffer.detach().cpu().numpy()
            for name, buffer in self.model.named_buffers()
            if buffer.dtype in (*kinds, torch.int32, torch.int64) and buffer.layout == torch.strided
        }

    def _set_state(self, values: Mapping[str, Array]) -> None:
        import torch

        buffers = dict(self.model.named_buffers())
        with torch.no_grad():
            for name, value in values.items():
                buffers[name].copy_(torch.from_numpy(np.array(value)))

    def random_operators(self, inputs: Mapping[str, Array]) -> tuple[str, ...]:
        return random_calls(lambda: self._run([inputs[spec.name] for spec in self.signature.inputs]))

    def _channel_ranges(self, inputs: Mapping[str, Array]) -> tuple[ChannelGroups, Mapping[str, Array]] | None:
        samples = min(_RANGE_BATCH, batching.n_samples(self.signature, inputs))
        # A module may be exportable for one sample only, or not at all.
        for batch in dict.fromkeys((samples, 1)):
            try:
                return self._ranges_by(batch, inputs)
            except Exception as error:  # noqa: BLE001 - torch.export and the user's code may raise anything
                _log.info("channels cannot be scaled in batches of %d: %s", batch, str(error).splitlines()[:1])
        return None

    def _ranges_by(self, batch: int, inputs: Mapping[str, Array]) -> tuple[ChannelGroups, Mapping[str, Array]]:
        import torch

        count = max(1, min(_RANGE_SAMPLES, batching.n_samples(self.signature, inputs)) // batch) * batch
        used = batching.select_samples(self.signature, inputs, 0, count)
        calls = [tuple(map(torch.from_numpy, call)) for call in batching.iter_batches(self.signature, used, batch)]
        graph = channel_graph(self.model, calls[0])
        groups = ChannelGroups.of(graph.operations, graph.outputs, graph.shared)
        axes = {name: groups.axis(name) for names in groups.free.values() for name in names}
        return groups, measure(graph, axes, calls)

    def _norm_gradient(self, calls: Sequence[list[Array]]) -> tuple[float, int, list[list[Array]]]:
        return norm_gradient(self.model, calls)

    def _with_parameters(self, values: Mapping[str, Array]) -> LoadedTorch:
        import torch

        module = copy.deepcopy(self.model)
        module.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
        return type(self)(module, self.signature)

    def _with_constants(self, constants: Sequence[FixedInput | None]) -> Any:
        names = [spec.name for spec in self.signature.inputs]
        return with_constants(self.model, names, constants, self.batch_input(constants))

    def _with_steps(self, steps: Sequence[Preprocessing | None]) -> Any:
        return preprocessed(self.model, self.signature, steps)

    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        return permuted(self.model, inputs, outputs)


def random_calls(run: Callable[[], object]) -> tuple[str, ...]:
    """Return the operators that draw random numbers in a run, as `OPERATOR (FILE:LINE)`.

    Args:
        run: Runs a module.

    Returns:
        The operators in the order of their first call; the line is that of the user's code.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: dict[str, None] = {}

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if torch.Tag.nondeterministic_seeded in func.tags:
                found.setdefault(f"{func.overloadpacket.__name__}{_user_line()}")
            return func(*args, **(kwargs or {}))

    with Watch():
        run()
    return tuple(found)


def _user_line() -> str:
    """Return the innermost line of a file that belongs to no installed package, as ` (net.py:12)`, or nothing."""
    frames = traceback.extract_stack()
    packages = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
    own = str(Path(__file__).parents[1])
    for frame in reversed(frames):
        if not frame.filename.startswith((own, "<")) and not any(part in frame.filename for part in packages):
            inside = Path(frame.filename).is_relative_to(sysconfig.get_path("stdlib"))
            return "" if inside else f" ({Path(frame.filename).name}:{frame.lineno})"
    return ""


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

    return wrapped(
        model,
        len(inputs),
        len(outputs),
        lambda graph, nodes: [permute(graph, node, order) for node, order in zip(nodes, inputs, strict=True)],
        lambda graph, nodes: [permute(graph, node, order) for node, order in zip(nodes, outputs, strict=True)],
    )


def with_constants(
    model: Any, names: Sequence[str], constants: Sequence[FixedInput | None], batch_input: int | None
) -> Any:
    """Return a module around another one that passes constants for some of its inputs.

    Args:
        model: The inner module.
        names: The names of its inputs.
        constants: For each input the constant, or None for an input that stays.
        batch_input: The position, among the inputs that stay, of the one whose batch the constants follow.

    Returns:
        A module in eval mode with one positional argument per input that stays.
    """
    import torch

    keywords = keywords_of(model, names)

    class FixedInputs(torch.nn.Module):  # type: ignore[misc]
        """The module with constants for some of its inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.module = model
            for index, item in enumerate(constants):
                if item is not None and not item.as_number:
                    self.register_buffer(f"fixed_{index}", torch.from_numpy(item.array()), persistent=False)

        def forward(self, *tensors: Any) -> Any:
            rest = iter(tensors)
            rows = None if batch_input is None else tensors[batch_input].shape[0]
            arguments = [
                next(rest) if item is None else self._constant(i, item, rows) for i, item in enumerate(constants)
            ]
            return called(self.module, arguments, keywords)

        def _constant(self, index: int, item: FixedInput, rows: Any) -> Any:
            if item.as_number:
                return item.value
            tensor = getattr(self, f"fixed_{index}")
            follows = item.spec.shape and isinstance(item.spec.shape[0], str) and rows is not None
            return tensor.expand(rows, *tensor.shape[1:]) if follows else tensor

    return FixedInputs().eval()


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


def example_tensors(
    inputs: Sequence[TensorSpec], samples: Mapping[str, Array] | None = None, batch: str | None = None
) -> list[Any]:
    """Return a tensor for each input: the first two samples, or numbers if there are none.

    Args:
        inputs: The specs of the inputs.
        samples: Real inputs of shape (N, ...) by name.
        batch: The symbol of the batch; by default, that of the first input that has one.

    Returns:
        The tensors in the order of the specs.
    """
    import torch

    # Never zeros, which are lengths of nothing and divisors; 2 rather than 1 for symbolic sizes, as a size of 1
    # broadcasts and would hide inputs that do not fit.
    if samples is None:
        generator = torch.Generator().manual_seed(0)
        shapes = [[dim if isinstance(dim, int) else 2 for dim in spec.shape] for spec in inputs]
        return [
            torch.randn(shape, generator=generator, dtype=torch.float32).to(getattr(torch, spec.dtype))
            if spec.dtype.startswith("float")
            else torch.ones(shape, dtype=getattr(torch, spec.dtype))
            for shape, spec in zip(shapes, inputs, strict=True)
        ]
    signature = Signature(tuple(inputs), ())
    arrays = next(batching.iter_batches(signature, samples, 2))
    return [torch.from_numpy(array.astype(spec.dtype)) for array, spec in zip(arrays, inputs, strict=True)]


def output_names(
    module: Any, inputs: tuple[TensorSpec, ...], samples: Mapping[str, Array] | None = None
) -> tuple[TensorSpec, ...]:
    """Return specs with the names of a module's outputs, after one run.

    Args:
        module: The module.
        inputs: The specs of its inputs.
        samples: Real inputs of shape (N, ...) by name, if there are any.

    Returns:
        Specs of unknown shape and dtype, named by the keys and fields of the result, else `output` or `output_INDEX`.

    Raises:
        InputError: The module does not accept such inputs, or returns something else than tensors.
    """
    names = [spec.name for spec in inputs]
    try:
        result = observed(module, example_tensors(inputs, samples), keywords_of(module, names))
        return unknown_outputs(output_names_of(result))
    except Exception as error:  # the user's code may raise anything
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        raise InputError(f"the network does not take these inputs ({'; '.join(map(str, inputs))}): {reason}") from error

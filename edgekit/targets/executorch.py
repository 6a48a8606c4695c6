"""The ExecuTorch target: torch.export, the XNNPACK partitioner and PT2E quantization."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, SupportedForms, Target, malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import EXECUTORCH, TORCH, TORCHAO
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.exact_values import NOTE as EXACT_VALUES_NOTE
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import SCALAR_TYPES, ModelDescription, OpCount, Signature, TensorSpec
from edgekit.targets._torch import exact_values
from edgekit.targets._torch.executorch_forms import quantize_ends, quantizer, set_ranges
from edgekit.targets._torch.executorch_lowering import faster_lowering, patterns_exported_once
from edgekit.targets._torch.other_forms import with_runnable_forms

_log = logging.getLogger(__name__)
_ONE_BY_ONE = "each operator is delegated to XNNPACK by itself: its partitioner fails on larger parts of this network"
_NOT_DELEGATED = "nothing is delegated to XNNPACK, whose partitioner fails on this network; portable kernels are slower"


class ExecuTorchTarget(Target):
    """ExecuTorch programs for XNNPACK.

    int8 and dynamic use PT2E with XNNPACK's quantizer, weights per channel; inputs and outputs stay float32 by default.
    """

    name = "executorch"
    title = "ExecuTorch"
    suffixes = (".pte",)
    runtime = "executorch"
    routes = {"torch": ("float32", "dynamic", "int8")}
    on_request = frozenset({"dynamic"})  # a lowering takes seconds
    requires = {"torch": (TORCH, EXECUTORCH, TORCHAO)}
    reads_with = (EXECUTORCH,)
    # Its quantizer has signed activations only.
    forms = {
        "dynamic": SupportedForms(per_tensor=True),
        "int8": SupportedForms(("float32", "int8"), ("float32", "int8"), per_tensor=True, symmetric=True, ranges=True),
    }
    describe_tells_precision = False  # the weights are inside the XNNPACK delegate's own format

    def programs(self) -> tuple[str, ...]:
        # ExecuTorch 1.5 writes its programs with the FlatBuffers compiler that its wheel contains.
        if not EXECUTORCH.installed():
            return ()
        spec = importlib.util.find_spec("executorch.data.bin")
        folders = () if spec is None else spec.submodule_search_locations or ()
        return tuple(str(path) for folder in folders if (path := Path(folder, "flatc")).is_file())

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        import torch

        example = tuple(map(torch.from_numpy, source.examples(1)))
        notes: tuple[str, ...] = ()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch and torchao deprecate one another's names
            program = with_runnable_forms(torch.export.export(source.model, example), example)
            signature = source.signature
            if job.precision != "float32":
                quantized, kept = _quantize(program, source, job)
                notes = (EXACT_VALUES_NOTE,) if kept else ()
                program = torch.export.export(quantized, example)
                signature = quantize_ends(program, signature, job.form)
            _sort_by_top_k(program)
            _copy_views(program)
            _subtract_means(program)
            content, delegation, lowering = _lower(program, job.precision)
        (job.folder / self.file_name).write_bytes(content)
        options = {"backend": "XNNPACK", **delegation}
        if job.precision != "float32":
            options |= {
                "quantizer": "PT2E XNNPACKQuantizer",
                "weights": "per tensor" if job.form.per_tensor else "per channel",
            }
        # Edge operators of permute(), transpose() and t(); delegated ones are counted as well.
        moving = ("permute", "transpose", "t_copy")
        counts = [*delegation["delegated"].items(), *delegation["not_delegated"].items()]
        transposes = sum(count for name, count in counts if any(word in name for word in moving))
        return ConversionResult(self.file_name, signature, options, (*notes, *lowering), transposes=transposes)

    def describe(self, path: Path) -> ModelDescription:
        return _describe(path)


def _quantize(program: Any, source: LoadedSource, job: ConversionRequest) -> tuple[Any, bool]:
    """Return the program as a quantized module, calibrated with the samples of the request.

    The second value says whether operators stay in float because they compare exact values or mask.

    Raises:
        InputError: XNNPACK's quantizer finds nothing to quantize.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = tuple(map(torch.from_numpy, source.examples(1)))
    dynamic = job.precision == "dynamic"
    with patterns_exported_once():
        prepared = prepare_pt2e(program.module(), quantizer(job.form, dynamic=dynamic))
    if dynamic:
        # Their observers stand before multiplications only, which no operator that decides or masks is.
        if not any("activation_post_process" in str(node.target) for node in prepared.graph.nodes):
            raise InputError(
                "this network has nothing to quantize at executorch:dynamic, which stores the weights of linear layers"
                " and convolutions in int8"
            )
        prepared(*example)
        with patterns_exported_once():
            return convert_pt2e(prepared), False
    assert job.calibration is not None  # checked by Target.convert
    kept = exact_values.keep(prepared, example)
    for arrays in batching.iter_batches(source.signature, job.calibration):
        prepared(*map(torch.from_numpy, arrays))
    set_ranges(prepared, source.signature, job.form)
    with patterns_exported_once():
        quantized = convert_pt2e(prepared)
    _drop_unread(quantized)
    return quantized, kept


def _drop_unread(module: Any) -> None:
    """Remove the weights that no node reads.

    torchao 0.18 folds the quantization of weights into integers. It leaves the float weights behind where they are
    buffers of a nested module, and ExecuTorch writes them into the file.
    """
    read = {str(node.target) for node in module.graph.nodes if node.op in ("get_attr", "call_module")}
    for name in [name for name, _ in module.named_buffers(remove_duplicate=False)]:
        owner, _, attribute = name.rpartition(".")
        # What a node calls, or reads as a whole, may read the buffers below it.
        parents = {name[:index] for index, letter in enumerate(name) if letter == "."}
        if name not in read and not parents & read:
            delattr(module.get_submodule(owner), attribute)


def _sort_by_top_k(program: Any) -> None:
    """Replace sorting by the top k of all elements: ExecuTorch 1.5 has a kernel for that only."""
    import torch

    for node in program.graph_module.graph.nodes:
        if node.op != "call_function" or str(node.target) not in ("aten.sort.default", "aten.sort.stable"):
            continue
        # sort(x, dim, descending), and sort.stable(x, *, stable, dim, descending)
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else -1)
        descending = node.kwargs.get("descending", node.args[2] if len(node.args) > 2 else False)
        node.target = torch.ops.aten.topk.default
        node.args = (node.args[0], int(node.args[0].meta["val"].shape[dim]), dim, descending, True)
        node.kwargs = {}
    program.graph_module.recompile()


def _copy_views(program: Any) -> None:
    """Give every weight that is a view of a larger tensor memory of its own."""
    # ExecuTorch 1.5: XNNPACK's serializer writes `untyped_storage()` from its first byte, which are the wrong values
    # for a view, such as one row of a GRU's two biases.
    for tensors in (program.state_dict, program.constants):
        for name, tensor in tensors.items():
            if tensor.untyped_storage().nbytes() != tensor.nbytes:
                tensors[name] = tensor.clone()


def _subtract_means(program: Any) -> None:
    """Subtract the mean in front of every normalization that subtracts it, which does not change its exact result."""
    # ExecuTorch 1.5: the portable kernels compute the variance as E[x^2] - E[x]^2 in float32, which cancels where the
    # mean is large: a layer norm of features of 0.67 +- 0.01 is off by 4e-3, where PyTorch is off by 2e-5.
    for node in list(program.graph_module.graph.nodes):
        if node.op == "call_function" and str(node.target) in _MEAN_AXES:
            x = node.args[0]
            shape, axes = _MEAN_AXES[str(node.target)](node, list(x.meta["val"].shape))
            if axes:
                node.replace_input_with(x, _insert_centering(node, shape, axes))
    program.graph_module.recompile()


# By operator: the shape to which the input is reshaped, and the axes of that shape over which the mean is taken.
_MEAN_AXES: dict[str, Callable[[Any, list[int]], tuple[list[int], list[int]]]] = {
    "aten.layer_norm.default": lambda node, shape: (shape, list(range(-len(node.args[1]), 0))),
    "aten.group_norm.default": lambda node, shape: ([shape[0], node.args[1], -1], [2]),  # (N, groups, rest)
    # Argument 5 is use_input_stats: without it the norm subtracts the running mean, not the mean of its input.
    "aten.instance_norm.default": lambda node, shape: (shape, list(range(2, len(shape))) if node.args[5] else []),
}


def _insert_centering(node: Any, shape: list[int], axes: list[int]) -> Any:
    """Insert nodes in front of `node` that subtract the mean from its first argument, and return the last of them."""
    import torch

    aten = torch.ops.aten

    def call(function: Any, *arguments: Any) -> Any:
        with node.graph.inserting_before(node):
            call_node = node.graph.call_function(function, arguments)
        values = [value.meta["val"] if isinstance(value, torch.fx.Node) else value for value in arguments]
        call_node.meta["val"] = function(*values)  # passes read shapes from these fake tensors
        return call_node

    x = node.args[0]
    input_shape = list(x.meta["val"].shape)
    groups = x if shape == input_shape else call(aten.reshape.default, x, shape)
    centered = call(aten.sub.Tensor, groups, call(aten.mean.dim, groups, axes, True))
    return centered if shape == input_shape else call(aten.reshape.default, centered, input_shape)


def _decompose_batch_norms(program: Any) -> Any:
    """Return the program with each batch norm as a multiplication and an addition per channel."""
    import torch

    def arithmetic(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, _momentum: float, epsilon: float) -> Any:
        factor = torch.rsqrt(variance + epsilon)
        factor = factor if weight is None else factor * weight
        shift = -mean * factor if bias is None else bias - mean * factor
        shape = [1, -1, *[1] * (x.dim() - 2)]  # (C,) -> (1, C, 1, ...)
        # The second and third output are saved for the backward pass; in inference they are empty.
        return x * factor.reshape(shape) + shift.reshape(shape), x.new_empty((0,)), x.new_empty((0,))

    norm = torch.ops.aten._native_batch_norm_legit_no_training.default
    return program.run_decompositions({norm: arithmetic})


def _lower(program: Any, precision: str) -> tuple[bytes, dict[str, Any], tuple[str, ...]]:
    """Return the .pte file, the numbers of operators of each kind that XNNPACK takes and does not take, and notes."""
    from executorch.devtools.backend_debug import get_delegation_info

    with faster_lowering():
        edge, notes = _delegated(program, precision)
        executable = edge.to_executorch()
    by_operator = get_delegation_info(edge.exported_program().graph_module).delegation_by_operator
    # `getitem` selects an output of a node with several; it computes nothing.
    counts = {name: count for name, count in sorted(by_operator.items()) if name != "getitem"}
    delegation = {
        "delegated": {name: count.delegated for name, count in counts.items() if count.delegated},
        "not_delegated": {name: count.non_delegated for name, count in counts.items() if count.non_delegated},
    }
    return bytes(executable.buffer), delegation, notes


def _delegated(program: Any, precision: str) -> tuple[Any, tuple[str, ...]]:
    """Return the program in ExecuTorch's edge dialect, with the parts that XNNPACK takes delegated, and notes.

    The partitioner of ExecuTorch 1.5 puts operators into one part that depend on one another through the rest of the
    graph ("Invalid partition, found dependency cycles"), and its passes take the features of a PReLU for an image
    ("Attempting to convert non-NHWC compatible node to NHWC"). Parts of one operator avoid the first, no parts both.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    attempts: tuple[tuple[list[Any], tuple[str, ...]], ...] = (
        ([XnnpackPartitioner()], ()),
        ([XnnpackPartitioner(per_op_mode=True)], (_ONE_BY_ONE,)),
        # There is no portable kernel for weights in int8.
        *([([], (_NOT_DELEGATED,))] if precision == "float32" else []),
    )
    first: Exception | None = None
    for partitioners, notes in attempts:
        try:
            return _to_edge(program, partitioners), notes
        except Exception as error:  # noqa: BLE001 - partitioner and passes raise any class
            _log.info("lowering failed: %s", error.__cause__ or error)
            first = first or error
    assert first is not None
    raise first


def _to_edge(program: Any, partitioners: list[Any]) -> Any:
    from executorch.exir import to_edge_transform_and_lower

    try:
        return to_edge_transform_and_lower(program, partitioner=partitioners)
    except Exception as error:
        # ExecuTorch 1.5: two batch norms in sequence end in `KeyError: 'val'` in this pass.
        if "DecomposeBatchNorm" not in str(error):
            raise
        return to_edge_transform_and_lower(_decompose_batch_norms(program), partitioner=partitioners)


def _describe(path: Path) -> ModelDescription:
    """Return inputs, outputs, operators and delegates of the method `forward`.

    Weights and multiply-accumulates are not counted, since they are inside the delegate's own format.
    """
    from executorch.runtime import Runtime

    content = read_bytes(path, "model file")
    # A flatbuffer has its identifier at byte 4; ExecuTorch's is `ET` and a version, such as `ET12`.
    if content[4:6] != b"ET":
        raise malformed_file_error(path, "ExecuTorch", "the identifier ET is missing")
    try:
        program = Runtime.get().load_program(content)
        metadata = program.metadata("forward")
    except (RuntimeError, ValueError) as error:
        raise malformed_file_error(path, "ExecuTorch", next(iter(str(error).splitlines()), "")[:200]) from error
    inputs = [_spec(f"input_{i}", metadata.input_tensor_meta(i)) for i in range(metadata.num_inputs())]
    outputs = [_spec(f"output_{i}", metadata.output_tensor_meta(i)) for i in range(metadata.num_outputs())]
    ops = _count_operators(content)
    return ModelDescription(
        format="executorch",
        signature=Signature(tuple(inputs), tuple(outputs)),
        ops=tuple(OpCount(name, count) for name, count in ops.most_common()),
        tensors=len(inputs) + len(outputs),
        parameters=None,
        weight_bytes=len(content),
        macs=None,
        activation_bytes=None,
        quantized_tensors=0,
        metadata={"methods": ", ".join(sorted(program.method_names)), "weights": "inside the delegate, not counted"},
    )


def _spec(name: str, meta: Any) -> TensorSpec:
    return TensorSpec(name, tuple(meta.sizes()), SCALAR_TYPES.get(meta.dtype(), str(meta.dtype())))


def _count_operators(content: bytes) -> Counter[str]:
    """Count the operators of the portable kernels and the delegates in the program's execution plan."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    counts: Counter[str] = Counter()
    plan = deserialize_pte_binary(content).program.execution_plan[0]
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if hasattr(call, "op_index"):
                counts[plan.operators[call.op_index].name] += 1
            elif hasattr(call, "delegate_index"):
                counts[f"delegate {plan.delegates[call.delegate_index].id}"] += 1
    return counts


TARGET = ExecuTorchTarget()

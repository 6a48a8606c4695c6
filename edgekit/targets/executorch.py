"""ExecuTorch programs: torch.export, the XNNPACK partitioner, PT2E quantization."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.contracts.target import ConversionRequest, ConversionResult, Target, malformed_file_error
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.environment.requirements import EXECUTORCH, TORCH, TORCHAO
from edgekit.core.numerics import batching
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import SCALAR_TYPES, ModelDescription, OpCount, Signature, TensorSpec
from edgekit.targets._torch.executorch_lowering import faster_lowering, patterns_exported_once


class ExecuTorch(Target):
    """float32, and int8 by PT2E with XNNPACK's quantizer, weights per channel; inputs and outputs stay float32."""

    name = "executorch"
    title = "ExecuTorch"
    suffixes = (".pte",)
    runtime = "executorch"
    routes = {"torch": ("float32", "int8")}
    requires = {"torch": (TORCH, EXECUTORCH, TORCHAO)}
    reads_with = (EXECUTORCH,)
    describe_tells_precision = False

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        import torch

        example = tuple(map(torch.from_numpy, source.examples(1)))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch and torchao deprecate one another's names
            program = torch.export.export(source.model, example)
            if job.precision == "int8":
                program = torch.export.export(_quantized(program, source, job), example)
            _unshare(program)
            _centre(program)
            try:
                content, delegation = _lower(program)
            except Exception as error:
                if "DecomposeBatchNorm" not in str(error):  # it trips over a batch norm behind another
                    raise
                content, delegation = _lower(_norms_written_out(program))
        (job.folder / self.file_name).write_bytes(content)
        options = {"backend": "XNNPACK", **delegation}
        if job.precision == "int8":
            options |= {"quantizer": "PT2E XNNPACKQuantizer", "weights": "per channel"}
        moving = ("permute", "transpose", "t_copy")
        counts = [*delegation["delegated"].items(), *delegation["not_delegated"].items()]
        moved = sum(count for name, count in counts if any(word in name for word in moving))
        return ConversionResult(self.file_name, source.signature, options, transposes=moved)

    def describe(self, path: Path) -> ModelDescription:
        return _describe(path)


def _quantized(program: Any, source: LoadedSource, job: ConversionRequest) -> Any:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    assert job.calibration is not None  # the base has made sure
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with patterns_exported_once():
        prepared = prepare_pt2e(program.module(), quantizer)
    for arrays in batching.iter_batches(source.signature, job.calibration):
        prepared(*map(torch.from_numpy, arrays))
    with patterns_exported_once():
        return convert_pt2e(prepared)


def _unshare(program: Any) -> None:
    """Gives every weight that is a view of a larger tensor memory of its own.

    XNNPACK's serializer writes `untyped_storage()` from its first byte: of a view, the wrong values.
    """
    for tensors in (program.state_dict, program.constants):
        for name, tensor in tensors.items():
            if tensor.untyped_storage().nbytes() != tensor.nbytes:
                tensors[name] = tensor.clone()


def _centre(program: Any) -> None:
    """Subtracts the mean before every normalization that subtracts it itself: its result stays what it is.

    The portable kernels take the variance as E[x^2] - E[x]^2, which loses all digits that the mean takes: features of
    0.67 +- 0.01 come out of a layer norm 4e-3 off.
    """
    for node in list(program.graph_module.graph.nodes):
        if node.op == "call_function" and str(node.target) in _NORMS:
            x = node.args[0]
            # Where the mean is taken: after a reshape to this shape, over these axes.
            shape, axes = _NORMS[str(node.target)](node, list(x.meta["val"].shape))
            if axes:
                node.replace_input_with(x, _centred(node, shape, axes))
    program.graph_module.recompile()


_NORMS: dict[str, Callable[[Any, list[int]], tuple[list[int], list[int]]]] = {
    "aten.layer_norm.default": lambda node, shape: (shape, list(range(-len(node.args[1]), 0))),
    "aten.group_norm.default": lambda node, shape: ([shape[0], node.args[1], -1], [2]),
    # with the statistics of its training it subtracts none of its input's own
    "aten.instance_norm.default": lambda node, shape: (shape, list(range(2, len(shape))) if node.args[5] else []),
}


def _centred(node: Any, shape: list[int], axes: list[int]) -> Any:
    """A node before `node` with its first argument less the mean."""
    import torch

    aten = torch.ops.aten

    def call(function: Any, *arguments: Any) -> Any:
        with node.graph.inserting_before(node):
            made = node.graph.call_function(function, arguments)
        values = [item.meta["val"] if isinstance(item, torch.fx.Node) else item for item in arguments]
        made.meta["val"] = function(*values)
        return made

    x = node.args[0]
    whole = list(x.meta["val"].shape)
    parts = x if shape == whole else call(aten.reshape.default, x, shape)
    centred = call(aten.sub.Tensor, parts, call(aten.mean.dim, parts, axes, True))
    return centred if shape == whole else call(aten.reshape.default, centred, whole)


def _norms_written_out(program: Any) -> Any:
    """The program with batch norms as arithmetic: what they are on their own, with nothing to be folded into."""
    import torch

    def arithmetic(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, _momentum: float, epsilon: float) -> Any:
        factor = torch.rsqrt(variance + epsilon)
        factor = factor if weight is None else factor * weight
        shift = -mean * factor if bias is None else bias - mean * factor
        shape = [1, -1, *[1] * (x.dim() - 2)]
        return x * factor.reshape(shape) + shift.reshape(shape), x.new_empty((0,)), x.new_empty((0,))

    norm = torch.ops.aten._native_batch_norm_legit_no_training.default
    return program.run_decompositions({norm: arithmetic})


def _lower(program: Any) -> tuple[bytes, dict[str, Any]]:
    """The .pte file, and which operators XNNPACK took and which run in the portable kernels."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir import to_edge_transform_and_lower

    with faster_lowering():
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        executable = edge.to_executorch()
    found = get_delegation_info(edge.exported_program().graph_module).delegation_by_operator
    counts = {name: item for name, item in sorted(found.items()) if name != "getitem"}
    delegation = {
        "delegated": {name: item.delegated for name, item in counts.items() if item.delegated},
        "not_delegated": {name: item.non_delegated for name, item in counts.items() if item.non_delegated},
    }
    return bytes(executable.buffer), delegation


def _describe(path: Path) -> ModelDescription:
    """Inputs and outputs, operators and delegates of the method `forward`, as the runtime tells them.

    Weights and multiply-accumulates are inside the delegate's own format, and are not counted.
    """
    from executorch.runtime import Runtime

    content = read_bytes(path, "model file")
    if content[4:6] != b"ET":
        raise malformed_file_error(path, "ExecuTorch", "the identifier ET is missing")
    try:
        program = Runtime.get().load_program(content)
        metadata = program.metadata("forward")
    except (RuntimeError, ValueError) as error:
        raise malformed_file_error(path, "ExecuTorch", next(iter(str(error).splitlines()), "")[:200]) from error
    inputs = [_spec(f"input_{i}", metadata.input_tensor_meta(i)) for i in range(metadata.num_inputs())]
    outputs = [_spec(f"output_{i}", metadata.output_tensor_meta(i)) for i in range(metadata.num_outputs())]
    ops = _ops(content)
    return ModelDescription(
        format="executorch",
        signature=Signature(tuple(inputs), tuple(outputs)),
        ops=tuple(OpCount(name, count) for name, count in ops.most_common()),
        tensors=len(inputs) + len(outputs),
        parameters=0,
        weight_bytes=len(content),
        macs=None,
        activation_bytes=None,
        quantized_tensors=0,
        metadata={"methods": ", ".join(sorted(program.method_names)), "weights": "inside the delegate, not counted"},
    )


def _spec(name: str, meta: Any) -> TensorSpec:
    return TensorSpec(name, tuple(meta.sizes()), SCALAR_TYPES.get(meta.dtype(), str(meta.dtype())))


def _ops(content: bytes) -> Counter[str]:
    """Operators of the portable kernels and delegates, as the program's execution plan lists them."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    found: Counter[str] = Counter()
    plan = deserialize_pte_binary(content).program.execution_plan[0]
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if hasattr(call, "op_index"):
                found[plan.operators[call.op_index].name] += 1
            elif hasattr(call, "delegate_index"):
                found[f"delegate {plan.delegates[call.delegate_index].id}"] += 1
    return found


TARGET = ExecuTorch()

"""Forms of quantized ExecuTorch programs: granularity, ranges, and integer inputs and outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekit.core.errors import InputError
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.specs import Quantization, Signature, TensorSpec


def quantizer(form: QuantizationForm, *, dynamic: bool = False) -> Any:
    """Return XNNPACK's quantizer for a form.

    Args:
        form: The form, of which the granularity of weights and the kind of activations are used.
        dynamic: Whether activations are quantized by the range of the current input.

    Returns:
        The `XNNPACKQuantizer`.
    """
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    # Its name is about weights: activations have a zero point.
    config = get_symmetric_quantization_config(is_per_channel=not form.per_tensor, is_dynamic=dynamic)
    if form.symmetric_activations:
        symmetric = {
            side: replace(getattr(config, side), qscheme=torch.per_tensor_symmetric)
            for side in ("input_activation", "output_activation")
        }
        config = replace(config, **symmetric)
    return XNNPACKQuantizer().set_global(config)


def set_ranges(prepared: Any, signature: Signature, form: QuantizationForm) -> None:
    """Replace the observers of inputs and outputs by those of the ranges that the user has set.

    Args:
        prepared: The module of `prepare_pt2e`, after calibration.
        signature: Inputs and outputs of the source.
        form: The form with the ranges, by the names of the signature.

    Raises:
        InputError: A name is no input or output, or its tensor is not quantized.
    """
    import torch
    from torchao.quantization.pt2e import MinMaxObserver

    ends = _observed_ends(prepared, signature)
    for name, (low, high) in form.ranges.items():
        if name not in ends:
            raise InputError(
                f"executorch sets the ranges of quantized inputs and outputs only, and {name} is none; "
                f"they are: {', '.join(sorted(ends)) or 'none'}",
                parameters=("ranges",),
            )
        observed = getattr(prepared, ends[name])
        scheme = torch.per_tensor_symmetric if form.symmetric_activations else torch.per_tensor_affine
        fixed = MinMaxObserver(dtype=torch.int8, qscheme=scheme, quant_min=-128, quant_max=127, eps=2**-12)
        fixed(torch.tensor([low, high]))
        # Tensors that have to have the same parameters share an observer.
        shared = [key for key, module in prepared.named_children() if module is observed]
        for key in shared:
            setattr(prepared, key, fixed)


def _observed_ends(prepared: Any, signature: Signature) -> dict[str, str]:
    """Return the name of the observer of each input and output that has one."""
    nodes = list(prepared.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    ends = {}
    for spec, node in zip(signature.inputs, placeholders, strict=False):
        observer = next((user for user in node.users if _is_observer(user)), None)
        if observer is not None:
            ends[spec.name] = str(observer.target)
    for spec, node in zip(signature.outputs, _outputs(prepared.graph), strict=False):
        if _is_observer(node):
            ends[spec.name] = str(node.target)
    return ends


def _is_observer(node: Any) -> bool:
    return bool(node.op == "call_module" and "activation_post_process" in str(node.target))


def _outputs(graph: Any) -> list[Any]:
    values = graph.output_node().args[0]
    return list(values) if isinstance(values, list | tuple) else [values]


def quantize_ends(program: Any, signature: Signature, form: QuantizationForm) -> Signature:
    """Let a quantized program take and return int8, without conversions from and to float.

    Args:
        program: The exported program of a quantized module, which is edited.
        signature: Inputs and outputs of the source.
        form: The form with the types.

    Returns:
        The signature of the program, with scales and zero points.

    Raises:
        InputError: The program does not quantize an input or output.
    """
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    for index, spec in enumerate(inputs):
        if form.inference_input_type == "int8" and spec.dtype == "float32":
            inputs[index] = _quantized(spec, _quantize_input(program, index, spec))
    for index, spec in enumerate(outputs):
        if form.inference_output_type == "int8" and spec.dtype == "float32":
            outputs[index] = _quantized(spec, _quantize_output(program, index, spec))
    program.graph_module.recompile()
    return Signature(tuple(inputs), tuple(outputs))


def _quantized(spec: TensorSpec, arguments: Any) -> TensorSpec:
    scale, zero_point = arguments[:2]
    return replace(spec, dtype="int8", quantization=Quantization((float(scale),), (int(zero_point),)))


def _quantize_input(program: Any, index: int, spec: TensorSpec) -> Any:
    from executorch.exir.passes.quantize_io_pass import quantize_input

    try:
        return quantize_input(program, index)
    except ValueError as error:  # it is not used by exactly one node that quantizes
        raise InputError(
            f"{spec.name} cannot be int8: XNNPACK's quantizer leaves an operator that reads it in float",
            parameters=("inference_input_type",),
        ) from error


def _quantize_output(program: Any, index: int, spec: TensorSpec) -> Any:
    from executorch.exir.passes.quantize_io_pass import quantize_output
    from torch.export.graph_signature import TensorArgument

    try:
        arguments = quantize_output(program, index)
    except ValueError as error:
        raise InputError(
            f"{spec.name} cannot be int8: XNNPACK's quantizer leaves the operator that computes it in float",
            parameters=("inference_output_type",),
        ) from error
    # ExecuTorch 1.5 leaves the old name in the signature, which lowering verifies.
    node = _outputs(program.graph)[index]
    program.graph_signature.output_specs[index].arg = TensorArgument(name=node.name)
    return arguments

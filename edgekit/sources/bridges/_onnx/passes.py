"""Graph passes before execution: norms are folded into convolutions, unused steps dropped, last uses noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from edgekit.sources.bridges._onnx.registry import GraphStep
from edgekit.sources.bridges._onnx.values import Constant, Host

Constants = dict[str, Constant]


def fold_norms(steps: list[GraphStep], constants: Constants, outputs: Iterable[str]) -> list[GraphStep]:
    """Fold batch norms, and factors and shifts per channel, into the convolutions before them.

    Quantizers match a convolution directly followed by its activation, and one operator less is faster everywhere.

    Args:
        steps: The steps in order.
        constants: The constants by name; the folded weights are added.
        outputs: The names of the graph's outputs.

    Returns:
        The steps; a folded one is replaced by its convolution. The original convolution is left for `needed` to drop.
    """
    # A convolution with several readers must keep its own result; being a graph output counts as a reader.
    readers = Counter(name for step in steps for name in step.inputs)
    readers.update(outputs)
    makers = {step.outputs[0]: index for index, step in enumerate(steps)}
    folded = list(steps)
    for index, step in enumerate(steps):
        name = next((name for name in step.inputs if name not in constants), "")
        convolution = folded[makers[name]] if name in makers else None
        if convolution is None or readers[name] > 1 or not _has_weights(convolution, constants):
            continue
        affine = _affine(step, constants, constants[convolution.inputs[1]].array)
        if affine is not None:
            folded[index] = _with_affine(convolution, step, constants, *affine)
    return folded


def _has_weights(step: GraphStep, constants: Constants) -> bool:
    """Return whether the step is a convolution with constant weights and bias."""
    constant = all(name in constants or not name for name in step.inputs[1:])
    return constant and step.op_type == "Conv" and not step.domain


def _affine(step: GraphStep, constants: Constants, weight: Host) -> tuple[Host, Host] | None:
    """Return the factor and shift per channel, shape (C,), that the step applies to a convolution's output.

    None if the step does anything else.
    """
    channels, rank = weight.shape[0], weight.ndim
    parameters = [constants[name].array for name in step.inputs if name in constants]
    if step.domain or len(parameters) != len(step.inputs) - 1 or len(step.outputs) != 1:
        return None
    if step.op_type == "BatchNormalization" and step.inputs[0] not in constants:
        # y = (x - mean) / sqrt(variance + epsilon) * scale + shift, in float64: the fold adds one rounding only.
        scale, shift, mean, variance = (array.astype(np.float64) for array in parameters)
        factor = scale / np.sqrt(variance + step.attributes.get("epsilon", 1e-5))
        return factor, shift - mean * factor
    if step.op_type not in ("Mul", "Add", "Sub") or (step.op_type == "Sub" and step.inputs[0] in constants):
        return None
    values = _per_channel(parameters[0], channels, rank)
    if values is None:
        return None
    if step.op_type == "Mul":
        return values, np.zeros(channels)
    return np.ones(channels), values if step.op_type == "Add" else -values


def _per_channel(array: Host, channels: int, rank: int) -> Host | None:
    """Return the constant as one value per channel, shape (C,).

    None if it varies along other axes than the channels, or would add an axis to the output.
    """
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape  # as multidirectional broadcasting aligns it: from the right
    if shape[1] not in (1, channels) or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def _with_affine(convolution: GraphStep, step: GraphStep, constants: Constants, factor: Host, shift: Host) -> GraphStep:
    """Return the convolution with weights factor * w and bias factor * b + shift, in the step's place."""
    weight = constants[convolution.inputs[1]].array
    has_bias = len(convolution.inputs) > 2 and convolution.inputs[2]
    bias = constants[convolution.inputs[2]].array if has_bias else np.zeros(len(weight))
    names = (f"{step.outputs[0]}.weight", f"{step.outputs[0]}.bias")
    shaped = factor.reshape(-1, *[1] * (weight.ndim - 1))
    constants[names[0]] = Constant((weight * shaped).astype(weight.dtype))
    constants[names[1]] = Constant((bias * factor + shift).astype(weight.dtype))
    return replace(convolution, inputs=(convolution.inputs[0], *names), outputs=step.outputs)


def needed(steps: list[GraphStep], outputs: Iterable[str]) -> list[GraphStep]:
    """Return the steps that the outputs depend on.

    Args:
        steps: The steps in topological order.
        outputs: The names of the graph's outputs.

    Returns:
        The needed steps, in the same order.
    """
    names, kept = set(outputs), []
    for step in reversed(steps):
        if names & set(step.outputs):
            names.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def with_last_use(steps: list[GraphStep], outputs: Iterable[str]) -> list[GraphStep]:
    """Note in each step the values that no later step reads, so that they can be released.

    The activations of a large network do not fit into memory all at once.

    Args:
        steps: The steps in order.
        outputs: The names of the graph's outputs, which are never released.

    Returns:
        The steps with `last_use`.
    """
    used_later, annotated = set(outputs), []
    for step in reversed(steps):
        names = {name for name in (*step.inputs, *step.outputs) if name} - used_later
        annotated.append(replace(step, last_use=tuple(sorted(names))))
        used_later |= names
    return annotated[::-1]

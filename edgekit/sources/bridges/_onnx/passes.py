"""What is done to a graph before it runs: a norm behind a convolution goes into its weights, dead ends go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from edgekit.sources.bridges._onnx.registry import Step
from edgekit.sources.bridges._onnx.values import Constant, Host

Constants = dict[str, Constant]


def fold_norms(steps: list[Step], constants: Constants, outputs: Iterable[str]) -> list[Step]:
    """Batch norms, and factors and shifts a channel, behind a convolution that nobody else reads go into its weights.

    Quantizers look for a convolution and its activation side by side, and an operator less is faster everywhere.
    The new weights are added to the constants.
    """
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


def _has_weights(step: Step, constants: Constants) -> bool:
    known = all(name in constants or not name for name in step.inputs[1:])
    return known and step.op_type == "Conv" and not step.domain


def _affine(step: Step, constants: Constants, weight: Host) -> tuple[Host, Host] | None:
    """Factor and shift a channel, shape (C,), if that is all that the step does to a convolution's output."""
    channels, rank = weight.shape[0], weight.ndim
    known = [constants[name].array for name in step.inputs if name in constants]
    if step.domain or len(known) != len(step.inputs) - 1 or len(step.outputs) != 1:
        return None
    if step.op_type == "BatchNormalization" and step.inputs[0] not in constants:
        scale, shift, mean, variance = (array.astype(np.float64) for array in known)
        factor = scale / np.sqrt(variance + step.attributes.get("epsilon", 1e-5))
        return factor, shift - mean * factor
    if step.op_type not in ("Mul", "Add", "Sub") or (step.op_type == "Sub" and step.inputs[0] in constants):
        return None
    values = _a_channel(known[0], channels, rank)
    if values is None:
        return None
    if step.op_type == "Mul":
        return values, np.zeros(channels)
    return np.ones(channels), values if step.op_type == "Add" else -values


def _a_channel(array: Host, channels: int, rank: int) -> Host | None:
    """The constant as one value a channel, shape (C,); None where it spreads along other axes, or widens the output."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[1] not in (1, channels) or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def _with_affine(convolution: Step, step: Step, constants: Constants, factor: Host, shift: Host) -> Step:
    """The convolution with factor * w and factor * b + shift for its weights, in the step's place."""
    weight = constants[convolution.inputs[1]].array
    has_bias = len(convolution.inputs) > 2 and convolution.inputs[2]
    bias = constants[convolution.inputs[2]].array if has_bias else np.zeros(len(weight))
    names = (f"{step.outputs[0]}.weight", f"{step.outputs[0]}.bias")
    shaped = factor.reshape(-1, *[1] * (weight.ndim - 1))
    constants[names[0]] = Constant((weight * shaped).astype(weight.dtype))
    constants[names[1]] = Constant((bias * factor + shift).astype(weight.dtype))
    return replace(convolution, inputs=(convolution.inputs[0], *names), outputs=step.outputs)


def needed(steps: list[Step], outputs: Iterable[str]) -> list[Step]:
    """The steps that some output depends on."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if wanted & set(step.outputs):
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def with_last_use(steps: list[Step], outputs: Iterable[str]) -> list[Step]:
    """Notes after which step a value may be let go: a large network's activations do not fit into memory together."""
    seen, noted = set(outputs), []
    for step in reversed(steps):
        names = {name for name in (*step.inputs, *step.outputs) if name} - seen
        noted.append(replace(step, last_use=tuple(sorted(names))))
        seen |= names
    return noted[::-1]

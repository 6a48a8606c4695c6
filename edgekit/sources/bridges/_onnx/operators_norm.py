"""Operators for normalization."""

from __future__ import annotations

from typing import Any

from edgekit.sources.bridges._onnx.registry import Call, GraphStep, operator, refuses


@operator("BatchNormalization")
def _batch_norm(call: Call) -> Any:
    import torch.nn.functional as F

    x, scale, shift, mean, variance = call.tensors()
    return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=call.attribute("epsilon", 1e-5))


@refuses("BatchNormalization")
def _refuse_training(step: GraphStep) -> str | None:
    return "training_mode=1" if step.attributes.get("training_mode", 0) else None


@operator("InstanceNormalization")
def _instance_norm(call: Call) -> Any:
    import torch.nn.functional as F

    x, scale, shift = call.tensors()
    return F.instance_norm(x, weight=scale, bias=shift, eps=call.attribute("epsilon", 1e-5))


@operator("GroupNormalization")
def _group_norm(call: Call) -> Any:
    import torch.nn.functional as F

    x, scale, shift = call.tensors()
    groups = call.attribute("num_groups")
    if call.version < 21:  # opset 18 has one scale and bias per group, 21 one per channel
        scale, shift = (item.repeat_interleave(x.shape[1] // groups) for item in (scale, shift))
    return F.group_norm(x, groups, scale, shift, call.attribute("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_norm(call: Call) -> Any:
    import torch
    import torch.nn.functional as F

    x, scale, shift = call.tensor(0), call.tensor(1), call.maybe(2)
    axis, epsilon = call.attribute("axis", -1) % x.dim(), call.attribute("epsilon", 1e-5)
    shape = list(x.shape[axis:])
    # torch's layer_norm wants the normalized shape exactly; ONNX's scale and bias only have to broadcast.
    fits = [item is None or list(item.shape) == shape for item in (scale, shift)]
    if all(fits):
        y = F.layer_norm(x, shape, scale, shift, epsilon)
    else:
        y = F.layer_norm(x, shape, eps=epsilon) * scale
        y = y if shift is None else y + shift
    if not call.wants(1) and not call.wants(2):
        return y
    # The optional outputs, in float32 (stash_type 1, the default).
    axes = list(range(axis, x.dim()))
    mean = x.float().mean(dim=axes, keepdim=True)
    variance = ((x.float() - mean) ** 2).mean(dim=axes, keepdim=True)
    return y, mean, torch.rsqrt(variance + epsilon)


@operator("RMSNormalization")
def _rms_norm(call: Call) -> Any:
    import torch

    x, scale = call.tensors()
    axes = list(range(call.attribute("axis", -1) % x.dim(), x.dim()))
    # RMSNormalization computes in float32 (stash_type 1) and multiplies by the scale in the input's type.
    wide = x.float() if x.dtype.itemsize < 4 else x
    root = torch.rsqrt((wide * wide).mean(dim=axes, keepdim=True) + call.attribute("epsilon", 1e-5))
    return (wide * root).to(x.dtype) * scale


@operator("LRN")
def _local_response_norm(call: Call) -> Any:
    """Compute x / (bias + alpha / size * sum of squares over `size` neighbouring channels) ** beta."""
    import torch.nn.functional as F

    x, size = call.tensor(0), call.attribute("size")
    before = (size - 1) // 2  # LRN: floor((size - 1) / 2) channels before, ceil((size - 1) / 2) after
    squares = F.pad((x * x).flatten(2).movedim(1, -1), [before, size - 1 - before])  # (N, spatial, C + size - 1)
    sums = F.avg_pool1d(squares, size, 1).movedim(-1, 1).reshape(x.shape)
    return x / (call.attribute("bias", 1.0) + call.attribute("alpha", 1e-4) * sums) ** call.attribute("beta", 0.75)


@operator("MeanVarianceNormalization")
def _mean_variance_norm(call: Call) -> Any:
    # Formula and the constant 1e-9 as in the function body of the standard.
    x = call.tensor(0)
    axes = call.attribute("axes", [0, 2, 3])
    mean = x.mean(dim=axes, keepdim=True)
    deviation = ((x * x).mean(dim=axes, keepdim=True) - mean * mean).sqrt()
    return (x - mean) / (deviation + 1e-9)

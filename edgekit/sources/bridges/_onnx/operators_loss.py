"""Operators for losses, which occur in exported training and evaluation graphs."""

from __future__ import annotations

from typing import Any

from edgekit.sources.bridges._onnx.registry import Call, operator


@operator("NegativeLogLikelihoodLoss")
def _nll_loss(call: Call) -> Any:
    return _nll(call, call.tensor(0))


def _nll(call: Call, x: Any) -> Any:
    import torch.nn.functional as F

    # -100 matches no class: torch's default, where ONNX has none.
    target, ignored = call.tensor(1).long(), call.attribute("ignore_index", -100)
    flat = x.reshape(x.shape[0], x.shape[1], -1)  # (N, C, ...) -> (N, C, rest)
    reduction = call.attribute("reduction", "mean")
    loss = F.nll_loss(flat, target.reshape(x.shape[0], -1), call.maybe(2), ignore_index=ignored, reduction=reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss


@operator("SoftmaxCrossEntropyLoss")
def _cross_entropy(call: Call) -> Any:
    import torch.nn.functional as F

    logs = F.log_softmax(call.tensor(0), dim=1)
    return _nll(call, logs), logs

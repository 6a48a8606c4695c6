"""The statistics in front of the batch norms of a PyTorch module, compared with those of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.norm_matching import LEAST_VARIANCE

# The order of the arguments: of the function that modules call, and of the operators that exported programs and ONNX
# graphs call.
_FUNCTION = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_OPERATOR = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
_INFERENCE_OPERATOR = tuple(name for name in _OPERATOR if name != "training")
_OPERATORS = {
    "batch_norm": _OPERATOR,
    "native_batch_norm": _OPERATOR,
    "_native_batch_norm_legit": _OPERATOR,
    "_native_batch_norm_legit_no_training": _INFERENCE_OPERATOR,
}
# PyTorch's default, for calls that leave it out.
_EPSILON = 1e-5


def norm_gradient(run: Callable[..., object], calls: Sequence[Sequence[Array]]) -> tuple[float, int, list[list[Array]]]:
    """Run a module and compare what enters its batch norms with their running statistics.

    Args:
        run: Calls the module with tensors.
        calls: The inputs of each call; the statistics are those of all calls together.

    Returns:
        The loss that `NormGradient` defines, the number of batch norms with running statistics, and its gradient by
        each input of each call.
    """
    import torch

    tensors = [[torch.from_numpy(np.array(array)).requires_grad_(True) for array in call] for call in calls]
    flat = [tensor for call in tensors for tensor in call]
    mode, norms = _recorder()
    with torch.enable_grad(), mode:
        for call in tensors:
            run(*call)
    if not norms:
        return 0.0, 0, [[np.zeros_like(array) for array in call] for call in calls]
    with torch.enable_grad():
        loss = torch.stack([_loss(norm) for norm in norms.values()]).mean()
    slopes = torch.autograd.grad(loss, flat, allow_unused=True) if loss.requires_grad else [None] * len(flat)
    gradients = iter(
        torch.zeros_like(tensor) if slope is None else slope for tensor, slope in zip(flat, slopes, strict=True)
    )
    return float(loss.detach()), len(norms), [[next(gradients).numpy() for _ in call] for call in tensors]


def _recorder() -> tuple[Any, dict[int, dict[str, Any]]]:
    """Return a mode that records sums over the inputs of batch norms, and what it records, by running mean."""
    import torch
    from torch.overrides import TorchFunctionMode

    norms: dict[int, dict[str, Any]] = {}

    class NormRecorder(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            names = _FUNCTION if func is torch.nn.functional.batch_norm else _OPERATORS.get(_name(func))
            if names is not None:
                _record(norms, {**dict(zip(names, args, strict=False)), **given})
            return func(*args, **given)

    return NormRecorder(), norms


def _name(function: Any) -> str:
    return str(getattr(getattr(function, "overloadpacket", function), "__name__", ""))


def _record(norms: dict[int, dict[str, Any]], call: dict[str, Any]) -> None:
    """Add the input of a batch norm to the sums over its channels; one that computes its own statistics has none."""
    mean, x = call.get("running_mean"), call["input"]
    if mean is None or call.get("training"):
        return
    norm = norms.setdefault(
        mean.data_ptr(),
        {
            "variance": call["running_var"].detach(),
            "eps": call.get("eps", _EPSILON),
            "n": 0,
            "sum": 0.0,
            "squares": 0.0,
        },
    )
    # Deviations from the running mean: differences of large sums would cost all digits.
    deviation = x.float().transpose(0, 1).flatten(1) - mean.detach().float()[:, None]  # (N, C, ...) -> (C, N * ...)
    norm["n"] += deviation.shape[1]
    norm["sum"] = norm["sum"] + deviation.sum(1)
    norm["squares"] = norm["squares"] + (deviation**2).sum(1)


def _loss(norm: dict[str, Any]) -> Any:
    gap = norm["sum"] / norm["n"]
    variance = (norm["squares"] / norm["n"] - gap**2 + norm["eps"]).clamp(min=LEAST_VARIANCE)
    running = (norm["variance"].float() + norm["eps"]).clamp(min=LEAST_VARIANCE)
    return (gap**2 / running + ((variance / running).sqrt() - 1) ** 2).mean()

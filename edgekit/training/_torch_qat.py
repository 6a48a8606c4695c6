"""Quantization-aware fine-tuning of a trained PyTorch module: PT2E with XNNPACK's quantizer."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgekit.contracts.trainer import TrainingJob
from edgekit.core.environment.requirements import EXECUTORCH, TORCHAO, versions
from edgekit.core.errors import StepFailed
from edgekit.core.events import Noted, Progress
from edgekit.training._epoch_tracker import EpochTracker
from edgekit.training._schedule import epoch_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

_RATE_SHARE = 0.1
"""Of the learning rate, where `qat_learning_rate` is not set: the weights are to settle, not to learn anew."""


def tune(
    model: nn.Module,
    lesson: TrainingJob,
    loader: DataLoader[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    course: EpochTracker,
) -> dict[str, Any]:
    """Trains on with weights and activations rounded to int8 in the forward pass, and writes the weights back.

    The module stays an ordinary float one; its weights have learned to bear the rounding (arXiv 1712.05877). Returns
    the record for source.json. Raises StepFailed when torch.export cannot take the module as it trains.
    """
    import torch

    spec, first = lesson.spec, course.standing.epoch
    rate = spec.qat_learning_rate or _RATE_SHARE * spec.learning_rate
    record: dict[str, Any] = {"epochs": spec.qat_epochs, "learning_rate": rate, **_TOOL, **_versions()}
    if course.late:
        lesson.emit(Noted(lesson.step, "the time limit left nothing for quantization-aware training", warning=True))
        return {**record, "epochs": 0}
    size = min(spec.batch_size, len(lesson.inputs))
    prepared = _prepared(model, torch.from_numpy(lesson.inputs[:size]))
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=rate, weight_decay=0.0)
    losses: list[float] = []
    for number in range(spec.qat_epochs):
        torch.manual_seed(epoch_seed(spec.seed, first + number))
        loader.sampler.epoch = first + number
        losses.append(_epoch(prepared, optimizer, lesson, loader, loss, size))
        if _is_late(lesson):
            lesson.emit(Noted(lesson.step, "stopped by the time limit in quantization-aware training"))
            break
    trained = prepared.state_dict()
    model.load_state_dict({name: trained[name] for name in model.state_dict()})
    return {**record, "epochs": len(losses), "loss": losses}


_TOOL = {"tool": "torchao PT2E", "quantizer": "XNNPACKQuantizer", "weights": "int8 per channel", "activations": "int8"}


def _versions() -> dict[str, str]:
    return {f"{name}_version": version for name, version in versions((TORCHAO, EXECUTORCH)).items()}


def _is_late(lesson: TrainingJob) -> bool:
    return lesson.deadline_s is not None and time.monotonic() >= lesson.deadline_s


def _prepared(model: nn.Module, example: Tensor) -> nn.Module:
    """The graph of the module in training mode, with fake quantization. It takes batches of the example's size only."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=True))
    # The exported graph shares its parameters with the module it came from: a copy keeps the two apart.
    source = copy.deepcopy(model).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and torchao deprecate one another's names
        try:
            graph = torch.export.export(source, (example,)).module()
            prepared: nn.Module = prepare_qat_pt2e(graph, quantizer)
        except Exception as error:  # torch.export has many ways to refuse
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise StepFailed(
                f"this network cannot be trained quantization-aware: torch.export refuses it ({reason})"
            ) from error
    missing = sorted(set(model.state_dict()) - set(prepared.state_dict()))
    if missing:
        raise StepFailed(f"this network cannot be trained quantization-aware: its graph lost {', '.join(missing)}")
    return prepared


def _epoch(
    prepared: nn.Module,
    optimizer: torch.optim.Optimizer,
    lesson: TrainingJob,
    loader: DataLoader[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    size: int,
) -> float:
    """The mean loss of an epoch of whole batches."""
    total, count = 0.0, 0
    for batch, (inputs, targets) in enumerate(loader):
        if len(inputs) < size:
            continue
        optimizer.zero_grad()
        value = loss(prepared(inputs), targets)
        value.backward()
        optimizer.step()
        total, count = total + value.item(), count + 1
        if _is_late(lesson):
            break
        if (batch + 1) % 20 == 0:
            lesson.emit(Progress(lesson.step, batch + 1, lesson.batches, {"qat_loss": total / count}))
    return total / count

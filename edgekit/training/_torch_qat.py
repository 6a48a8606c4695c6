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
from edgekit.core.events import NoteEvent, ProgressEvent
from edgekit.training._epoch_tracker import REPORT_EVERY_BATCHES, EpochTracker
from edgekit.training._schedule import epoch_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

# Share of the learning rate that fine-tuning uses by default: the trained weights only need to adapt to the rounding.
_DEFAULT_RATE_SHARE = 0.1
# Recorded in source.json, so that a report can say how the weights were fine-tuned.
_TOOL = {"tool": "torchao PT2E", "quantizer": "XNNPACKQuantizer", "activations": "int8"}


def fine_tune(
    model: nn.Module,
    job: TrainingJob,
    loader: DataLoader[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    tracker: EpochTracker,
) -> dict[str, Any]:
    """Fine-tune the module with weights and activations rounded to int8 in the forward pass (arXiv 1712.05877).

    The module remains a float module; only its weights change.

    Args:
        model: The trained module; receives the fine-tuned weights.
        job: The training job.
        loader: Shuffled batches of inputs and targets; its `sampler.epoch` selects the order.
        loss: Mean loss of a batch from the module's output and the targets.
        tracker: The tracker of the float training.

    Returns:
        The entry `qat` for source.json.

    Raises:
        StepFailed: `torch.export` cannot export the module in training mode.
    """
    import torch

    spec, first = job.spec, tracker.progress.epoch
    rate = spec.qat_learning_rate or _DEFAULT_RATE_SHARE * spec.learning_rate
    weights = f"int8 per {'tensor' if spec.qat_per_tensor else 'channel'}"
    record: dict[str, Any] = {"epochs": spec.qat_epochs, "learning_rate": rate, "weights": weights}
    record |= {**_TOOL, **_versions()}
    if tracker.timed_out:
        job.emit(NoteEvent(job.step, "the time limit left no time for quantization-aware training", warning=True))
        return {**record, "epochs": 0}
    size = min(spec.batch_size, len(job.inputs))
    prepared = _insert_fake_quantization(model, torch.from_numpy(job.inputs[:size]), per_tensor=spec.qat_per_tensor)
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=rate, weight_decay=0.0)
    losses: list[float] = []
    for epoch in range(first, first + spec.qat_epochs):
        torch.manual_seed(epoch_seed(spec.seed, epoch))
        loader.sampler.epoch = epoch
        losses.append(_train_epoch(prepared, optimizer, job, loader, loss, size))
        if _time_is_up(job):
            job.emit(NoteEvent(job.step, "stopped by time limit during quantization-aware training"))
            break
    trained = prepared.state_dict()
    model.load_state_dict({name: trained[name] for name in model.state_dict()})
    return {**record, "epochs": len(losses), "loss": losses}


def _versions() -> dict[str, str]:
    return {f"{name}_version": version for name, version in versions((TORCHAO, EXECUTORCH)).items()}


def _time_is_up(job: TrainingJob) -> bool:
    return job.deadline_s is not None and time.monotonic() >= job.deadline_s


def _insert_fake_quantization(model: nn.Module, example: Tensor, *, per_tensor: bool) -> nn.Module:
    """Return the training graph with fake quantization, which accepts only batches of the example's size."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    config = get_symmetric_quantization_config(is_per_channel=not per_tensor, is_qat=True)
    quantizer = XNNPACKQuantizer().set_global(config)
    # The exported graph shares its parameters with the module, so export a copy.
    source = copy.deepcopy(model).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and torchao each use names that the other deprecates
        try:
            graph = torch.export.export(source, (example,)).module()
            prepared: nn.Module = prepare_qat_pt2e(graph, quantizer)
        except Exception as error:  # torch.export raises many unrelated types
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise StepFailed(
                f"this network cannot be trained quantization-aware: torch.export failed ({reason})"
            ) from error
    missing = sorted(set(model.state_dict()) - set(prepared.state_dict()))
    if missing:
        raise StepFailed(f"this network cannot be trained quantization-aware: its graph lost {', '.join(missing)}")
    return prepared


def _train_epoch(
    prepared: nn.Module,
    optimizer: torch.optim.Optimizer,
    job: TrainingJob,
    loader: DataLoader[Any],
    loss: Callable[[Tensor, Tensor], Tensor],
    size: int,
) -> float:
    """Train one epoch and return its mean loss."""
    total, count = 0.0, 0
    for batch, (inputs, targets) in enumerate(loader):
        if len(inputs) < size:  # the exported graph has a fixed batch size
            continue
        optimizer.zero_grad()
        value = loss(prepared(inputs), targets)
        value.backward()
        optimizer.step()
        total, count = total + value.item(), count + 1
        if _time_is_up(job):
            break
        if (batch + 1) % REPORT_EVERY_BATCHES == 0:
            job.emit(ProgressEvent(job.step, batch + 1, job.batches_per_epoch, {"qat_loss": total / count}))
    return total / count

"""Training loop of PyTorch."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgekit.contracts.trainer import Trainer, TrainingJob, TrainingResult
from edgekit.core.environment.requirements import EXECUTORCH, TORCH, TORCHAO
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training import _torch_qat
from edgekit.training._epoch_tracker import EpochTracker
from edgekit.training._schedule import epoch_seed, sample_order
from edgekit.training._tensorboard import log_epochs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

# Bounds memory only: the mean over the samples does not depend on the batch size.
_EVAL_BATCH_SIZE = 256
# Keras clips probabilities at the same value, so that both frameworks report the same validation loss.
_MIN_PROBABILITY = 1e-7


class TorchTrainer(Trainer):
    """Training loop of PyTorch modules.

    In training mode a classifier returns logits, as `cross_entropy` requires; in inference mode it returns
    probabilities. The validation loss is therefore computed from the logarithm of the probabilities.
    """

    name = "torch"
    code = "torch_model.py"
    requires = (TORCH,)
    qat_requires = (TORCH, TORCHAO, EXECUTORCH)

    def fit(self, job: TrainingJob) -> TrainingResult:
        import torch

        torch.manual_seed(job.spec.seed)
        # A resumed training must end in the same weights, so a nondeterministic kernel is an error.
        torch.use_deterministic_algorithms(True)
        model = job.build().train()
        run = _Run(job, model)
        run.train()
        record = run.tracker.record()
        if job.qat:
            record["qat"] = _torch_qat.fine_tune(model, job, run.batches(), run.loss, run.tracker)
            record["seconds"] = round(run.tracker.seconds, 3)
        torch.save(model.state_dict(), job.folder / "weights.pt")
        return TrainingResult("weights.pt", run.tracker.progress.history, record)


class _Run:
    """One training: the model, its optimizer, its progress and the best weights so far."""

    def __init__(self, job: TrainingJob, model: nn.Module) -> None:
        self.job = job
        self.model = model
        self.tracker = EpochTracker(job)
        self.optimizer = _make_optimizer(job, model)
        self.best: dict[str, Tensor] | None = None
        if self.tracker.resume_state is not None:
            self._restore(self.tracker.resume_state)

    def train(self) -> None:
        """Train until the tracker has finished; with early stopping, restore the best weights."""
        loader = self.batches()
        with log_epochs(self.tracker, _Events):
            while not self.tracker.finished:
                self._train_epoch(loader)
        if self.best is not None:
            self.model.load_state_dict(self.best)

    def batches(self) -> DataLoader[Any]:
        """Return a loader of shuffled batches of inputs and targets; its `sampler.epoch` selects the order."""
        import torch
        from torch.utils.data import DataLoader, Sampler, TensorDataset

        seed, size = self.job.spec.seed, self.job.spec.batch_size

        class ShuffledBatches(Sampler[list[int]]):  # type: ignore[misc]
            """Sampler of whole batches of indices, with which the data set reads a batch in one indexing operation."""

            epoch = 0

            def __iter__(self) -> Iterator[list[int]]:
                indices = torch.from_numpy(sample_order(seed, self.epoch, len(data)))
                return iter(indices.split(size))

        inputs = torch.from_numpy(self.job.inputs)
        data = TensorDataset(inputs, self._targets(self.job.labels))
        return DataLoader(data, sampler=ShuffledBatches(), batch_size=None)  # the sampler already yields batches

    def _targets(self, labels: Array) -> Tensor:
        import torch

        targets = torch.from_numpy(labels)
        if self.job.is_classification:
            return targets
        # (N,) -> (N, 1), the shape of the output: mse_loss would broadcast (N,) to (N, N).
        return targets.float().reshape(len(labels), -1) if labels.ndim == 1 else targets.float()

    def _train_epoch(self, loader: DataLoader[Any]) -> None:
        import torch

        epoch = self.tracker.progress.epoch
        torch.manual_seed(epoch_seed(self.job.spec.seed, epoch))
        loader.sampler.epoch = epoch
        means, complete = _RunningMeans(), True
        for batch, (inputs, targets) in enumerate(loader):
            means.add(*self._train_batch(inputs, targets, self.tracker.batch_learning_rate(batch)), len(inputs))
            if self.tracker.end_batch(batch, lambda: means.compute(self._metric)):
                complete = False
                break
        figures = means.compute(self._metric)
        if self.job.validation is not None:
            figures |= {f"val_{name}": value for name, value in self._evaluate(*self.job.validation).items()}
        if self.tracker.end_epoch(figures, complete=complete):
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.tracker.save(self._serialize)

    def _train_batch(self, inputs: Tensor, targets: Tensor, learning_rate: float) -> tuple[float, float]:
        """Take one optimizer step and return the mean loss and the sum of the metric over the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        output = self.model(inputs)
        loss = self.loss(output, targets)
        loss.backward()
        self.optimizer.step()
        return loss.item(), self._metric_sum(output, targets)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch from the output of the module in training mode."""
        import torch.nn.functional as F

        return F.cross_entropy(output, targets) if self.job.is_classification else F.mse_loss(output, targets)

    @property
    def _metric(self) -> str:
        return "accuracy" if self.job.is_classification else "mae"

    def _metric_sum(self, output: Tensor, targets: Tensor) -> float:
        if self.job.is_classification:
            return float((output.argmax(-1) == targets).sum())
        return float((output.detach() - targets).abs().mean()) * len(targets)

    def _evaluate(self, inputs: Array, labels: Array) -> dict[str, float]:
        """Return loss and metric in inference mode."""
        import torch
        import torch.nn.functional as F

        means = _RunningMeans()
        x, y = torch.from_numpy(inputs), self._targets(labels)
        self.model.eval()
        with torch.no_grad():
            for batch, targets in zip(x.split(_EVAL_BATCH_SIZE), y.split(_EVAL_BATCH_SIZE), strict=True):
                output = self.model(batch)
                if self.job.is_classification:
                    loss = F.nll_loss(output.clamp(_MIN_PROBABILITY, 1).log(), targets)
                else:
                    loss = F.mse_loss(output, targets)
                means.add(loss.item(), self._metric_sum(output, targets), len(batch))
        self.model.train()
        return means.compute(self._metric)

    def _serialize(self) -> bytes:
        import torch

        buffer = io.BytesIO()
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "best": self.best}
        torch.save(state, buffer)
        return buffer.getvalue()

    def _restore(self, content: bytes) -> None:
        import torch

        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best = state["best"]
        except Exception as error:  # intact by its hash, so written by a program with another network
            raise InputError(
                f"the checkpoint to resume {self.job.step.removeprefix('train ')} from does not match the network;"
                " to start over, train without --resume"
            ) from error


class _RunningMeans:
    """Running means of loss and metric over samples."""

    def __init__(self) -> None:
        self.loss = self.metric = 0.0
        self.count = 0

    def add(self, loss: float, metric_sum: float, count: int) -> None:
        """Add a batch of `count` samples by its mean loss and the sum of its metric."""
        self.loss += loss * count
        self.metric += metric_sum
        self.count += count

    def compute(self, metric: str) -> dict[str, float]:
        """Return the mean loss and the mean of the metric, under the name `metric`."""
        return {"loss": self.loss / self.count, metric: self.metric / self.count}


def _make_optimizer(job: TrainingJob, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer; its decoupled weight decay excludes biases and scales of normalisation layers."""
    import torch

    spec = job.spec
    excluded = {name for name, value in model.named_parameters() if value.ndim < 2 or "bias" in name}
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in model.named_parameters() if name not in excluded]},
        {"params": [value for name, value in model.named_parameters() if name in excluded], "weight_decay": 0.0},
    ]
    # SGD has no decoupled weight decay, but without momentum its L2 term is equivalent.
    optimizer_class: Any = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[spec.optimizer]
    optimizer: torch.optim.Optimizer = optimizer_class(
        [group for group in groups if group["params"]], lr=spec.learning_rate, weight_decay=spec.weight_decay
    )
    return optimizer


class _Events:
    """Writer of event files by `torch.utils.tensorboard`."""

    def __init__(self, folder: str) -> None:
        # tensorboard writes through TensorFlow if that is installed, which takes 4 s to import. If a module of this
        # name exists, tensorboard uses its own small stub instead.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(folder)

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


TRAINER = TorchTrainer()

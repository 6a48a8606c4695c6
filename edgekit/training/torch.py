"""PyTorch: an explicit training loop."""

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
from edgekit.training._schedule import epoch_seed, order
from edgekit.training._tensorboard import logged

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

_EVALUATED_AT_ONCE = 256


class TorchTrainer(Trainer):
    """A module in training mode returns what its loss wants: logits for cross-entropy, values for a regression.

    So the loss of the validation samples is computed in inference mode, where a classifier returns probabilities, by
    their logarithm.
    """

    name = "torch"
    code = "torch_model.py"
    requires = (TORCH,)
    qat_requires = (TORCH, TORCHAO, EXECUTORCH)

    def fit(self, lesson: TrainingJob) -> TrainingResult:
        import torch

        torch.manual_seed(lesson.spec.seed)
        torch.use_deterministic_algorithms(True)
        model = lesson.build().train()
        run = _Run(lesson, model)
        run.train()
        record = run.course.record()
        if lesson.qat:
            record["qat"] = _torch_qat.tune(model, lesson, run.batches(), run.loss, run.course)
            record["seconds"] = round(run.course.seconds, 3)
        torch.save(model.state_dict(), lesson.folder / "weights.pt")
        return TrainingResult("weights.pt", run.course.standing.history, record)


class _Run:
    """One training: the model, its optimizer, the best weights so far, and how far it is."""

    def __init__(self, lesson: TrainingJob, model: nn.Module) -> None:
        self.lesson = lesson
        self.model = model
        self.course = EpochTracker(lesson)
        self.optimizer = _optimizer(lesson, model)
        self.best: dict[str, Tensor] | None = None
        if self.course.state is not None:
            self._restore(self.course.state)

    def train(self) -> None:
        """All epochs, or as many as the course allows; the best weights, if there are such, are then in the model."""
        loader = self.batches()
        with logged(self.course, _Events):
            while not self.course.over:
                self._epoch(loader)
        if self.best is not None:
            self.model.load_state_dict(self.best)

    def batches(self) -> DataLoader[Any]:
        """Shuffled batches of inputs and targets; its `sampler` takes the number of the epoch."""
        import torch
        from torch.utils.data import DataLoader, Sampler, TensorDataset

        seed, size = self.lesson.spec.seed, self.lesson.spec.batch_size

        class Shuffled(Sampler[list[int]]):  # type: ignore[misc]
            """Whole batches of indices: a data set in memory then answers a batch with one indexing."""

            epoch = 0

            def __iter__(self) -> Iterator[list[int]]:
                indices = torch.from_numpy(order(seed, self.epoch, len(data)))
                return iter(indices.split(size))

        inputs = torch.from_numpy(self.lesson.inputs)
        data = TensorDataset(inputs, self._targets(self.lesson.labels))
        return DataLoader(data, sampler=Shuffled(), batch_size=None)

    def _targets(self, labels: Array) -> Tensor:
        import torch

        targets = torch.from_numpy(labels)
        if self.lesson.classify:
            return targets
        return targets.float().reshape(len(labels), -1) if labels.ndim == 1 else targets.float()

    def _epoch(self, loader: DataLoader[Any]) -> None:
        import torch

        epoch = self.course.standing.epoch
        torch.manual_seed(epoch_seed(self.lesson.spec.seed, epoch))
        loader.sampler.epoch = epoch
        sums, complete = _Sums(), True
        for batch, (inputs, targets) in enumerate(loader):
            sums.add(*self._step(inputs, targets, self.course.rate(batch)), len(inputs))
            if self.course.batch_done(batch, lambda: sums.means(self._metric)):
                complete = False
                break
        figures = sums.means(self._metric)
        if self.lesson.validation is not None:
            figures |= {f"val_{name}": value for name, value in self._evaluate(*self.lesson.validation).items()}
        if self.course.epoch_done(figures, complete=complete):
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.course.save(self._state)

    def _step(self, inputs: Tensor, targets: Tensor, rate: float) -> tuple[float, float]:
        """One step of the optimizer. The loss, and the metric's sum over the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        output = self.model(inputs)
        loss = self.loss(output, targets)
        loss.backward()
        self.optimizer.step()
        return loss.item(), self._metric_sum(output, targets)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """The mean over a batch; `output` is what the module returns in training mode."""
        import torch.nn.functional as F

        return F.cross_entropy(output, targets) if self.lesson.classify else F.mse_loss(output, targets)

    @property
    def _metric(self) -> str:
        return "accuracy" if self.lesson.classify else "mae"

    def _metric_sum(self, output: Tensor, targets: Tensor) -> float:
        if self.lesson.classify:
            return float((output.argmax(-1) == targets).sum())
        return float((output.detach() - targets).abs().mean()) * len(targets)

    def _evaluate(self, inputs: Array, labels: Array) -> dict[str, float]:
        """Loss and metric in inference mode."""
        import torch
        import torch.nn.functional as F

        sums = _Sums()
        x, y = torch.from_numpy(inputs), self._targets(labels)
        self.model.eval()
        with torch.no_grad():
            for some, targets in zip(x.split(_EVALUATED_AT_ONCE), y.split(_EVALUATED_AT_ONCE), strict=True):
                output = self.model(some)
                # Probabilities underflow where logits do not: Keras clips them at the same 1e-7.
                known = F.nll_loss(output.clamp(1e-7, 1).log(), targets) if self.lesson.classify else None
                loss = F.mse_loss(output, targets) if known is None else known
                sums.add(loss.item(), self._metric_sum(output, targets), len(some))
        self.model.train()
        return sums.means(self._metric)

    def _state(self) -> bytes:
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
        except Exception as error:  # the hash fits, so another program wrote it
            raise InputError(
                f"the checkpoint to resume {self.lesson.step.removeprefix('train ')} from does not fit its network"
            ) from error


class _Sums:
    """Running means over samples."""

    def __init__(self) -> None:
        self.loss = self.metric = 0.0
        self.count = 0

    def add(self, loss: float, metric_sum: float, count: int) -> None:
        """A batch: its mean loss and the sum of its metric."""
        self.loss += loss * count
        self.metric += metric_sum
        self.count += count

    def means(self, metric: str) -> dict[str, float]:
        """Loss and metric over what was added."""
        return {"loss": self.loss / self.count, metric: self.metric / self.count}


def _optimizer(lesson: TrainingJob, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay is decoupled, and spares biases and the scales of normalisations."""
    import torch

    spec = lesson.spec
    spared = {name for name, value in model.named_parameters() if value.ndim < 2 or "bias" in name}
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in model.named_parameters() if name not in spared]},
        {"params": [value for name, value in model.named_parameters() if name in spared], "weight_decay": 0.0},
    ]
    # Without momentum, SGD's L2 term and decoupled decay are the same.
    optimizer: Any = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[spec.optimizer]
    made: torch.optim.Optimizer = optimizer(
        [group for group in groups if group["params"]], lr=spec.learning_rate, weight_decay=spec.weight_decay
    )
    return made


class _Events:
    """torch.utils.tensorboard."""

    def __init__(self, folder: str) -> None:
        # tensorboard writes by way of TensorFlow where that is installed: 4 s to import, and a guest in this process.
        # With a module of this name it takes its own small stub.
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

"""PyTorch: an explicit training loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.config.model import TrainingSpec
from edgekit.core.events import Listener, Progress
from edgekit.core.metrics import Array
from edgekit.core.requirements import TORCH
from edgekit.training._base import Fit, Trainer, decayed


class TorchTrainer(Trainer):
    """A module in training mode returns what its loss wants: logits for cross-entropy, values for a regression."""

    name = "torch"
    code = "torch_model.py"
    requires = (TORCH,)

    def fit(
        self,
        build: Callable[[], Any],
        spec: TrainingSpec,
        inputs: Array,
        labels: Array,
        folder: Path,
        *,
        step: str,
        emit: Listener,
    ) -> Fit:
        import torch

        torch.manual_seed(spec.seed)
        torch.use_deterministic_algorithms(True)
        model = build().train()
        optimizer_class = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[spec.optimizer]
        optimizer = optimizer_class(model.parameters(), lr=spec.learning_rate)
        loss_function = torch.nn.CrossEntropyLoss() if spec.loss == "cross-entropy" else torch.nn.MSELoss()
        classify = spec.loss == "cross-entropy"
        x = torch.from_numpy(inputs)
        y = torch.from_numpy(labels) if classify else torch.from_numpy(labels).float().reshape(len(labels), -1)
        batches = -(-len(x) // spec.batch_size)
        history: dict[str, list[float]] = {name: [] for name in (("loss", "accuracy") if classify else ("loss",))}

        for epoch in range(spec.epochs):
            total_loss, correct, seen = 0.0, 0, 0
            for batch, index in enumerate(torch.randperm(len(x)).split(spec.batch_size)):
                for group in optimizer.param_groups:
                    group["lr"] = decayed(spec, (epoch * batches + batch) / (batches * spec.epochs))
                optimizer.zero_grad()
                output = model(x[index])
                loss = loss_function(output, y[index])
                loss.backward()
                optimizer.step()

                seen += len(index)
                total_loss += loss.item() * len(index)
                correct += int((output.argmax(1) == y[index]).sum()) if classify else 0
                if (batch + 1) % 20 == 0 or batch + 1 == batches:
                    figures = {"loss": total_loss / seen} | ({"accuracy": correct / seen} if classify else {})
                    emit(Progress(step, epoch * batches + batch + 1, spec.epochs * batches, figures))
            for name, value in figures.items():
                history[name].append(value)

        torch.save(model.state_dict(), folder / "weights.pt")
        return Fit("weights.pt", history)


TRAINER = TorchTrainer()

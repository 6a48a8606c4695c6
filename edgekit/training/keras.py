"""Keras: compile and fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.config.model import TrainingSpec
from edgekit.core.events import Listener, Progress
from edgekit.core.metrics import Array
from edgekit.core.requirements import KERAS, TENSORFLOW
from edgekit.training._base import Fit, Trainer, decayed

_LOSSES = {"cross-entropy": "sparse_categorical_crossentropy", "mse": "mse"}
_OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}


def _callback(step: str, spec: TrainingSpec, batches: int, emit: Listener) -> Any:
    import keras

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        """Sets the learning rate of each batch, and tells how far the training is."""

        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.epoch = epoch

        def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
            done = (self.epoch * batches + batch) / (batches * spec.epochs)
            self.model.optimizer.learning_rate = decayed(spec, done)

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            if (batch + 1) % 20 == 0 or batch + 1 == batches:
                figures = {key: float(value) for key, value in (logs or {}).items()}
                emit(Progress(step, self.epoch * batches + batch + 1, spec.epochs * batches, figures))

    return Report()


class KerasTrainer(Trainer):
    """Functional models, as their authors write them."""

    name = "keras"
    code = "keras_model.py"
    requires = (KERAS, TENSORFLOW)

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
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(spec.seed)
        tf.config.experimental.enable_op_determinism()
        model = build()
        optimizer = getattr(keras.optimizers, _OPTIMIZERS[spec.optimizer])(learning_rate=spec.learning_rate)
        metrics = ["accuracy"] if spec.loss == "cross-entropy" else []
        model.compile(optimizer=optimizer, loss=_LOSSES[spec.loss], metrics=metrics)
        batches = -(-len(inputs) // spec.batch_size)
        history = model.fit(
            inputs,
            labels,
            batch_size=spec.batch_size,
            epochs=spec.epochs,
            verbose=0,
            callbacks=[_callback(step, spec, batches, emit)],
        )
        model.save(folder / "model.keras")
        return Fit("model.keras", {key: [float(value) for value in values] for key, values in history.history.items()})


TRAINER = KerasTrainer()

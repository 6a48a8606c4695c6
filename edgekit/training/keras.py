"""Keras: compile and fit."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contracts.trainer import Trainer, TrainingJob, TrainingResult
from edgekit.core.environment.requirements import KERAS, TENSORFLOW
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.training._epoch_tracker import EpochTracker
from edgekit.training._schedule import epoch_seed, order
from edgekit.training._tensorboard import logged

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_LOSSES = {"cross-entropy": "sparse_categorical_crossentropy", "mse": "mse"}
_METRICS = {"cross-entropy": "accuracy", "mse": "mae"}
_OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}
_EVALUATED_AT_ONCE = 256


class KerasTrainer(Trainer):
    """Functional models, as their authors write them."""

    name = "keras"
    code = "keras_model.py"
    requires = (KERAS, TENSORFLOW)
    no_qat = (
        "Keras 3 has no quantization-aware training (tensorflow-model-optimization works with Keras 2 only):"
        " use --framework torch, or quantize after the training"
    )

    def fit(self, lesson: TrainingJob) -> TrainingResult:
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(lesson.spec.seed)
        tf.config.experimental.enable_op_determinism()
        run = _Run(lesson, lesson.build())
        run.train()
        run.model.save(lesson.folder / "model.keras")
        return TrainingResult("model.keras", run.course.standing.history, run.course.record())


class _Run:
    """One training: the compiled model, the best weights so far, and how far it is."""

    def __init__(self, lesson: TrainingJob, model: keras.Model) -> None:
        self.lesson = lesson
        self.model = model
        self.course = EpochTracker(lesson)
        # Before compile() adds the metrics': weights, statistics, and the states of random generators.
        self.variables = list(model.variables)
        self.optimizer = _optimizer(lesson, model)
        model.compile(optimizer=self.optimizer, loss=_LOSSES[lesson.spec.loss], metrics=[_METRICS[lesson.spec.loss]])
        self.best: list[Array] | None = None
        if self.course.state is not None:
            self._restore(self.course.state)

    def train(self) -> None:
        """All epochs, or as many as the course allows; the best weights, if there are such, are then in the model."""
        spec, validation = self.lesson.spec, self.lesson.validation
        with logged(self.course, _Events):
            if not self.course.over:
                self.model.fit(
                    self._batches(),
                    epochs=spec.epochs,
                    initial_epoch=self.course.standing.epoch,
                    steps_per_epoch=self.lesson.batches,
                    validation_data=None if validation is None else _in_order(*validation),
                    verbose=0,
                    callbacks=[_callback(self)],
                )
        if self.best is not None:
            _assign(self.variables, self.best)

    def _batches(self) -> tf.data.Dataset:
        """Shuffled batches of inputs and labels, epoch after epoch without end, from the epoch that is next."""
        import tensorflow as tf

        # On the CPU once: captured by the pipeline, and not copied into it.
        inputs, labels = tf.constant(self.lesson.inputs), tf.constant(self.lesson.labels)
        seed, count, size = self.lesson.spec.seed, len(self.lesson.inputs), self.lesson.spec.batch_size

        def indices(epoch: tf.Tensor) -> tf.data.Dataset:
            shuffled = tf.numpy_function(lambda at: order(seed, int(at), count), [epoch], tf.int64)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(shuffled, [count])).batch(size)

        epochs = tf.data.Dataset.counter(start=self.course.standing.epoch)
        batches = epochs.flat_map(indices)
        # A batch with one indexing: tf.data's own shuffle() would hand over sample by sample.
        return batches.map(lambda some: (tf.gather(inputs, some), tf.gather(labels, some))).prefetch(2)

    def snapshot(self) -> list[Array]:
        """The values of all variables."""
        return [np.array(variable) for variable in self.variables]

    def state(self) -> bytes:
        """The model's and the optimizer's variables and the best weights, as an npz file."""
        groups = {"model": self.snapshot(), "best": self.best or []}
        groups["optimizer"] = [np.array(variable) for variable in self.optimizer.variables]
        arrays: dict[str, Any] = {
            f"{group}{index}": array for group, values in groups.items() for index, array in enumerate(values)
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def _restore(self, content: bytes) -> None:
        self.optimizer.build(self.model.trainable_variables)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                _assign(self.variables, [stored[f"model{index}"] for index in range(len(self.variables))])
                own = self.optimizer.variables
                _assign(own, [stored[f"optimizer{index}"] for index in range(len(own))])
                if "best0" in stored:
                    self.best = [stored[f"best{index}"] for index in range(len(self.variables))]
        except Exception as error:  # the hash fits, so another program wrote it
            raise InputError(
                f"the checkpoint to resume {self.lesson.step.removeprefix('train ')} from does not fit its network"
            ) from error


def _assign(variables: list[Any], values: list[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _optimizer(lesson: TrainingJob, model: keras.Model) -> keras.optimizers.Optimizer:
    """Weight decay is decoupled, and spares biases and the scales of normalisations."""
    import keras

    spec = lesson.spec
    optimizer = getattr(keras.optimizers, _OPTIMIZERS[spec.optimizer])(
        learning_rate=spec.learning_rate, weight_decay=spec.weight_decay or None
    )
    if spec.weight_decay:
        spared = [item for item in model.trainable_variables if len(item.shape) < 2 or "bias" in item.name]
        optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer


def _in_order(inputs: Array, labels: Array) -> tf.data.Dataset:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(_EVALUATED_AT_ONCE).cache()


def _callback(run: _Run) -> keras.callbacks.Callback:
    import keras

    course = run.course

    class Follow(keras.callbacks.Callback):  # type: ignore[misc]
        """Seeds each epoch, sets the learning rate of each batch, and tells the course how far the training is."""

        complete = True

        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            # Keras's layers draw from seed generators, whose states are variables. This is for Python code of the
            # model's; keras.utils.set_random_seed() would also empty TensorFlow's kernel cache, at 0.2 s an epoch.
            random.seed(epoch_seed(run.lesson.spec.seed, epoch))
            np.random.seed(epoch_seed(run.lesson.spec.seed, epoch))

        def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.model.optimizer.learning_rate = course.rate(batch)

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            if course.batch_done(batch, lambda: _floats(logs)):
                self.complete = False
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            if course.epoch_done(_floats(logs), complete=self.complete):
                run.best = run.snapshot()
            course.save(run.state)
            self.model.stop_training = course.over

    return Follow()


def _floats(logs: Mapping[str, float] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (logs or {}).items()}


class _Events:
    """tf.summary."""

    def __init__(self, folder: str) -> None:
        import tensorflow as tf

        self._writer: Any = tf.summary.create_file_writer(folder)

    def write(self, epoch: int, figures: Mapping[str, float]) -> None:
        import tensorflow as tf

        with self._writer.as_default(step=epoch):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


TRAINER = KerasTrainer()

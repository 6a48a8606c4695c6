"""Training loop of Keras: `compile` and `fit`."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contracts.trainer import Trainer, TrainingJob, TrainingResult
from edgekit.core.environment.requirements import KERAS, TENSORFLOW
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.numerics.metrics import Array
from edgekit.training._epoch_tracker import EpochTracker
from edgekit.training._keras_qat import quantization_aware
from edgekit.training._schedule import epoch_seed, sample_order
from edgekit.training._tensorboard import log_epochs

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# Values of model.toml -> the names in Keras. Labels are class numbers, hence the sparse loss.
_LOSSES = {"cross-entropy": "sparse_categorical_crossentropy", "mse": "mse"}
_METRICS = {"cross-entropy": "accuracy", "mse": "mae"}
_OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}
# Share of the learning rate that fine-tuning uses by default: the trained weights only need to adapt to the rounding.
_QAT_RATE_SHARE = 0.1
# Bounds memory only: the mean over the samples does not depend on the batch size.
_EVAL_BATCH_SIZE = 256


class KerasTrainer(Trainer):
    """Training loop of Keras models."""

    name = "keras"
    code = "keras_model.py"
    requires = (KERAS, TENSORFLOW)
    qat_requires = (KERAS, TENSORFLOW)

    def fit(self, job: TrainingJob) -> TrainingResult:
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(job.spec.seed)
        # A resumed training must end in the same weights.
        tf.config.experimental.enable_op_determinism()
        run = _Run(job, job.build())
        run.train()
        record = run.tracker.record()
        if job.qat:
            record["qat"] = run.fine_tune()
        run.model.save(job.folder / "model.keras")
        return TrainingResult("model.keras", run.tracker.progress.history, record)


class _Run:
    """One training: the compiled model, its optimizer, its progress and the best weights so far."""

    def __init__(self, job: TrainingJob, model: keras.Model) -> None:
        self.job = job
        self.model = model
        self.tracker = EpochTracker(job)
        # Weights, statistics and states of random generators; read before compile() adds the variables of the metrics.
        self.variables = list(model.variables)
        self.optimizer = _make_optimizer(job, model)
        model.compile(optimizer=self.optimizer, loss=_LOSSES[job.spec.loss], metrics=[_METRICS[job.spec.loss]])
        self.best: list[Array] | None = None
        if self.tracker.resume_state is not None:
            self._restore(self.tracker.resume_state)

    def train(self) -> None:
        """Train until the tracker has finished; with early stopping, restore the best weights."""
        spec, validation = self.job.spec, self.job.validation
        with log_epochs(self.tracker, _Events):
            if not self.tracker.finished:
                self.model.fit(
                    self._batches(),
                    epochs=spec.epochs,
                    initial_epoch=self.tracker.progress.epoch,
                    steps_per_epoch=self.job.batches_per_epoch,
                    validation_data=None if validation is None else _validation_dataset(*validation),
                    verbose=0,
                    callbacks=[_make_callback(self)],
                )
        if self.best is not None:
            _assign_variables(self.variables, self.best)

    def fine_tune(self) -> dict[str, Any]:
        """Fine-tune with int8 rounding in the forward pass; return the entry `qat` for source.json."""
        import keras

        job, spec = self.job, self.job.spec
        rate = spec.qat_learning_rate or _QAT_RATE_SHARE * spec.learning_rate
        granularity = "tensor" if spec.qat_per_tensor else "channel"
        record = {
            "epochs": spec.qat_epochs,
            "learning_rate": rate,
            "tool": "edgekit.quantization_aware",
            "weights": f"int8 per {granularity}",
            "activations": "int8",
        }
        if self.tracker.timed_out:
            job.emit(NoteEvent(job.step, "the time limit left no time for quantization-aware training", warning=True))
            return {**record, "epochs": 0}
        with quantization_aware(self.model, job.inputs, per_tensor=spec.qat_per_tensor):
            self.model.compile(optimizer=keras.optimizers.Adam(rate), loss=_LOSSES[spec.loss])
            fitted = self.model.fit(
                self._batches(),
                epochs=spec.qat_epochs,
                steps_per_epoch=job.batches_per_epoch,
                verbose=0,
                callbacks=[_stop_in_time(job)],
            )
        self.model.compile(loss=_LOSSES[spec.loss])  # without the optimizer's variables in the file
        losses = [float(value) for value in fitted.history["loss"]]
        return {**record, "epochs": len(losses), "loss": losses}

    def _batches(self) -> tf.data.Dataset:
        """Return an endless dataset of shuffled batches of inputs and labels, starting at the current epoch."""
        import tensorflow as tf

        # Created once on the CPU: the pipeline captures a reference instead of copying the data into its graph.
        inputs, labels = tf.constant(self.job.inputs), tf.constant(self.job.labels)
        seed, count, size = self.job.spec.seed, len(self.job.inputs), self.job.spec.batch_size

        def indices(epoch: tf.Tensor) -> tf.data.Dataset:
            shuffled = tf.numpy_function(lambda number: sample_order(seed, int(number), count), [epoch], tf.int64)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(shuffled, [count])).batch(size)

        epochs = tf.data.Dataset.counter(start=self.tracker.progress.epoch)
        batches = epochs.flat_map(indices)
        # One gather per batch: tf.data's own shuffle() would pass single samples through the pipeline.
        return batches.map(lambda batch: (tf.gather(inputs, batch), tf.gather(labels, batch))).prefetch(2)

    def snapshot(self) -> list[Array]:
        """Return copies of the values of all variables."""
        return [np.array(variable) for variable in self.variables]

    def serialize(self) -> bytes:
        """Serialize the variables of the model and of the optimizer, and the best weights, as an npz file."""
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
                _assign_variables(self.variables, [stored[f"model{index}"] for index in range(len(self.variables))])
                moments = self.optimizer.variables
                _assign_variables(moments, [stored[f"optimizer{index}"] for index in range(len(moments))])
                if "best0" in stored:
                    self.best = [stored[f"best{index}"] for index in range(len(self.variables))]
        except Exception as error:  # intact by its hash, so written by a program with other variables
            raise InputError(
                f"the checkpoint to resume {self.job.step.removeprefix('train ')} from does not match the network;"
                " to start over, train without --resume"
            ) from error


def _assign_variables(variables: list[Any], values: list[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _make_optimizer(job: TrainingJob, model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer; its decoupled weight decay excludes biases and scales of normalisation layers."""
    import keras

    spec = job.spec
    optimizer = getattr(keras.optimizers, _OPTIMIZERS[spec.optimizer])(
        learning_rate=spec.learning_rate, weight_decay=spec.weight_decay or None
    )
    if spec.weight_decay:
        excluded = [
            variable for variable in model.trainable_variables if len(variable.shape) < 2 or "bias" in variable.name
        ]
        optimizer.exclude_from_weight_decay(var_list=excluded)
    return optimizer


def _validation_dataset(inputs: Array, labels: Array) -> tf.data.Dataset:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(_EVAL_BATCH_SIZE).cache()


def _make_callback(run: _Run) -> keras.callbacks.Callback:
    import keras

    tracker = run.tracker

    class TrackEpochs(keras.callbacks.Callback):  # type: ignore[misc]
        """Callback that seeds each epoch, sets the learning rate of each batch and reports progress to the tracker."""

        complete = True

        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            # Keras layers draw from seed generators, whose states are variables; this seeds Python code of the model.
            # keras.utils.set_random_seed() would also clear TensorFlow's kernel cache, which costs 0.2 s per epoch.
            random.seed(epoch_seed(run.job.spec.seed, epoch))
            np.random.seed(epoch_seed(run.job.spec.seed, epoch))

        def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.model.optimizer.learning_rate = tracker.batch_learning_rate(batch)

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            if tracker.end_batch(batch, lambda: _to_floats(logs)):
                self.complete = False
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            if tracker.end_epoch(_to_floats(logs), complete=self.complete):
                run.best = run.snapshot()
            tracker.save(run.serialize)
            self.model.stop_training = tracker.finished

    return TrackEpochs()


def _stop_in_time(job: TrainingJob) -> keras.callbacks.Callback:
    """Return a callback that ends a training at the deadline of its job."""
    import keras

    class StopInTime(keras.callbacks.Callback):  # type: ignore[misc]
        """Callback that stops after the batch in which the deadline passes."""

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            if job.deadline_s is not None and time.monotonic() >= job.deadline_s and not self.model.stop_training:
                job.emit(NoteEvent(job.step, "stopped by time limit during quantization-aware training"))
                self.model.stop_training = True

    return StopInTime()


def _to_floats(logs: Mapping[str, float] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (logs or {}).items()}


class _Events:
    """Writer of event files by `tf.summary`."""

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

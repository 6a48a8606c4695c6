"""The Python API: the stages behind the commands, as typed functions.

All of them follow the same rules:

* Frameworks and converters run in worker processes, as they do for the commands: a converter that crashes raises an
  exception here and does not end the interpreter.
* A verdict is a value. An artifact that is not equivalent to its source, or exceeds a budget, does not raise.
* An error is an exception, a subclass of `edgekit.core.errors.EdgekitError`: `InputError`, `MissingDependency`, or a
  `StepError`. If one of several steps fails, the other ones are completed and their results written to disk; then the
  most severe error is raised, with notes on the other ones.

A `Session` keeps the workers for the next call. Without a session, each call starts its own workers.
"""

from __future__ import annotations

# Type checkers take it as true under this name. Importing it from typing, or dataclasses, pathlib and contextlib, would
# be most of the cost of `from edgekit import export`; the functions import what they need when they are called.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import keras

    from edgekit.core.events import Listener
    from edgekit.core.numerics.metrics import Array
    from edgekit.core.records.artifact import Artifact
    from edgekit.core.records.check_result import CheckResult
    from edgekit.core.records.measurement import Measurement
    from edgekit.core.records.validation import Validation
    from edgekit.session import ModelNames, Samples, Session
    from edgekit.stages.validation.compare import Equivalence
    from edgekit.training._keras_qat import QuantizationAware
else:
    # Hidden from type checkers: to them, a module with __getattr__ has every attribute.
    def __getattr__(name: str) -> object:
        modules = {"Session": "edgekit.session", "CheckResult": "edgekit.core.records.check_result"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return globals().setdefault(name, getattr(importlib.import_module(modules[name]), name))


__all__ = [
    "CheckResult",
    "Session",
    "bench",
    "check",
    "compare",
    "export",
    "load_artifact",
    "quantization_aware",
    "validate",
]

# Default time limit in seconds of a step, as for the commands.
_TIMEOUT_S = 600.0


def export(
    model: str | Path,
    *,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    framework: str | None = None,
    weights: str | Path | None = None,
    inputs: str | Sequence[str] = (),
    sample: Samples | None = None,
    calibration: Samples | None = None,
    calibration_samples: int | None = None,
    image_range: tuple[float, float] = (0.0, 1.0),
    signature: str | None = None,
    dims: Mapping[str, int] | None = None,
    fixed: Mapping[str, float] | None = None,
    preprocess: str | Sequence[str] = (),
    layout: str | None = None,
    options: Mapping[str, int] | None = None,
    recipe: str | Path | None = None,
    repair: bool = True,
    inference_input_type: str | None = None,
    inference_output_type: str | None = None,
    per_tensor: bool = False,
    symmetric_activations: bool = False,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    preset: str | None = None,
    route: str | None = None,
    name: str | None = None,
    root: str | Path = ".",
    timeout_s: float = _TIMEOUT_S,
    on_event: Listener | None = None,
) -> tuple[Artifact, ...]:
    """Convert a model to edge formats, like `edgekit export`.

    A reference model that has not been trained is trained first. If one of several variants fails, the other ones are
    still written, and the most severe error is raised at the end. To handle each failure separately, export one variant
    per call in a `Session`.

    Args:
        model: Name of a model, a model file, a folder of a SavedModel, of transformers or of MLflow, or code as
            `FILE.py:FUNCTION`.
        target: Targets or variants, such as `tflite` or `tflite:int8`; empty for every target.
        precision: Precision, such as `int8`; None for all precisions of the targets.
        framework: Framework of a reference model's source: `keras`, `torch` or `both`.
        weights: Weights of a model that is built by code: a state dict, safetensors or h5 file.
        inputs: Inputs of the model as `NAME:SHAPE:DTYPE`, if the model does not describe them.
        sample: Real inputs, shape `(N, ...)`: an npz or npy file, or arrays by input name. An array `labels` with the
            classes `(N,)` lets `validate` compute the accuracy.
        calibration: Inputs for the ranges of quantization: like `sample`, or a folder of images, or code as
            `FILE.py:FUNCTION`, or `"synthetic"`: made from the network's batch norms, without data.
        calibration_samples: Number of calibration samples; None for 200, or all if there are fewer.
        image_range: Values that the pixels 0 and 255 of calibration images become.
        signature: Signature of a SavedModel; None for `serving_default`, or the only one.
        dims: Sizes of symbolic dimensions, such as `{"batch": 1}`.
        fixed: Inputs that become constants, such as `{"sr": 16000}`: a number or a boolean by name.
        preprocess: Steps from the application's images to inputs, such as `"image:size=480x640,scale=1/255"`.
        layout: Layout of images in the artifact, `NCHW` or `NHWC`; None keeps the converter's.
        options: Numbers for targets, by name: `{"opset": 18}`.
        recipe: Recipe file of a tuned variant, instead of target and precision.
        repair: Whether to search for the most accurate way to quantize, on samples of their own; otherwise each
            target's default way is used.
        inference_input_type: Type of the inputs of quantized files, such as `uint8`; None for the target's own.
        inference_output_type: Type of their outputs.
        per_tensor: Whether weights have one scale per tensor instead of one per channel.
        symmetric_activations: Whether activations are quantized symmetrically.
        ranges: (lowest, highest) real value of tensors by name, instead of what calibration samples show.
        preset: Follow the rules of what the files are for: `ethos-u`, `litert-js` or `onnxruntime-mobile`.
        route: The only route to take, such as `keras,torch,tflite`.
        name: Name of a user's model in the project; None for the name of its file.
        root: The project's folder. Artifacts are written to its folder `build`.
        timeout_s: Seconds that one step may take.
        on_event: Receives the progress events.

    Returns:
        The artifacts. A variant that the model cannot reach is skipped with an event, unless it was named.

    Raises:
        InputError: The model is unknown or invalid, or an argument does not apply to it.
        MissingDependency: A package that the conversion needs is not installed.
        StepError: A conversion failed, crashed, ran out of time, memory or disk space.

    Example:
        ```python
        (artifact,) = edgekit.export("net.onnx", target="tflite:int8", sample={"image": images})
        print(artifact.path, artifact.manifest.size_bytes)
        ```
    """
    from edgekit.session import Session

    with Session(root, timeout_s=timeout_s, on_event=on_event) as session:
        return session.export(
            model,
            target=target,
            precision=precision,
            framework=framework,
            weights=weights,
            inputs=inputs,
            sample=sample,
            calibration=calibration,
            calibration_samples=calibration_samples,
            image_range=image_range,
            signature=signature,
            dims=dims,
            fixed=fixed,
            preprocess=preprocess,
            layout=layout,
            options=options,
            recipe=recipe,
            repair=repair,
            inference_input_type=inference_input_type,
            inference_output_type=inference_output_type,
            per_tensor=per_tensor,
            symmetric_activations=symmetric_activations,
            ranges=ranges,
            preset=preset,
            route=route,
            name=name,
        )


def validate(
    models: ModelNames = (),
    *,
    framework: str | None = None,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    device: str | Sequence[str] = (),
    executor: str | Sequence[str] = (),
    runtime: str = "",
    stress: bool = False,
    root: str | Path = ".",
    timeout_s: float = _TIMEOUT_S,
    on_event: Listener | None = None,
) -> tuple[Validation, ...]:
    """Run artifacts on their golden samples and compare the outputs with the source's, like `edgekit validate`.

    Each result is also written into the folder of its artifact.

    Args:
        models: Artifacts, folders of artifacts, or names of models; empty for everything in `build`.
        framework: Only artifacts of `keras` or `torch` sources; None for all.
        target: Only these targets or variants; empty for all.
        precision: Only this precision; None for all.
        device: Devices on whose emulated cores the artifacts run; empty for this host.
        executor: Executors that run the artifacts on the devices, instead of the emulated core.
        runtime: Runtime that runs the artifacts, instead of each target's default one.
        stress: Whether to run stress inputs as well, on this host: zeros, extremes, noise, denormals and batches.
        root: The project's folder.
        timeout_s: Seconds that one step may take.
        on_event: Receives the progress events.

    Returns:
        One result per artifact; `passed` is False if it is not equivalent, and `failures` lists the reasons.

    Raises:
        InputError: Nothing matches, or an artifact is damaged.
        MissingDependency: A runtime is not installed.
        StepError: An artifact crashed its runtime, or ran out of time or memory.

    Example:
        ```python
        for result in edgekit.validate("simple_cnn", target="tflite"):
            print(result.variant, result.passed, result.failures)
        ```
    """
    from edgekit.session import Session

    with Session(root, timeout_s=timeout_s, on_event=on_event) as session:
        return session.validate(
            models,
            framework=framework,
            target=target,
            precision=precision,
            device=device,
            executor=executor,
            runtime=runtime,
            stress=stress,
        )


def compare(
    first: str | Path | Artifact,
    second: str | Path | Artifact,
    *,
    samples: Samples,
    labels: str | Path | Array | None = None,
    pairs: Mapping[str, str] | None = None,
    precision: str | None = None,
    fixed: Mapping[str, float] | None = None,
    root: str | Path = ".",
    timeout_s: float = _TIMEOUT_S,
    on_event: Listener | None = None,
) -> Equivalence:
    """Run two models on the same samples and judge whether they compute the same, like `edgekit compare`.

    Args:
        first: The reference: an artifact, its folder, a model file of any format, or code as `FILE.py:FUNCTION`.
        second: The model that is compared with it, in one of the same forms.
        samples: Real inputs, shape `(N, ...)`: an npz or npy file, an array for a single input, or arrays by name.
        labels: Classes `(N,)` of the samples, a file or an array; the result then has the accuracy of both models.
        pairs: Tensor names of the first model with those of the second, to correct the automatic pairing.
        precision: Precision whose tolerances apply; None for the coarser one of the two models.
        fixed: Values of inputs that have no samples, by name, such as `{"sr": 16000}`.
        root: The folder that code is imported from.
        timeout_s: Seconds that one step may take.
        on_event: Receives the progress events.

    Returns:
        The result; its `verdict` is `equal`, `not equal`, or `no evidence` if the outputs are the same for all samples.

    Raises:
        InputError: A model or the samples are invalid, or the inputs cannot be paired.
        MissingDependency: A package that runs one of the models is not installed.
        StepError: A model crashed its runtime, or ran out of time or memory.

    Example:
        ```python
        result = edgekit.compare("net.onnx", "net.tflite", samples={"image": images})
        assert result.verdict == "equal", result.comparisons
        ```
    """
    from edgekit.session import Session

    with Session(root, timeout_s=timeout_s, on_event=on_event) as session:
        return session.compare(
            first, second, samples=samples, labels=labels, pairs=pairs, precision=precision, fixed=fixed
        )


def bench(
    models: ModelNames = (),
    *,
    framework: str | None = None,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    device: str | Sequence[str] = (),
    executor: str | Sequence[str] = (),
    runtime: str = "",
    emulated: bool = False,
    threads: int | None = None,
    min_duration_s: float = 0.25,
    min_runs: int = 50,
    per_op: bool = False,
    timeout_s: float = 300.0,
    root: str | Path = ".",
    on_event: Listener | None = None,
) -> tuple[Measurement, ...]:
    """Measure size, latency and memory of artifacts, each in a process of its own, like `edgekit bench`.

    Each result is also written into the folder of its artifact.

    Args:
        models: Artifacts, folders of artifacts, or names of models; empty for everything in `build`.
        framework: Only artifacts of `keras` or `torch` sources; None for all.
        target: Only these targets or variants; empty for all.
        precision: Only this precision; None for all.
        device: Names of device profiles, or `all`; empty for this host without a profile.
        executor: Executors that measure the artifacts in addition to this host.
        runtime: Runtime that runs the artifacts, instead of each target's default one.
        emulated: Whether to measure in the tier `emulated` as well, on the devices' emulated cores.
        threads: Number of threads; None for the profile's, and 1 for this host.
        min_duration_s: Minimum duration of a measurement in seconds.
        min_runs: Minimum number of measured inferences.
        per_op: Whether to measure each operator as well, in the tiers that support it.
        timeout_s: Seconds that the measurement of one artifact may take; twice as many under emulation.
        root: The project's folder.
        on_event: Receives the progress events, from several threads.

    Returns:
        One measurement per artifact and device. An artifact that a device cannot run is skipped, with an event.

    Raises:
        InputError: Nothing matches, a device is unknown, or none of the devices runs any of the artifacts.
        MissingDependency: A runtime is not installed, or the emulation is not set up.
        StepError: An artifact crashed its runtime, or ran out of time or memory.

    Example:
        ```python
        (measurement,) = edgekit.bench("build/net/torch/tflite-int8")
        print(measurement.latency_ms["host"], measurement.peak_memory_bytes)
        ```
    """
    from edgekit.session import Session

    with Session(root, on_event=on_event) as session:
        return session.bench(
            models,
            framework=framework,
            target=target,
            precision=precision,
            device=device,
            executor=executor,
            runtime=runtime,
            emulated=emulated,
            threads=threads,
            min_duration_s=min_duration_s,
            min_runs=min_runs,
            per_op=per_op,
            timeout_s=timeout_s,
        )


def check(
    models: ModelNames = (),
    *,
    framework: str | None = None,
    target: str | Sequence[str] = (),
    precision: str | None = None,
    device: str | Sequence[str] = (),
    max_size: int | str | None = None,
    max_peak_memory: int | str | None = None,
    max_drift: float | None = None,
    max_instructions: int | None = None,
    max_latency_ms: Mapping[str, float] | None = None,
    baseline: str | Path | None = None,
    max_regression: float | None = None,
    max_host_regression: float | None = None,
    max_metric_loss: float | None = None,
    root: str | Path = ".",
    on_event: Listener | None = None,
) -> CheckResult:
    """Judge the results of `validate` and `bench` against budgets, like `edgekit check`.

    Limits come from `model.toml`, the device profiles and the arguments; the strictest applies to each figure. A limit
    without a measurement counts as a failure. Nothing is run or measured.

    Args:
        models: Artifacts, folders of artifacts, or names of models; empty for everything in `build`.
        framework: Only artifacts of `keras` or `torch` sources; None for all.
        target: Only these targets or variants; empty for all.
        precision: Only this precision; None for all.
        device: Only measurements of these devices; empty for all.
        max_size: Largest size of the model files: bytes, or text such as `500 KB`.
        max_peak_memory: Largest peak memory of loading and one inference, in the same forms.
        max_drift: Largest loss in the unit of the task metric: 0.01 is one point of accuracy.
        max_instructions: Most instructions of one inference on the device's emulated core.
        max_latency_ms: Largest latency in ms by tier, such as `{"host": 5.0}`.
        baseline: Report of an earlier run, written by `edgekit report --format json`.
        max_regression: Allowed relative increase of size, instructions, analytic and emulated latency; None for 0.02.
        max_host_regression: Allowed relative increase of figures measured on this host; None for 0.2.
        max_metric_loss: Allowed loss in the unit of the task metric; None for 0.01.
        root: The project's folder.
        on_event: Receives the progress events.

    Returns:
        The verdicts; `passed` is False where one failed, or a figure is worse than the baseline allows.

    Raises:
        InputError: Nothing matches, a device was not measured, an argument is invalid, or a file is damaged.

    Example:
        ```python
        result = edgekit.check("simple_cnn", max_size="500 KB", max_latency_ms={"host": 5.0})
        assert result.passed, [verdict.sentence for verdict in result.failed]
        ```
    """
    from edgekit.session import Session

    with Session(root, on_event=on_event) as session:
        return session.check(
            models,
            framework=framework,
            target=target,
            precision=precision,
            device=device,
            max_size=max_size,
            max_peak_memory=max_peak_memory,
            max_drift=max_drift,
            max_instructions=max_instructions,
            max_latency_ms=max_latency_ms,
            baseline=baseline,
            max_regression=max_regression,
            max_host_regression=max_host_regression,
            max_metric_loss=max_metric_loss,
        )


def load_artifact(path: str | Path) -> Artifact:
    """Load an exported artifact.

    The model files are not read; `Artifact.verified_path` checks their hashes.

    Args:
        path: The artifact's folder, or a file in it.

    Returns:
        The artifact: its folder and its manifest.

    Raises:
        InputError: There is no manifest, or it is invalid.

    Example:
        ```python
        artifact = edgekit.load_artifact("build/net/torch/tflite-int8")
        print(artifact.label, artifact.manifest.route)
        ```
    """
    from pathlib import Path

    from edgekit.core.records.artifact import load_artifact

    folder = Path(path)
    return load_artifact(folder.parent if folder.is_file() else folder)


def quantization_aware(
    model: keras.Model,
    samples: Array | Sequence[Array] | Mapping[str, Array],
    *,
    per_tensor: bool = False,
    learned_ranges: bool = False,
) -> AbstractContextManager[QuantizationAware]:
    """Let a Keras model compute with int8 rounding within a `with` block, in which it is trained.

    Weights of convolutions and dense layers are rounded as they are behind a folded batch norm, activations where the
    converted file has a tensor. Gradients pass straight through the rounding. Which layers are fused is read from the
    graph of functional and sequential models; a model with a `call` of its own is rounded behind each layer.

    Args:
        model: The trained, built model. Compile it within the block.
        samples: Inputs that the first ranges of activations are taken from, shape `(N, ...)`: what `model` is called
            with.
        per_tensor: Whether each weight has one scale, instead of one for each output channel.
        learned_ranges: Whether the ranges of activations are trained; otherwise they are moving averages. Behind the
            block the model has to be compiled again.

    Returns:
        A context manager. Behind the block the model is an ordinary float model, which every target takes.

    Raises:
        InputError: The model is not built, or has no layer whose weights can be rounded.

    Example:
        ```python
        with edgekit.quantization_aware(model, images[:256]):
            model.compile("adam", "sparse_categorical_crossentropy")
            model.fit(images, labels, epochs=1)
        model.save("net.keras")
        ```
    """
    from edgekit.training import _keras_qat

    return _keras_qat.quantization_aware(model, samples, per_tensor=per_tensor, learned_ranges=learned_ranges)

"""Keras models in every usual form, which the tests of the source kind save, import and convert in workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.events import Listener


def _dense(units: int, seed: int, **options: Any) -> Any:
    import keras

    return keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed), **options)


def _functional(outputs: Callable[[Any, Any], Any], name: str = "x") -> Any:
    """Return a model of one input; `outputs` gets it with a hidden tensor."""
    import keras

    x = keras.Input((4,), name=name)
    return keras.Model(x, outputs(x, _dense(3, 1, name="d")(x)))


def _with_input(call: bool = False) -> Any:
    import keras

    model = keras.Sequential([keras.Input((4,), name="x"), _dense(5, 1), keras.Sequential([_dense(3, 2)], name="y")])
    if call:
        model.compile("sgd", "mse")
        model.train_on_batch(np.zeros((7, 4), np.float32), np.zeros((7, 3), np.float32))
    return model


def _without_input() -> Any:
    import keras

    model = keras.Sequential([_dense(3, 1, name="y")])
    model(np.zeros((7, 4), np.float32))
    return model


def _several_inputs() -> Any:
    import keras

    z, a = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    return keras.Model({"zeta": z, "alpha": a}, {"last": _dense(2, 1)(z), "first": {"b": [_dense(3, 2)(a), a]}})


def _awkward_names() -> Any:
    import keras

    inputs = [keras.Input((4,), name=name) for name in ("a b", "a.b", "größe:0")]
    outputs = [
        _dense(3, seed, name=name)(x) for seed, (x, name) in enumerate(zip(inputs, ("o 1", "o.1", "结果"), strict=True))
    ]
    return keras.Model(inputs, outputs)


def _of_policy(policy: str) -> Any:
    import keras

    x = keras.Input((4, 3), name="x", dtype=policy if policy in ("float16", "float64") else None)
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(3, dtype=policy, seed=1), dtype=policy)(x)
    return keras.Model(x, _dense(2, 1, dtype=policy, name="y")(hidden))


def _int8() -> Any:
    import keras

    x = keras.Input((16,), name="x")
    model = keras.Model(x, _dense(4, 1, name="head")(x))
    model.quantize("int8")
    return model


def _lookup() -> Any:
    import keras

    x = keras.Input((1,), dtype="int64", name="code")
    table = keras.layers.IntegerLookup(vocabulary=[12, 36], output_mode="one_hot", name="table")
    return keras.Model(x, _dense(2, 1)(table(x)))


_MODELS: dict[str, Callable[[], Any]] = {
    "with input": _with_input,
    "trained": lambda: _with_input(call=True),
    "without input": _without_input,
    "several inputs": _several_inputs,
    "twice and passed through": lambda: _functional(lambda x, d: [d, x, d]),
    "equal names": lambda: _functional(lambda x, d: {"x": d}),
    "awkward names": _awkward_names,
    "int8": _int8,
    "lookup": _lookup,
}


def _saved(kind: str, path: Path) -> Any:
    """Save a model and return it."""
    model = _of_policy(kind) if "float" in kind else _MODELS[kind]()
    model.save(path)
    return model


def _tensors(signature: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {spec.name: rng.normal(size=(5, *spec.shape[1:])).astype(spec.dtype) for spec in signature.inputs}


def _imported(path: Path, folder: Path) -> Any:
    """Import a file as `edgekit export` does and load it."""
    from edgekit.contracts.source import UserModel
    from edgekit.sources.keras import SOURCE

    file, signature = SOURCE.import_model(UserModel(path), folder)
    return SOURCE.load(folder / file, signature, None)


def imported_keras(kind: str, path: str, *, emit: Listener) -> dict[str, Any]:
    """Save and import a model; return its signature, its notes and how far it is from the model that was saved."""
    from keras import tree

    model = _saved(kind, Path(path))
    with tempfile.TemporaryDirectory() as folder:
        loaded = _imported(Path(path), Path(folder))
    inputs = _tensors(loaded.signature)
    outputs = loaded.run(inputs)
    wide = loaded.run_float64(inputs)
    arguments: Any = list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
    truth = model(inputs if kind == "several inputs" else arguments, training=False)
    flat = tree.flatten(truth)  # sorted by key: compared by shape and value, whatever the order
    error = max(
        min(
            (float(np.abs(np.asarray(t, np.float64) - output).max()) for t in flat if tuple(t.shape) == output.shape),
            default=np.inf,
        )
        for output in outputs.values()
    )
    assert wide is not None
    return {
        "signature": [str(spec) for spec in (*loaded.signature.inputs, *loaded.signature.outputs)],
        "notes": list(loaded.notes),
        "error": error,
        "rounding": max(float(np.abs(wide[name] - output).max()) for name, output in outputs.items()),
    }


def converted_keras(kind: str, path: str, variant: str, *, emit: Listener) -> dict[str, float]:
    """Convert a model and run the file; return the largest error of each output."""
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.contracts.target import TARGETS, ConversionRequest

    _saved(kind, Path(path))
    target = TARGETS.load(variant.partition(":")[0])
    with tempfile.TemporaryDirectory() as folder:
        loaded = _imported(Path(path), Path(folder))
        inputs = _tensors(loaded.signature)
        expected = loaded.run(inputs)
        sizes = {} if target.symbolic else {"batch": 1}
        request = ConversionRequest(variant.partition(":")[2], Path(folder), inputs, {}, None)
        converted = target.convert(loaded.at(loaded.signature.sized(sizes), {}), request)
        session = RUNTIMES.load(target.runtime).open(
            Path(folder, converted.file), threads=1, signature=converted.signature
        )
        actual = session.infer(inputs)
    return {name: float(np.abs(actual[name] - array).max()) for name, array in expected.items()}


def imported_code(form: str, folder: str, *, emit: Listener) -> dict[str, Any]:
    """Import a subclassed model that is built by code and takes its two inputs in some form."""
    import keras

    from edgekit.contracts.source import UserModel
    from edgekit.sources.keras import SOURCE

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = _dense(2, 1), _dense(3, 2)

        def heads(self, left: Any, right: Any) -> Any:
            return {"z_class": self.left(left), "a_box": (self.right(right), None)}

    class Arguments(Net):
        def call(self, right: Any, left: Any, training: bool = False) -> Any:
            return self.heads(left, right)

    class Dictionary(Net):
        def call(self, inputs: Any) -> Any:
            return self.heads(inputs["left"], inputs["right"])

    class Sequence(Net):
        def call(self, inputs: Any) -> Any:
            left, right = inputs
            return self.heads(left, right)

    build = {"arguments": Arguments, "dict": Dictionary, "list": Sequence}[form]
    rng = np.random.default_rng(0)
    examples = {name: rng.normal(size=(5, 4)).astype(np.float32) for name in ("left", "right")}
    file, signature = SOURCE.import_model(UserModel(None, build, examples=examples), Path(folder))
    loaded = SOURCE.load(Path(folder, file), signature, build)
    left, right = loaded.model.left.kernel.numpy(), loaded.model.right.kernel.numpy()
    outputs = loaded.run(examples)
    return {
        "outputs": list(outputs),
        "error": max(
            float(np.abs(outputs["z_class"] - examples["left"] @ left).max()),
            float(np.abs(outputs["a_box_0"] - examples["right"] @ right).max()),
        ),
    }


def save_images(path: str, *, emit: Listener) -> dict[str, Any]:
    """Save a model of what Keras's torch backend computes otherwise; return its inputs and outputs."""
    import keras

    layers = keras.layers
    x = keras.Input((9, 6, 2), name="x")
    outputs = {
        "average": layers.AveragePooling2D(3, strides=2, padding="same", name="a.b")(x),
        "average1": layers.AveragePooling1D(2, strides=1, padding="same")(layers.Reshape((54, 2))(x)),
        "larger": layers.UpSampling2D(2, interpolation="bicubic")(x),
        "smaller": layers.Resizing(5, 4, interpolation="bicubic")(x),
        "dense": layers.Dense(2, name="größe.1")(x),
    }
    model = keras.Model(x, outputs)
    model.save(path)
    inputs = np.random.default_rng(0).normal(size=(3, 9, 6, 2)).astype(np.float32)
    return {"inputs": inputs, "outputs": {name: np.asarray(value) for name, value in model(inputs).items()}}


def bridge_images(path: str, inputs: Any, mended: bool, *, emit: Listener) -> dict[str, Any]:
    """Load the model on the torch backend, with or without the workarounds, and return its outputs."""
    import contextlib

    import torch

    from edgekit.core.values.specs import Signature, TensorSpec
    from edgekit.sources.bridges import keras_to_torch

    names = ("average", "average1", "larger", "smaller", "dense")
    signature = Signature(
        (TensorSpec("x", (3, 9, 6, 2), "float32"),), tuple(TensorSpec(name, (3,), "float32") for name in names)
    )
    original = keras_to_torch.torch_backend_mended
    if not mended:
        keras_to_torch.torch_backend_mended = contextlib.nullcontext  # type: ignore[assignment]
    try:
        loaded = keras_to_torch.BRIDGE.load(Path(path), signature, None)
    finally:
        keras_to_torch.torch_backend_mended = original
    outputs = loaded.model(torch.from_numpy(inputs))
    return dict(zip(names, (output.numpy() for output in outputs), strict=True))


def keras_2_file(path: str, version: str, *, emit: Listener) -> None:
    """Write an .h5 as Keras 2 writes a model that calls a TensorFlow function, with the version that it records."""
    import json

    import h5py

    layers = [
        {"class_name": "TFOpLambda", "name": "tf.nn.relu", "config": {"function": "nn.relu"}, "inbound_nodes": []}
    ]
    config = {"class_name": "Functional", "config": {"name": "model", "layers": layers}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps(config)


def weights_file(path: str, *, emit: Listener) -> None:
    """Write an .h5 with weights and no network."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("dense")


def load_file(path: str, *, emit: Listener) -> None:
    """Load a file."""
    from edgekit.sources._keras_file import load_model

    load_model(Path(path), None, ())


def backend_faults(*, emit: Listener) -> dict[str, float]:
    """Return how far Keras's torch backend is from the workarounds, by function."""
    import torch
    from keras import ops

    from edgekit.sources.bridges._keras_backend import torch_backend_mended

    images = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 8, 6, 2)).astype(np.float32))

    def results() -> dict[str, Any]:
        return {
            "average_pool": ops.average_pool(images, 3, 2, "same"),
            "resize": ops.image.resize(images, (5, 4), interpolation="bicubic"),
        }

    own = results()
    with torch_backend_mended():
        mended = results()
    return {name: float((own[name] - mended[name]).abs().max()) for name in own}


def unnamed_output(folder: str, *, emit: Listener) -> dict[str, Any]:
    """Write a file whose list has a copy in place of an output, and another without a name; mend and run it."""
    import keras

    from edgekit.contracts.target import ConversionRequest
    from edgekit.core.values.specs import Signature, TensorSpec
    from edgekit.runtimes.litert import RUNTIME
    from edgekit.sources.keras import LoadedKeras
    from edgekit.targets._tflite import from_keras
    from edgekit.tflite_files import graph

    x = keras.Input((6,), name="x")
    y = _dense(3, 1, name="y")(x)
    outputs = tuple(TensorSpec(name, (1, 3), "float32") for name in ("copy", "other", "y"))
    signature = Signature((TensorSpec("x", (1, 6), "float32"),), outputs)
    loaded = LoadedKeras(keras.Model(x, {"copy": -y, "other": keras.ops.exp(x[:, :3]), "y": y}), signature)
    path = Path(folder, "model.tflite")
    path.write_bytes(from_keras.convert(loaded, ConversionRequest("float32", Path(folder), None, {}, None)))
    assert graph.restore_outputs(path.read_bytes()) == path.read_bytes()
    model = graph.parse_content(path.read_bytes())
    definition = model.signatureDefs[0]
    indices = {graph.text(entry.name): entry.tensorIndex for entry in definition.outputs}
    definition.outputs = [entry for entry in definition.outputs if graph.text(entry.name) == "y"]
    model.subgraphs[0].outputs = [indices["copy"], indices["other"]]
    path.write_bytes(graph.pack(model))
    before = len(graph.read_signature(path).outputs)
    path.write_bytes(graph.restore_outputs(path.read_bytes()))
    inputs = {"x": np.ones((1, 6), np.float32)}
    results = RUNTIME.open(path, threads=1).infer(inputs)
    return {
        "before": before,
        "after": list(results),
        "error": float(np.abs(results["y"] - loaded.run(inputs)["y"]).max()),
    }

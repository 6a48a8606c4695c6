"""Functions that the tests of sources run in workers: they write model files, and manipulate them into attacks."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

from edgekit.core.events import Listener

# Records that PyTorchFileWriter adds itself; writing them again would be an error.
_WRITER_RECORDS = (".data/version", "version", "byteorder", ".data/serialization_id")


class Touch:
    """An object that creates a file when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.command = f"touch '{marker}'"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def program(path: str, *, emit: Listener) -> list[str]:
    """Save an exported program with a dynamic batch, a buffer and shape arithmetic; return the names of its records."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)
            self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.linear(x)) * self.scale * (x.shape[0] + 1)

    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(Net().eval(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path)
    return list(_records(path))


def _records(path: str) -> dict[str, bytes]:
    import torch

    reader = torch._C.PyTorchFileReader(path)
    return {name: reader.get_record(name) for name in reader.get_all_records() if name not in _WRITER_RECORDS}


def _write(path: str, records: dict[str, bytes]) -> None:
    import torch

    writer = torch._C.PyTorchFileWriter(path)
    for name, content in records.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def plant_pickle(source: str, path: str, record: str, marker: str, plain: bool, *, emit: Listener) -> None:
    """Replace a record by a pickle that creates a file when loaded, in PyTorch's zip format or plain."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    content = pickle.dumps(Touch(marker)) if plain else buffer.getvalue()
    _write(path, {**_records(source), record: content})


def plant_constant(source: str, path: str, file: str, marker: str, *, emit: Listener) -> None:
    """Add such a pickle as a constant of the program, in the file that its table of constants names."""
    records = _records(source)
    table = next(name for name in records if name.endswith("_constants_config.json"))
    config = json.loads(records[table])
    config["config"]["planted"] = {"path_name": file, "is_param": False, "use_pickle": True, "tensor_meta": None}
    records[table] = json.dumps(config).encode()
    records[f"data/constants/{file}"] = pickle.dumps(Touch(marker))
    _write(path, records)


def plant_record(source: str, path: str, record: str, content: bytes, *, emit: Listener) -> None:
    """Add or replace a record."""
    _write(path, {**_records(source), record: content})


def plant_text(source: str, path: str, key: str, text: str, *, emit: Listener) -> None:
    """Replace the first string under the key in the graph."""
    records = _records(source)
    name = next(record for record in records if record.startswith("models/"))
    graph = json.loads(records[name])
    assert _replace_first(graph, key, text), f"there is no {key} in the graph"
    records[name] = json.dumps(graph).encode()
    _write(path, records)


def rename(source: str, path: str, old: str, new: str, *, emit: Listener) -> None:
    """Replace a text by another wherever it is a key or a value in the program and in the tables of weights."""
    records = _records(source)
    planted = {
        name: json.dumps(_renamed(json.loads(content), old, new)).encode() if name.endswith(".json") else content
        for name, content in records.items()
    }
    assert planted != records, f"{old} is not in the file"
    _write(path, planted)


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {_renamed(key, old, new): _renamed(child, old, new) for key, child in value.items()}
    if isinstance(value, list):
        return [_renamed(child, old, new) for child in value]
    return new if value == old else value


def plant_value(source: str, path: str, keys: list[str | int], value: Any, *, emit: Listener) -> None:
    """Replace or add a value in the program, at a path of keys and indices."""
    records = _records(source)
    name = next(record for record in records if record.startswith("models/"))
    graph = json.loads(records[name])
    target = graph
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    records[name] = json.dumps(graph).encode()
    _write(path, records)


def plant_argument(source: str, path: str, text: str, *, emit: Listener) -> None:
    """Replace the first argument of the graph's first operator by a function."""
    records = _records(source)
    name = next(record for record in records if record.startswith("models/"))
    graph = json.loads(records[name])
    graph["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": text}
    records[name] = json.dumps(graph).encode()
    _write(path, records)


def _replace_first(value: Any, key: str, text: str) -> bool:
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            value[key] = text
            return True
        return any(_replace_first(child, key, text) for child in value.values())
    return isinstance(value, list) and any(_replace_first(child, key, text) for child in value)


def load_program(path: str, *, emit: Listener) -> list[list[float]]:
    """Return the program's output for a batch of 3 samples of ones."""
    import torch

    from edgekit.sources._exported import load_program as load

    result: list[list[float]] = load(Path(path)).module()(torch.ones(3, 4)).tolist()
    return result


def load_unguarded(path: str, *, emit: Listener) -> None:
    """Load and run the program with PyTorch's own loader, without edgekit's checks."""
    import contextlib

    import torch

    with contextlib.suppress(Exception):  # an attack may have been executed all the same
        torch.export.load(path).module()(torch.ones(3, 4))


def functional_keras(path: str, *, emit: Listener) -> None:
    """Save a functional model with two inputs and two outputs."""
    import keras

    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    both = keras.layers.Concatenate()([left, right])
    outputs = {"sum": keras.layers.Dense(2, name="sum")(both), "product": keras.layers.Dense(3, name="product")(both)}
    keras.Model([left, right], list(outputs.values())).save(path)


def lambda_keras(path: str, marker: str, *, emit: Listener) -> None:
    """Save a model with a Lambda layer that creates a file when it runs."""
    import keras

    x = keras.Input((4,), name="x")
    touch = lambda tensor: (__import__("os").system(f"touch '{marker}'"), tensor * 2)[1]  # noqa: E731
    keras.Model(x, keras.layers.Lambda(touch, output_shape=(4,))(x)).save(path)
    Path(marker).unlink(missing_ok=True)  # Keras ran the layer once, to build the model


def custom_keras(path: str, *, emit: Listener) -> None:
    """Save a model with a custom layer."""
    import keras

    class Twice(keras.layers.Layer):
        def call(self, tensor: Any) -> Any:
            return tensor * 2

    x = keras.Input((4,), name="x")
    keras.Model(x, Twice()(x)).save(path)


def saved_model(folder: str, kind: str, file: str = "", *, emit: Listener) -> None:
    """Save a SavedModel.

    `kind` is `plain`, `other` (one signature of another name), `several`, `none` (no signature), or the name of a body
    that accesses a file.
    """
    import tensorflow as tf

    net = tf.Module()
    net.weight = tf.Variable(tf.eye(3))

    def after(operation: Any, x: Any) -> Any:
        with tf.control_dependencies([operation]):
            return x * 2

    bodies = {
        "double": lambda x: tf.matmul(x, net.weight) * 2,
        "triple": lambda x: tf.matmul(x, net.weight) * 3,
        "words": tf.strings.as_string,
        "reading": lambda x: x + tf.cast(tf.strings.length(tf.io.read_file(file)), tf.float32),
        "writing": lambda x: after(tf.io.write_file(file, "written"), x),
        "printing": lambda x: after(tf.print("x", output_stream=f"file://{file}"), x),
        "saving": lambda x: after(tf.raw_ops.Save(filename=file, tensor_names=["x"], data=[x]), x),
        "lines": lambda x: x + tf.data.TextLineDataset(file).reduce(0.0, lambda total, line: total + 1.0),
    }
    several = {"double": "double", "triple": "triple"}
    signatures = {
        "plain": {"serving_default": "double", "triple": "triple"},
        "other": {"double": "double"},
        "several": several,
        "none": {},
    }.get(kind, {"serving_default": kind})
    signature = [tf.TensorSpec([None, 3], tf.float32, name="x")]

    def served(body: Any) -> Any:
        return tf.function(lambda x: {"y": body(x)}, input_signature=signature, autograph=False)

    functions = {name: served(bodies[body]) for name, body in signatures.items()}
    tf.saved_model.save(net, folder, signatures=functions or None)


def load_keras(path: str, *, emit: Listener) -> list[str]:
    """Return the inputs and outputs of a Keras file."""
    from edgekit.sources._keras_file import load_model
    from edgekit.sources.keras import signature

    described = signature(load_model(Path(path), None, ()))
    assert described is not None
    return [str(spec) for spec in (*described.inputs, *described.outputs)]


def run_saved_model(path: str, folder: str, chosen: str | None = None, *, emit: Listener) -> dict[str, Any]:
    """Import a signature of a SavedModel and return its outputs for ones."""
    import numpy as np

    from edgekit.contracts.source import UserModel
    from edgekit.sources.saved_model import SOURCE

    file, signature = SOURCE.import_model(UserModel(Path(path), signature=chosen), Path(folder))
    loaded = SOURCE.load(Path(folder, file), signature, None)
    return {name: array.tolist() for name, array in loaded.run({"x": np.ones((2, 3), np.float32)}).items()}


def plant_call(source: str, path: str, marker: str, *, emit: Listener) -> None:
    """Turn the last operator into a higher-order one with an argument whose name is Python code."""
    records = _records(source)
    name = next(record for record in records if record.startswith("models/"))
    graph = json.loads(records[name])
    node = graph["graph_module"]["graph"]["nodes"][-1]
    code = f"a = __import__('os').system('touch {marker}'), b"
    node["target"] = "torch.ops.higher_order.cond"
    node["inputs"] = [{"name": code, "arg": {"as_int": 0}, "kind": 2}]
    node["is_hop_single_tensor_return"] = True
    records[name] = json.dumps(graph).encode()
    _write(path, records)

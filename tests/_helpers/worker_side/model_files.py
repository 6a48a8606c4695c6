"""Functions that the tests of sources send to workers: what makes files, and what plants attacks in them."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

from edgekit.core.events import Listener

_WRITTEN_BY_THE_WRITER = (".data/version", "version", "byteorder", ".data/serialization_id")


class Touch:
    """Whoever unpickles this makes a file."""

    def __init__(self, marker: str) -> None:
        self.command = f"touch '{marker}'"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def program(path: str, *, emit: Listener) -> list[str]:
    """An exported program with a dynamic batch, a scale and a sum of sizes; the names of its records."""
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
    made = torch.export.export(Net().eval(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(made, path)
    return list(_records(path))


def _records(path: str) -> dict[str, bytes]:
    import torch

    reader = torch._C.PyTorchFileReader(path)
    return {name: reader.get_record(name) for name in reader.get_all_records() if name not in _WRITTEN_BY_THE_WRITER}


def _write(path: str, records: dict[str, bytes]) -> None:
    import torch

    writer = torch._C.PyTorchFileWriter(path)
    for name, content in records.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def plant_pickle(source: str, path: str, record: str, marker: str, plain: bool, *, emit: Listener) -> None:
    """Puts a pickle that makes a file into a record: in PyTorch's zip format, or plain."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    content = pickle.dumps(Touch(marker)) if plain else buffer.getvalue()
    _write(path, {**_records(source), record: content})


def plant_constant(source: str, path: str, file: str, marker: str, *, emit: Listener) -> None:
    """The same as a constant of the program, in the file that its table of constants names."""
    records = _records(source)
    table = next(name for name in records if name.endswith("_constants_config.json"))
    config = json.loads(records[table])
    config["config"]["planted"] = {"path_name": file, "is_param": False, "use_pickle": True, "tensor_meta": None}
    records[table] = json.dumps(config).encode()
    records[f"data/constants/{file}"] = pickle.dumps(Touch(marker))
    _write(path, records)


def plant_record(source: str, path: str, record: str, content: bytes, *, emit: Listener) -> None:
    """Puts a record of that content into the file."""
    _write(path, {**_records(source), record: content})


def plant_text(source: str, path: str, key: str, text: str, *, emit: Listener) -> None:
    """Puts a text into the graph, at the first place of that key."""
    records = _records(source)
    name = next(item for item in records if item.startswith("models/"))
    graph = json.loads(records[name])
    assert _replace_first(graph, key, text), f"there is no {key} in the graph"
    records[name] = json.dumps(graph).encode()
    _write(path, records)


def plant_argument(source: str, path: str, text: str, *, emit: Listener) -> None:
    """Hands the first operator of the graph a function as its first argument."""
    records = _records(source)
    name = next(item for item in records if item.startswith("models/"))
    graph = json.loads(records[name])
    graph["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": text}
    records[name] = json.dumps(graph).encode()
    _write(path, records)


def _replace_first(value: Any, key: str, text: str) -> bool:
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            value[key] = text
            return True
        return any(_replace_first(item, key, text) for item in value.values())
    return isinstance(value, list) and any(_replace_first(item, key, text) for item in value)


def load_program(path: str, *, emit: Listener) -> list[list[float]]:
    """What the program in the file computes for ones of batch 3."""
    import torch

    from edgekit.sources._exported import load_program as load

    result: list[list[float]] = load(Path(path)).module()(torch.ones(3, 4)).tolist()
    return result


def load_unguarded(path: str, *, emit: Listener) -> None:
    """What PyTorch itself does with the file."""
    import torch

    torch.export.load(path)


def functional_keras(path: str, *, emit: Listener) -> None:
    """Two inputs, two outputs."""
    import keras

    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    both = keras.layers.Concatenate()([left, right])
    outputs = {"sum": keras.layers.Dense(2, name="sum")(both), "product": keras.layers.Dense(3, name="product")(both)}
    keras.Model([left, right], list(outputs.values())).save(path)


def lambda_keras(path: str, marker: str, *, emit: Listener) -> None:
    """A model whose layer makes a file when it runs."""
    import keras

    x = keras.Input((4,), name="x")
    touch = lambda tensor: (__import__("os").system(f"touch '{marker}'"), tensor * 2)[1]  # noqa: E731
    keras.Model(x, keras.layers.Lambda(touch, output_shape=(4,))(x)).save(path)
    Path(marker).unlink(missing_ok=True)


def custom_keras(path: str, *, emit: Listener) -> None:
    """A model with a layer that only its code knows."""
    import keras

    class Twice(keras.layers.Layer):
        def call(self, tensor: Any) -> Any:
            return tensor * 2

    x = keras.Input((4,), name="x")
    keras.Model(x, Twice()(x)).save(path)


def saved_model(folder: str, kind: str, file: str = "", *, emit: Listener) -> None:
    """A SavedModel: `plain`, `other` (one signature of another name), `several`, `none`, or one that reaches out."""
    import tensorflow as tf

    net = tf.Module()
    net.weight = tf.Variable(tf.eye(3))

    def after(operation: Any, x: Any) -> Any:
        with tf.control_dependencies([operation]):
            return x * 2

    bodies = {
        "double": lambda x: tf.matmul(x, net.weight) * 2,
        "triple": lambda x: tf.matmul(x, net.weight) * 3,
        "reading": lambda x: x + tf.cast(tf.strings.length(tf.io.read_file(file)), tf.float32),
        "writing": lambda x: after(tf.io.write_file(file, "written"), x),
        "printing": lambda x: after(tf.print("x", output_stream=f"file://{file}"), x),
        "saving": lambda x: after(tf.raw_ops.Save(filename=file, tensor_names=["x"], data=[x]), x),
        "lines": lambda x: x + tf.data.TextLineDataset(file).reduce(0.0, lambda total, line: total + 1.0),
    }
    several = {"double": "double", "triple": "triple"}
    wanted = {
        "plain": {"serving_default": "double", "triple": "triple"},
        "other": {"double": "double"},
        "several": several,
        "none": {},
    }.get(kind, {"serving_default": kind})
    signature = [tf.TensorSpec([None, 3], tf.float32, name="x")]

    def served(body: Any) -> Any:
        return tf.function(lambda x: {"y": body(x)}, input_signature=signature, autograph=False)

    functions = {name: served(bodies[body]) for name, body in wanted.items()}
    tf.saved_model.save(net, folder, signatures=functions or None)


def load_keras(path: str, *, emit: Listener) -> list[str]:
    """The names of a Keras file's inputs and outputs."""
    from edgekit.sources._keras_file import load_model
    from edgekit.sources.keras import signature

    found = signature(load_model(Path(path), None, ()))
    assert found is not None
    return [str(spec) for spec in (*found.inputs, *found.outputs)]


def run_saved_model(path: str, folder: str, *, emit: Listener) -> dict[str, Any]:
    """What a SavedModel computes for ones, once it is taken in."""
    import numpy as np

    from edgekit.contracts.source import UserModel
    from edgekit.sources.saved_model import SOURCE

    file, signature = SOURCE.import_model(UserModel(Path(path)), Path(folder))
    loaded = SOURCE.load(Path(folder, file), signature, None)
    return {name: array.tolist() for name, array in loaded.run({"x": np.ones((2, 3), np.float32)}).items()}


def plant_call(source: str, path: str, marker: str, *, emit: Listener) -> None:
    """Makes the last operator a higher-order one, with an argument whose name is Python code."""
    records = _records(source)
    name = next(item for item in records if item.startswith("models/"))
    graph = json.loads(records[name])
    node = graph["graph_module"]["graph"]["nodes"][-1]
    code = f"a = __import__('os').system('touch {marker}'), b"
    node["target"] = "torch.ops.higher_order.cond"
    node["inputs"] = [{"name": code, "arg": {"as_int": 0}, "kind": 2}]
    node["is_hop_single_tensor_return"] = True
    records[name] = json.dumps(graph).encode()
    _write(path, records)

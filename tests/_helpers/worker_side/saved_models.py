"""SavedModels for the tests of their checks: ordinary ones, and ones that act when TensorFlow loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.core.events import Listener


def ordinary(folder: str, kind: str, *, emit: Listener) -> None:
    """Save a SavedModel of `kind`: `tables`, `lstm` (exported by Keras) or `tensorflow1`."""
    {"tables": _tables, "lstm": _lstm, "tensorflow1": _tensorflow1}[kind](Path(folder))


def _tables(folder: Path) -> None:
    """A table from an asset, a table with restored entries, and containers: all have functions that loading calls."""
    import tensorflow as tf

    class Net(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            lines = tf.lookup.TextFileIndex
            words = folder.with_name("words.txt")
            words.write_text("zero\none\ntwo\n")
            words_of = tf.lookup.TextFileInitializer(
                str(words), tf.int64, lines.LINE_NUMBER, tf.string, lines.WHOLE_LINE
            )
            self.words = tf.lookup.StaticHashTable(words_of, "")
            self.lengths = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0)
            self.lengths.insert(["one"], [3.0])
            self.variables_of = {"list": [tf.Variable(1.0)], "tuple": (tf.Variable(2.0),)}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")], autograph=False)
        def serve(self, x: Any) -> dict[str, Any]:
            lengths = self.lengths.lookup(self.words.lookup(tf.cast(x, tf.int64)))
            return {"y": tf.ensure_shape(lengths * self.variables_of["tuple"][0], [None, 3])}

    net = Net()
    tf.saved_model.save(net, str(folder), signatures=net.serve)


def _lstm(folder: Path) -> None:
    import keras

    x = keras.Input((3,), name="x")
    states = keras.layers.LSTM(4)(keras.layers.Reshape((3, 1))(x))
    keras.Model(x, keras.layers.BatchNormalization(name="y")(states)).export(folder, verbose=False)


def with_objects(folder: str, kind: str, *, emit: Listener) -> None:
    """Save the network y = W x + b, whose W has the values 0 to 5, held in an object of `kind`."""
    import keras
    import numpy as np
    import tensorflow as tf

    x = keras.Input((3,), name="x")
    network = keras.Model(x, keras.layers.Dense(2, name="y")(x))
    network.layers[-1].set_weights([np.arange(6, dtype=np.float32).reshape(3, 2), np.ones(2, np.float32)])
    taken = tf.TensorSpec([None, 3], tf.float32, name="x")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            kernel, bias = network.layers[-1].get_weights()
            self.kernel, self.bias = tf.Variable(kernel, name="kernel"), tf.Variable(bias, name="bias")
            self.unused = tf.Variable(tf.zeros(100), name="unused")

        @tf.function(input_signature=[taken])
        def serve(self, x: Any) -> dict[str, Any]:
            return {"y": x @ self.kernel + self.bias}

    class Holder(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        @tf.function(input_signature=[taken])
        def serve(self, x: Any) -> dict[str, Any]:
            return {"y": self.network(x)}

    if kind == "keras":
        tf.saved_model.save(network, folder)
        return
    saved: Any = Holder() if kind == "holder" else Module()
    if kind == "checkpoint":
        module, saved = saved, tf.train.Checkpoint()
        saved.function = tf.function(lambda x: {"y": x @ module.kernel + module.bias}, input_signature=[taken])
        saved.kept = [module.kernel, module.bias]
        tf.saved_model.save(saved, folder, signatures=saved.function)
        return
    if kind == "optimizer":
        # Its class is not registered either, and it has slots like the optimizers of Keras 2. A step of size 0.
        saved.optimizer = tf.compat.v1.train.AdamOptimizer(0.0)
        saved.optimizer.apply_gradients([(tf.ones_like(saved.kernel), saved.kernel)])
    tf.saved_model.save(saved, folder, signatures=saved.serve)


def _tensorflow1(folder: Path, initializer: Callable[[], Any] | None = None) -> None:
    """A model of TensorFlow 1: a table from an asset, and two savers, as training scripts leave behind."""
    import tensorflow as tf

    v1 = tf.compat.v1
    words = folder.with_name("words.txt")
    words.write_text("zero\none\ntwo\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        lines = tf.lookup.TextFileIndex
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(str(words), tf.string, lines.WHOLE_LINE, tf.int64, lines.LINE_NUMBER), -1
        )
        weight = v1.get_variable("weight", initializer=2.0)
        y = x * weight * tf.cast(table.lookup(tf.constant("one")), tf.float32)
        v1.train.Saver()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        main = tf.group(v1.tables_initializer(), *([initializer()] if initializer else []))
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, assets_collection=assets, main_op=main
        )
        builder.save()


def acting(folder: str, kind: str, file: str, *, emit: Listener) -> None:
    """Save a SavedModel that reads or writes `file` when it is loaded: in an initializer, unless `kind` says else.

    Raises:
        KeyError: There is no such kind.
    """
    import tensorflow as tf
    from tensorflow.python.trackable.resource import TrackableResource

    raw = tf.raw_ops
    path = Path(folder)
    actions: dict[str, Callable[[], Any]] = {
        "save": lambda: raw.SaveV2(prefix=file, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.zeros(1)]),
        "restore": lambda: raw.RestoreV2(
            prefix=file, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
        ),
        "merge": lambda: raw.MergeV2Checkpoints(
            checkpoint_prefixes=[file], destination_prefix=file, delete_old_dirs=False
        ),
        "write": lambda: tf.io.write_file(file, "written"),
        "vocabulary": lambda: raw.GenerateVocabRemapping(
            new_vocab_file=file, old_vocab_file=file, new_vocab_offset=0, num_new_vocab=1
        ),
        "sampler": lambda: raw.FixedUnigramCandidateSampler(
            true_classes=[[0]], num_true=1, num_sampled=1, unique=True, range_max=2, vocab_file=file
        ),
        "descriptor": lambda: raw.DecodeProtoV2(
            bytes=[b""], message_type="m", field_names=["f"], output_types=[tf.float32], descriptor_source=file
        ),
        "text table": lambda: raw.InitializeTableFromTextFileV2(
            table_handle=raw.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64), filename=file, key_index=-2,
            value_index=-1,
        ),
        "python": lambda: tf.numpy_function(lambda: Path(file).touch(), [], []),
    }  # fmt: skip
    if kind == "tensorflow1":
        return _tensorflow1(path, actions["save"])
    if kind == "restorer":  # the saver's own operator for restoring writes first
        _tensorflow1(path)
        return _edit(path, lambda graph: _save_before_restoring(graph, file))

    class Acting(TrackableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return raw.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="table")

        def _initialize(self) -> None:
            if tf.inside_function():  # while it is traced for the file; not when this module is created
                # TensorFlow leaves out some operators that nothing depends on.
                with tf.control_dependencies(tf.nest.flatten(actions[kind]())[:1]):
                    raw.Assert(condition=True, data=["done"])

    net = tf.Module()
    net.resource = Acting()
    net.weight = tf.Variable(tf.eye(3))
    signature = [tf.TensorSpec([None, 3], tf.float32, name="x")]

    def serve(x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(x, net.weight)}

    tf.saved_model.save(net, folder, signatures=tf.function(serve, input_signature=signature, autograph=False))
    return None


def _save_before_restoring(graph: Any, file: str) -> None:
    from tensorflow.core.framework import types_pb2

    nodes = {node.name: node for node in graph.graph_def.node}
    prefix = graph.graph_def.node.add(name="prefix", op="Const")
    prefix.attr["dtype"].type = types_pb2.DT_STRING
    prefix.attr["value"].tensor.dtype = types_pb2.DT_STRING
    prefix.attr["value"].tensor.string_val.append(file.encode())
    prefix.attr["value"].tensor.tensor_shape.SetInParent()
    save = graph.graph_def.node.add()
    save.CopyFrom(next(node for node in graph.graph_def.node if node.op == "SaveV2"))
    save.name, save.input[0] = "save_again", "prefix"
    nodes[graph.saver_def.restore_op_name].input.append("^save_again")


def edit(folder: str, change: str, *, emit: Listener) -> None:
    """Change the file of a SavedModel, as an attacker would; `change` is a name in `_CHANGES`."""
    _edit(Path(folder), _CHANGES[change])


def _edit(folder: Path, change: Callable[[Any], None]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())


def _asset(name: str) -> Callable[[Any], None]:
    return lambda graph: setattr(graph.asset_file_def[0], "filename", name)


def _call_the_saver(graph: Any) -> None:
    """The function of the signature calls the function that saves the variables."""
    functions = graph.graph_def.library.function
    save = next(function for function in functions if "SaveV2" in {node.op for node in function.node_def})
    served = next(function for function in functions if "signature_wrapper" in function.signature.name)
    call = next(node for node in served.node_def if node.op == "StatefulPartitionedCall")
    call.attr["f"].func.name = save.signature.name


def _implement_an_interface(graph: Any) -> None:
    functions = graph.graph_def.library.function
    save = next(function for function in functions if "SaveV2" in {node.op for node in function.node_def})
    save.attr["api_implements"].s = b"lstm"


_CHANGES: dict[str, Callable[[Any], None]] = {
    "asset above": _asset("../../secret.txt"),
    "absolute asset": _asset("/etc/hostname"),
    "missing asset": _asset("none.txt"),
    "registered class": lambda graph: setattr(graph.object_graph_def.nodes[0], "registered_name", "custom.Class"),
    "registered saver": lambda graph: setattr(graph.object_graph_def.nodes[0], "registered_saver", "custom.saver"),
    "revived type": lambda graph: setattr(graph.object_graph_def.nodes[0].user_object, "identifier", "custom_type"),
    "unknown operator": lambda graph: setattr(graph.graph_def.node.add(name="new"), "op", "NotAnOperator"),
    "call of the saver": _call_the_saver,
    "interface of the saver": _implement_an_interface,
}


def operators(*, emit: Listener) -> list[str]:
    """Return the names of all operators that TensorFlow knows here."""
    import keras  # noqa: F401 - it may register operators
    import tensorflow  # noqa: F401
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    registered = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return sorted(operator.name for operator in registered.op)


def run(path: str, folder: str, inputs: list[list[float]], *, emit: Listener) -> dict[str, Any]:
    """Import a SavedModel and return its outputs for the input `x`."""
    import numpy as np

    from edgekit.contracts.source import UserModel
    from edgekit.sources.saved_model import SOURCE

    file, signature = SOURCE.import_model(UserModel(Path(path)), Path(folder))
    loaded = SOURCE.load(Path(folder, file), signature, None)
    return {name: array.tolist() for name, array in loaded.run({"x": np.asarray(inputs, np.float32)}).items()}


def load_unchecked(folder: str, *, emit: Listener) -> None:
    """Load a SavedModel as TensorFlow does."""
    import tensorflow as tf

    tf.saved_model.load(folder)


def describe(path: str, folder: str, inputs: list[list[float]], *, emit: Listener) -> dict[str, Any]:
    """Import and load a SavedModel; return its outputs from the folder and from the copy, and its parameters."""
    import numpy as np

    from edgekit.contracts.source import UserModel
    from edgekit.sources.saved_model import SOURCE

    file, signature = SOURCE.import_model(UserModel(Path(path)), Path(folder))
    array, name, output = np.asarray(inputs, np.float32), signature.inputs[0].name, signature.outputs[0].name
    models = [SOURCE.load(place, signature, None) for place in (Path(path), Path(folder) / file)]
    return {
        "outputs": [model.run({name: array})[output].tolist() for model in models],
        "parameters": {name: list(value.shape) for name, value in models[1].parameters().items()},
    }


def load_error(folder: str, *, emit: Listener) -> str:
    """Return the error with which TensorFlow itself refuses a SavedModel, or an empty text."""
    try:
        load_unchecked(folder, emit=emit)
    except AttributeError as error:
        return str(error)
    return ""

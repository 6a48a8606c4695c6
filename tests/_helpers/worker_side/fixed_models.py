"""Models of TensorFlow whose inputs are fixed: imported, run and converted in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.events import Listener

FIXED = {"scale": 3.0, "flag": True}


def fixed_model(kind: str, folder: str, *, emit: Listener) -> dict[str, Any]:
    """Save a model of x (batch, 4), scale (batch, 1) and flag (), import it with the last two fixed, and convert it.

    Returns:
        The names of the inputs, the notes, and the largest error of the loaded source and of its TFLite file.
    """
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.contracts.source import SOURCES
    from edgekit.contracts.target import TARGETS, ConversionRequest
    from edgekit.core.records import samples
    from edgekit.core.values.file_names import GOLDEN_FILE
    from edgekit.stages.models.import_job import ImportRequest, import_user_model

    path, kernel = _saved(kind, Path(folder))
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(Path(folder, "samples.npz"), x=x)
    place = Path(folder, "source")
    place.mkdir()
    request = ImportRequest(
        "net", kind, folder, str(path), sample=str(Path(folder, "samples.npz")), fixed=FIXED, folder=str(place)
    )
    source = import_user_model(request, emit)
    loaded = SOURCES.load(kind).load(place / source.file, source.all_inputs(source.signature), None)
    loaded = loaded.with_fixed(source.fixed).at(source.signature, source.sizes)
    golden = samples.load(place / GOLDEN_FILE, "golden samples").inputs
    expected = golden["x"] @ kernel * 3 + 1
    target = TARGETS.load("tflite")
    converted = target.convert(
        loaded.at(source.signature.sized({"batch": 1}), {}),
        ConversionRequest("float32", Path(folder), golden, {}, None),
    )
    session = RUNTIMES.load("litert").open(Path(folder, converted.file), threads=1, signature=converted.signature)
    return {
        "inputs": [[spec.name for spec in signature.inputs] for signature in (source.signature, converted.signature)],
        "notes": [note for note in source.notes if "fixed" in note],
        "errors": [
            float(np.abs(next(iter(run(golden).values())) - expected).max()) for run in (loaded.run, session.infer)
        ],
    }


def _saved(kind: str, folder: Path) -> tuple[Path, Any]:
    """Write y = scale * dense(x) + flag; return its path and the weights of the dense layer."""
    import keras
    import tensorflow as tf

    if kind == "keras":
        x, scale = keras.Input((4,), name="x"), keras.Input((1,), name="scale")
        flag = keras.Input(batch_shape=(), dtype="bool", name="flag")
        dense = keras.layers.Dense(3, use_bias=False)
        keras.Model([scale, x, flag], dense(x) * scale + keras.ops.cast(flag, "float32")).save(folder / "net.keras")
        return folder / "net.keras", dense.kernel.numpy()

    class Net(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32))

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 4], tf.float32, name="x"),
                tf.TensorSpec([None, 1], tf.float32, name="scale"),
                tf.TensorSpec([], tf.bool, name="flag"),
            ]
        )
        def serve(self, x: Any, scale: Any, flag: Any) -> Any:
            return {"y": tf.concat([x, scale], 1)[:, :4] @ self.kernel * scale + tf.cast(flag, tf.float32)}

    net = Net()
    tf.saved_model.save(net, str(folder / "net"), signatures=net.serve)
    return folder / "net", net.kernel.numpy()

"""What `edgekit export` costs over the bare converter calls that it makes, imports included on both sides.

`make bench-export`. Both sides start a process, load the same trained Keras model and convert it to the five precisions
of TFLiteConverter; edgekit also isolates, hashes, writes manifests and golden samples. Runs alternate; prints ratios.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
BARE = """
import sys, numpy as np, tensorflow as tf, keras
model = keras.models.load_model(sys.argv[1] + "/model.keras", compile=False)
samples = np.load(sys.argv[1] + "/calibration.npz")["input/image"][:200]
ops = tf.lite.OpsSet
for precision in ("float32", "float16", "dynamic", "int8", "int16x8"):
    archive = keras.export.ExportArchive(); archive.track(model)
    spec = tf.TensorSpec((1, 28, 28, 1), name="image")
    archive.add_endpoint("serve", lambda image: model(image, training=False), [spec])
    archive.write_out(sys.argv[2] + "/saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(sys.argv[2] + "/saved")
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in ("int8", "int16x8"):
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [
            ops.TFLITE_BUILTINS_INT8 if precision == "int8"
            else ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
        converter.inference_input_type = converter.inference_output_type = tf.int8 if precision == "int8" else tf.int16
    open(f"{sys.argv[2]}/{precision}.tflite", "wb").write(converter.convert())
"""
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}


def seconds(command: list[str]) -> float:
    """The wall time of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def main() -> None:
    """Trains once, then times both sides in turn."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        edgekit = [sys.executable, "-P", "-m", "edgekit"]
        seconds([*edgekit, "train", "simple_cnn", "--framework", "keras", "--epochs", "1", "--root", name])
        source = root / "build/simple_cnn/keras/source"
        targets = [f"tflite:{item}" for item in ("float32", "float16", "dynamic", "int8", "int16x8")]
        words = [word for target in targets for word in ("--target", target)]
        ours = [*edgekit, "export", "simple_cnn", "--framework", "keras", *words, "--root", name]
        bare = [sys.executable, "-W", "ignore", "-c", BARE, str(source), str(root / "bare")]
        pairs = []
        for _ in range(ROUNDS):
            shutil.rmtree(root / "bare", ignore_errors=True)
            (root / "bare").mkdir()
            pairs.append((seconds(ours), seconds(bare)))
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(x / y for x, y in pairs)
    print(
        f"five tflite variants: edgekit export {a:.1f} s, bare converter calls {b:.1f} s, ratio {a / b:.3f}"
        f" (pair by pair {ratios[0]:.3f} .. {statistics.median(ratios):.3f} .. {ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()

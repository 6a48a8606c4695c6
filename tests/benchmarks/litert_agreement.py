"""Does `edgekit bench` time what LiteRT's own benchmark times? Side by side on one file, one thread; prints the ratios.

`make bench-litert`. The network is MobileNet v1 1.0 at 224x224 with random weights: long enough for the two decimals
of a millisecond that litert-benchmark prints. Runs alternate, and each tool's median of medians is compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgekit.core.records.samples import Samples
from edgekit.tflite_files.graph import read_signature
from edgekit.workers.environment import Environment
from edgekit.workers.process import run_module

ROUNDS = 7
WARM_UP, RUNS = 20, 60


def make_models(folder: Path) -> dict[str, Path]:
    """MobileNet v1 as float32 and int8, converted in a process of its own."""
    code = """
import sys, numpy as np, tensorflow as tf, keras
keras.utils.set_random_seed(0)
model = keras.applications.MobileNet(weights=None)
archive = keras.export.ExportArchive(); archive.track(model)
archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[tf.TensorSpec((1, 224, 224, 3))])
archive.write_out(sys.argv[1] + "/saved", verbose=False)
for precision in ("float32", "int8"):
    converter = tf.lite.TFLiteConverter.from_saved_model(sys.argv[1] + "/saved")
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        rng = np.random.default_rng(0)
        converter.representative_dataset = lambda: ([rng.random((1, 224, 224, 3), np.float32)] for _ in range(8))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    open(f"{sys.argv[1]}/{precision}.tflite", "wb").write(converter.convert())
"""
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)], check=True, env=variables, stderr=subprocess.DEVNULL
    )
    return {precision: folder / f"{precision}.tflite" for precision in ("float32", "int8")}


def ours(model: Path, folder: Path, cpu: int) -> float:
    """The median wall time of edgekit's measuring process, in ms."""
    name = read_signature(model).inputs[0].name
    Samples({name: np.zeros((1, 224, 224, 3), np.float32)}, {}).save(folder / "x.npz")
    request = {"runtime": "litert", "file": str(model), "samples": str(folder / "x.npz"), "threads": 1}
    request |= {"min_duration_s": 0.0, "min_runs": RUNS, "warm_up_max_s": 2.0}
    (folder / "request.json").write_text(json.dumps(request))
    paths = [str(folder / "request.json"), str(folder / "result.json")]
    run_module("edgekit.runtimes._runner", paths, Environment(cpus=(cpu,)), step="bench", timeout_s=300)
    return float(json.loads((folder / "result.json").read_text())["wall"]["p50_ms"])


def theirs(model: Path, folder: Path, cpu: int) -> float:
    """The median of litert-benchmark, pinned to the same core, in ms."""
    tool = Path(sys.executable).parent / "litert-benchmark"
    options = ["--num_threads", "1", "--num_runs", str(RUNS), "--warmup_runs", str(WARM_UP)]
    command = [str(tool), "--model", str(model), *options, "--result_json", str(folder / "theirs.json")]
    subprocess.run(command, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    return float(json.loads((folder / "theirs.json").read_text())["latency"]["median_ms"])


def main() -> None:
    """Prints a line a model."""
    cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for precision, model in make_models(folder).items():
            pairs = [(ours(model, folder, cpu), theirs(model, folder, cpu)) for _ in range(ROUNDS)]
            a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratios = sorted(x / y for x, y in pairs)
            print(
                f"MobileNet v1 {precision}: edgekit {a:.2f} ms, litert-benchmark {b:.2f} ms, ratio {a / b:.3f}"
                f" (pair by pair {ratios[0]:.3f} .. {statistics.median(ratios):.3f} .. {ratios[-1]:.3f})"
            )


if __name__ == "__main__":
    main()

"""Compares int8 files that were calibrated with data, with synthetic samples and with noise.

Usage: calibration.py FOLDER [NETWORK ...]

NETWORK is one of `quantization_networks.py` that has batch norm, or a reference model that was trained in Keras. Each
line is what is left on a test set that no quantizer saw: the points of top-1 that are lost against the float network,
and the SQNR of its outputs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from quantization import left, save
from quantization_networks import NETWORKS

from edgekit.core.records.artifact import load_artifact

TARGETS = ("tflite:int8", "onnx:int8")
WITH_NORMS = tuple(name for name in NETWORKS if name != "transformer_outliers")
SAMPLES = 80
# Of the exported model: a reference model's own name is taken.
NAME = "net"


def reference(name: str, folder: Path) -> Path:
    """Copy a reference model, with its samples in the form of those of other networks, and return the copy."""
    source = Path("build") / name / "keras" / "source"
    with np.load(source / "test.npz") as archive:
        inputs, outputs = (
            next(archive[key] for key in archive if key.startswith(side)) for side in ("input", "output")
        )
        np.savez(folder / f"{name}.npz", x=inputs, labels=archive["labels"], outputs=outputs)
    with np.load(source / "calibration.npz") as archive:
        np.savez(folder / f"{name}-calibration.npz", x=next(archive[key] for key in archive if key.startswith("input")))
    path = folder / f"{name}.keras"
    path.write_bytes((source / "model.keras").read_bytes())
    return path


def calibrations(name: str, folder: Path) -> dict[str, str]:
    """Return what each row is calibrated with, by its label: noise of the network's input, and the data."""
    with np.load(folder / f"{name}-calibration.npz") as archive:
        data = archive["x"]
    shape, rng = (SAMPLES, *data.shape[1:]), np.random.default_rng(0)
    noise = {
        "standard normal noise": rng.standard_normal(shape),
        "uniform noise in the data's range": rng.uniform(data.min(), data.max(), shape),
        "data": data[:SAMPLES],
    }
    files = {}
    for label, samples in noise.items():
        path = folder / f"{name}-{label.split()[0]}.npz"
        np.savez(path, x=samples.astype(np.float32))
        files[label] = str(path)
    return {**files, "synthetic": "synthetic"}


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in sys.argv[2:] or WITH_NORMS:
        if name in NETWORKS:
            save(name, folder)
            model = folder / f"{name}.pt2"
        else:
            model = reference(name, folder)
        print(f"\n{name}: points of top-1 lost, SQNR", flush=True)
        for label, calibration in calibrations(name, folder).items():
            with tempfile.TemporaryDirectory() as scratch:
                begin = time.perf_counter()
                command = [
                    sys.executable,
                    "-m",
                    "edgekit",
                    "export",
                    model,
                    "--name",
                    NAME,
                    "--calibration",
                    calibration,
                ]
                targets = [word for target in TARGETS for word in ("--target", target)]
                subprocess.run([*command, *targets], cwd=scratch, check=True, capture_output=True)
                took = time.perf_counter() - begin
                for target in TARGETS:
                    (path,) = Path(scratch).glob(f"build/{NAME}/*/{target.replace(':', '-')}")
                    artifact = load_artifact(path)
                    figures = left(artifact.path, artifact.manifest.signature, name, folder)
                    print(f"  {label:34} {target:12} {figures}", flush=True)
                print(f"  {'':34} {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Compares the int8 files that edgekit exports with those of other quantizers, on networks that int8 hurts.

Usage: quantization.py FOLDER [NETWORK ...]

All take the same weights and calibration samples. Each line is what is left on a test set that no quantizer saw: the
points of top-1 that are lost against the float network, and the SQNR of its outputs.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantization_networks import NETWORKS, trained

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.records.artifact import load_artifact

RUNTIME_OF = {".tflite": "litert", ".onnx": "onnxruntime", ".pte": "executorch", ".pt": "torchscript"}
TARGETS = ("tflite:int8", "onnx:int8", "onnx:dynamic", "executorch:int8", "torchscript:int8")


def save(name: str, folder: Path) -> None:
    """Train a network once and write it as an exported program with its samples."""
    if (folder / f"{name}.pt2").is_file():
        return
    model, data = trained(name)
    inputs, labels = data.test
    with torch.no_grad():
        outputs = model(torch.from_numpy(inputs)).numpy()
    examples = (torch.from_numpy(inputs[:2]),)
    program = torch.export.export(model, examples, dynamic_shapes=({0: torch.export.Dim("batch")},))
    np.savez(folder / f"{name}.npz", x=inputs, labels=labels, outputs=outputs)
    np.savez(folder / f"{name}-calibration.npz", x=data.calibration)
    torch.export.save(program, folder / f"{name}.pt2")


def exported(name: str, folder: Path, *options: str) -> Iterator[tuple[str, Path, Any]]:
    """Export a network with edgekit; yield each variant with its file and signature."""
    command = [sys.executable, "-m", "edgekit", "export", f"{name}.pt2", "--calibration", f"{name}-calibration.npz"]
    targets = [word for target in (*TARGETS, "tflite:float32", "onnx:float32") for word in ("--target", target)]
    subprocess.run([*command, *targets, *options], cwd=folder, check=True, capture_output=True)
    for target in (*TARGETS, "tflite:float32", "onnx:float32"):
        artifact = load_artifact(folder / "build" / name / "torch" / target.replace(":", "-"))
        yield target, artifact.folder / artifact.manifest.file, artifact.manifest.signature


def left(file: Path, signature: Any, name: str, folder: Path) -> str:
    """Return what a file loses on the test set."""
    with np.load(folder / f"{name}.npz") as archive:
        inputs, labels, expected = archive["x"], archive["labels"], archive["outputs"]
    session = RUNTIMES.load(RUNTIME_OF[file.suffix]).open(file, threads=1, signature=signature)
    (outputs,) = session.infer({signature.inputs[0].name: inputs}).values()
    before, after = (np.mean(np.argmax(array, axis=1) == labels) for array in (expected, outputs))
    return f"{100 * (before - after):5.1f} ({sqnr_db(expected, outputs):.1f} dB)"


def ai_edge_quantizer(float_file: Path, samples: Any, to: Path) -> None:
    """Quantize by ai-edge-quantizer as its documentation shows it: ranges by a moving average."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    ((key, described),) = Interpreter(str(float_file)).get_signature_list().items()
    builder = quantizer.Quantizer(str(float_file), recipe.static_wi8_ai8())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it prints progress
        ranges = builder.calibrate({key: [{described["inputs"][0]: sample[None]} for sample in samples]})
        to.write_bytes(builder.quantize(ranges).quantized_model)


def onnxruntime(float_file: Path, samples: Any, to: Path, moving_average: bool) -> None:
    """Quantize by ONNX Runtime's tools, with per-channel weights and QDQ pairs."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        def __init__(self) -> None:
            self.samples = iter(samples)

        def get_next(self) -> Any:
            sample = next(self.samples, None)
            return None if sample is None else {"x": sample[None]}

    prepared = to.with_suffix(".prepared.onnx")
    quant_pre_process(str(float_file), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        prepared, to, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8, extra_options={"CalibMovingAverage": moving_average},
    )  # fmt: skip


def others(files: dict[str, Path], name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Quantize the float files with other tools."""
    with np.load(folder / f"{name}-calibration.npz") as archive:
        samples = archive["x"][:200]
    to = folder / f"{name}-litert.tflite"
    ai_edge_quantizer(files["tflite:float32"], samples, to)
    yield "ai-edge-quantizer, tflite", to
    for words, average in (("min/max", False), ("moving average", True)):
        to = folder / f"{name}-{average}.onnx"
        onnxruntime(files["onnx:float32"], samples, to, average)
        yield f"onnxruntime.quantization {words}", to


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in sys.argv[2:] or NETWORKS:
        save(name, folder)
        files, signatures = {}, {}
        print(f"\n{name}: points of top-1 lost, SQNR")
        for label, options in (("plain", ("--no-repair",)), ("repaired", ())):
            with tempfile.TemporaryDirectory() as scratch:
                for file in (f"{name}.pt2", f"{name}-calibration.npz"):
                    (Path(scratch) / file).symlink_to(folder / file)
                for target, file, signature in exported(name, Path(scratch), *options):
                    if not target.endswith("float32"):
                        print(f"  edgekit {label:9} {target:32} {left(file, signature, name, folder)}", flush=True)
                    elif label == "plain":
                        files[target] = folder / f"{name}-float{file.suffix}"
                        files[target].write_bytes(file.read_bytes())
                    signatures[file.suffix] = signature
        for label, file in others(files, name, folder):
            signature = RUNTIMES.load(RUNTIME_OF[file.suffix]).open(file, threads=1).signature
            print(f"  {label:50} {left(file, signature, name, folder)}", flush=True)


if __name__ == "__main__":
    main()

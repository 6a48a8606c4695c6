"""Measure how long the HTML report on many artifacts takes: `python tests/benchmarks/report_time.py [ARTIFACTS]`.

A project is made from copies of one set of records (validation, two benches, emulated validation, layer-wise diff)
under the names of models and variants. Then `edgekit report --format html` runs as a process of its own, three times;
the medians of its wall time and CPU time are printed, with what the page holds and the peak memory.
"""

from __future__ import annotations

import hashlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _helpers.sample_reports import (
    EMULATED,
    artifact,
    by_layer,
    comparison,
    measurement,
    on_core,
    validation,
)

from edgekit.core.environment.atomic_files import write_json
from edgekit.core.numerics.statistics import ClassDrift
from edgekit.core.records.artifact import write_manifest
from edgekit.core.records.layer_errors import LAYERS_FILE, to_dict

TARGETS = ("tflite", "onnx", "torchscript", "lite-interpreter")
PRECISIONS = ("float32", "float16", "dynamic", "int8")
DEVICES = ("raspberry-pi-4b", "pixel-2")
CONTENT = b"model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def write_artifact(root: Path, model: str, place: int) -> None:
    """Write the records of one artifact; `place` selects its variant and shifts its figures."""
    target, precision = TARGETS[place // len(PRECISIONS)], PRECISIONS[place % len(PRECISIONS)]
    made = artifact(f"{target}:{precision}", model)
    folder = root / made.folder
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(CONTENT)
    write_manifest(folder, replace(made.manifest, sha256=SHA256, size_bytes=len(CONTENT), files=()))
    common = {"model": model, "target": target, "precision": precision, "artifact_sha256": SHA256}
    checked = validation(comparison(error=0.01 * (place + 1)))
    drift = replace(checked.drift, artifact=0.97 - 0.001 * place, classes=(ClassDrift(0, 50, 0.9, 0.8),))
    write_json(folder / "validation.json", asdict(replace(checked, drift=drift, **common)))
    write_json(folder / f"validation-{DEVICES[0]}.json", asdict(replace(on_core(DEVICES[0]), **common)))
    latencies = ({"host": 1.2, "analytic": 0.01, "emulated": 3.21}, {"host": 1.0 + place, "analytic": 0.02})
    for device, latency in zip(DEVICES, latencies, strict=True):
        emulated = EMULATED if "emulated" in latency else None
        bench = measurement(device, latency_ms=latency, emulated=emulated, size_bytes=len(CONTENT), **common)
        write_json(folder / f"bench-{device}.json", asdict(bench))
    if precision == "int8":
        layers = replace(by_layer(f"{target}:int8", model, 40), artifact_sha256=SHA256)
        write_json(folder / LAYERS_FILE, to_dict(layers))


def seconds(*arguments: str) -> tuple[float, float]:
    """Return the wall time and the CPU time of one command in s; a failed check is no error."""
    begin, before = time.perf_counter(), _cpu_seconds()
    process = subprocess.run([sys.executable, "-m", "edgekit", *arguments], capture_output=True, text=True)
    if process.returncode not in (0, 1):
        raise SystemExit(process.stderr)
    return time.perf_counter() - begin, _cpu_seconds() - before


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    variants = len(TARGETS) * len(PRECISIONS)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for index in range(count):
            write_artifact(root, f"model{index // variants}", index % variants)
        page = root / "report.html"
        command = ("report", "--format", "html", "--output", str(page), "--root", name)
        wall_s, cpu_s = (statistics.median(times) for times in zip(*(seconds(*command) for _ in range(3)), strict=True))
        text = page.read_text(encoding="utf-8")
    # The largest of the processes that have ended; ru_maxrss is in KiB on Linux.
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    drawings, size = text.count('role="img"'), len(text.encode()) / 1e6
    print(
        f"{count} artifacts: {wall_s:.2f} s, {cpu_s:.2f} s of CPU time; {drawings} drawings, {size:.2f} MB;"
        f" peak memory {peak_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()

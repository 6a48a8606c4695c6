"""Measure how much memory the commands take: `python tests/benchmarks/memory_peaks.py [MEGABYTES…]` (20, 100, 350).

For each size, a PyTorch network of linear layers with that many bytes of float32 weights is exported to one variant
after another, then validated and reported. Every 20 ms the proportional set sizes (shared pages count once) of the
processes of the command are read; printed are the largest sum, the largest of the command's own process, and the sum
in times of the weights, from which the memory of idle frameworks is not subtracted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _helpers.support import processes_with

VARIANTS = (
    "torchscript:float32", "lite-interpreter:float32", "onnx:float32", "onnx:int8", "tflite:float32", "tflite:float16",
    "tflite:int8", "executorch:float32",
)  # fmt: skip
WIDTH = 1024
LAYER_BYTES = WIDTH * WIDTH * 4
_POLL_S = 0.02
_TIMEOUT_S = 1800.0

NETWORK = """
import torch


def build():
    torch.manual_seed(0)
    layers = []
    for _ in range({count}):
        layers += [torch.nn.Linear({width}, {width}, bias=False), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval()
"""
SAMPLES = """
import sys

import numpy as np

rng = np.random.default_rng(0)
np.save(sys.argv[1], rng.standard_normal((1024, int(sys.argv[2]))).astype(np.float32))
"""


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process, 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def run(root: Path, words: Sequence[str]) -> tuple[int, float, int, int]:
    """Run a command; return exit code, duration in seconds, and the peaks in bytes of all processes and of its own."""
    marker = f"EDGEKIT_MEMORY={root}"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgekit", *words, "--root", str(root)],
        env={**os.environ, "EDGEKIT_MEMORY": str(root)},
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    together = own = 0
    while process.poll() is None and time.perf_counter() - started < _TIMEOUT_S:
        sizes = {pid: pss_bytes(pid) for pid in processes_with(marker)}
        together, own = max(together, sum(sizes.values())), max(own, sizes.get(process.pid, 0))
        time.sleep(_POLL_S)
    process.kill()
    _, err = process.communicate()
    if process.returncode:
        print(err[-500:], file=sys.stderr)
    return process.returncode, time.perf_counter() - started, together, own


def main() -> int:
    sizes = [int(word) for word in sys.argv[1:]] or [20, 100, 350]
    failed = False
    print(
        f"{'weights':>8}  {'command':34} {'exit':>4} {'seconds':>8} {'all MB':>8} {'own MB':>7} {'times weights':>14}"
    )
    for megabytes in sizes:
        count = max(1, round(megabytes * 1e6 / LAYER_BYTES))
        weights = count * LAYER_BYTES
        with tempfile.TemporaryDirectory(prefix="edgekit-memory-") as folder:
            root = Path(folder)
            (root / "net.py").write_text(NETWORK.format(count=count, width=WIDTH))
            (root / "make.py").write_text(SAMPLES)
            subprocess.run([sys.executable, root / "make.py", root / "x.npy", str(WIDTH)], check=True)
            model = ("net.py:build", "--sample", str(root / "x.npy"))
            commands = [("export", *model, "--target", variant) for variant in VARIANTS]
            commands += [("validate",), ("report", "--format", "html", "--output", str(root / "report.html"))]
            for words in commands:
                code, seconds, together, own = run(root, words)
                failed |= code not in (0, 1)
                label = f"{words[0]} {words[-1] if words[0] == 'export' else ''}"
                figures = f"{code:4d} {seconds:8.1f} {together / 1e6:8.0f} {own / 1e6:7.0f} {together / weights:14.1f}"
                print(f"{weights / 1e6:6.0f}MB  {label:34} {figures}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

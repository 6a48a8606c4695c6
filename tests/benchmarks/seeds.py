"""Train the reference models in both frameworks from several seeds and compare the frameworks' mean metrics.

Run `make bench-seeds`, or for some models only `python tests/benchmarks/seeds.py gru lstm --seeds 1 2 3`. Each model is
trained with `edgekit train`. Prints one row per model and framework: the metric of each seed, its mean and the seconds
of one training; then the difference of the frameworks' means, which should lie below two percentage points.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parents[2] / "models"
KINDS = ("keras", "torch")


def train(model: str, kind: str, seed: int, root: str) -> dict[str, Any]:
    """Train a model in one framework and return its source record, with the duration of the command in `seconds`."""
    command = [sys.executable, "-P", "-m", "edgekit", "train", model, "--framework", kind]
    start = time.perf_counter()
    process = subprocess.run(
        [*command, "--seed", str(seed), "--root", root, "--json", "-q"], check=True, capture_output=True, text=True
    )
    (record,) = json.loads(process.stdout)["trained"]
    return {**record, "seconds": time.perf_counter() - start}


def print_row(model: str, kind: str, seeds: list[int], root: str) -> float:
    """Train a model in one framework from every seed, print its row and return the mean of its metric."""
    records = [train(model, kind, seed, root) for seed in seeds]
    values = [record["metric_value"] for record in records]
    seconds = statistics.mean(record["seconds"] for record in records)
    figures = " ".join(f"{value:8.4f}" for value in values)
    name, parameters, metric = f"{model}/{kind}", records[0]["parameters"], records[0]["metric"]
    mean = statistics.mean(values)
    print(f"{name:<26}{parameters:>8,}  {metric:<9}{figures}  {mean:8.4f}  {seconds:6.1f} s", flush=True)
    return mean


def main() -> None:
    """Print one row per model and framework, and one line per model with the difference between the frameworks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: all of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    arguments = parser.parse_args()
    names = arguments.models or sorted(path.parent.name for path in MODELS.glob("*/model.toml"))
    header = " ".join(f"{f'seed {seed}':>8}" for seed in arguments.seeds)
    print(f"{'model':<26}{'weights':>8}  {'metric':<9}{header}  {'mean':>8}  training")
    with tempfile.TemporaryDirectory() as root:
        for model in names:
            keras, torch = (print_row(model, kind, arguments.seeds, root) for kind in KINDS)
            print(f"{'':<26}keras - torch: {keras - torch:+.4f}", flush=True)


if __name__ == "__main__":
    main()

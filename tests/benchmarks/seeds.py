"""How well the reference models learn, in both frameworks, from several seeds: is one twin better, or one seed lucky?

`make bench-seeds`, or for some models only: `python tests/benchmarks/seeds.py gru lstm --seeds 1 2 3`. Trains each as
`edgekit train` does and prints a row a twin: the metric by seed, its mean, the seconds of a training; then the gap
between the frameworks' means, which should lie below two points.
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


def trained(model: str, kind: str, seed: int, root: str) -> dict[str, Any]:
    """The source record of one training, and how long the command took."""
    command = [sys.executable, "-P", "-m", "edgekit", "train", model, "--framework", kind]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--seed", str(seed), "--root", root, "--json", "-q"], check=True, capture_output=True, text=True
    )
    (record,) = json.loads(done.stdout)["trained"]
    return {**record, "seconds": time.perf_counter() - start}


def row(model: str, kind: str, seeds: list[int], root: str) -> float:
    """Trains one twin from every seed, prints its row, and returns the mean of its metric."""
    records = [trained(model, kind, seed, root) for seed in seeds]
    values = [record["metric_value"] for record in records]
    seconds = statistics.mean(record["seconds"] for record in records)
    figures = " ".join(f"{value:8.4f}" for value in values)
    name, parameters, metric = f"{model}/{kind}", records[0]["parameters"], records[0]["metric"]
    mean = statistics.mean(values)
    print(f"{name:<26}{parameters:>8,}  {metric:<9}{figures}  {mean:8.4f}  {seconds:6.1f} s", flush=True)
    return mean


def main() -> None:
    """A row for each twin, and a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: all of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    chosen = parser.parse_args()
    names = chosen.models or sorted(path.parent.name for path in MODELS.glob("*/model.toml"))
    header = " ".join(f"{f'seed {seed}':>8}" for seed in chosen.seeds)
    print(f"{'model':<26}{'weights':>8}  {'metric':<9}{header}  {'mean':>8}  training")
    with tempfile.TemporaryDirectory() as root:
        for model in names:
            keras, torch = (row(model, kind, chosen.seeds, root) for kind in KINDS)
            print(f"{'':<26}keras - torch: {keras - torch:+.4f}", flush=True)


if __name__ == "__main__":
    main()

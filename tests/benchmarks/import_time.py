"""Measure what importing edgekit costs over Python's own start: `python tests/benchmarks/import_time.py [RUNS]`.

Prints the median of the differences in ms: programs with and without the import are started in turn, so that other
load on the machine affects both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PROGRAMS = ("import edgekit", "from edgekit import export")


def start_ms(program: str) -> float:
    """Return how long a fresh interpreter takes for a program, in ms."""
    begin = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.perf_counter_ns() - begin) / 1e6


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    for program in PROGRAMS:
        start_ms(program)  # writes the bytecode
        differences = [start_ms(program) - start_ms("pass") for _ in range(runs)]
        print(f"{program}: {statistics.median(differences):+.1f} ms")


if __name__ == "__main__":
    main()

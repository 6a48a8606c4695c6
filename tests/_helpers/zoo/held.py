"""Runs an artifact on the held inputs and compares it with the framework, apart from edgekit's own comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.records.artifact import load_artifact


def distance(folder: Path, held: Path) -> tuple[float, float]:
    """Return the largest error relative to its output's largest value, and the lowest SQNR of an output in dB."""
    artifact = load_artifact(folder)
    signature = artifact.manifest.signature
    runtime = RUNTIMES.load(TARGETS.load(artifact.manifest.variant.target).runtime)
    session = runtime.open(folder / artifact.manifest.file, threads=1, signature=signature)
    with np.load(held) as archive:
        inputs = {key[3:]: archive[key] for key in archive if key.startswith("in.")}
        expected = [archive[key] for key in sorted(archive) if key.startswith("out.")]
    # One sample at a time, as the framework ran, and as a device does.
    count = len(next(iter(inputs.values())))
    calls = [list(session.infer({k: v[i : i + 1] for k, v in inputs.items()}).values()) for i in range(count)]
    outputs = [np.stack(arrays) for arrays in zip(*calls, strict=True)]
    if len(outputs) != len(expected):
        raise ValueError(f"{len(outputs)} outputs where the framework has {len(expected)}")
    measured = [_error(before, after) for before, after in zip(expected, outputs, strict=True)]
    return max(error for error, _ in measured), min(level for _, level in measured)


def _error(expected: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    if expected.size != output.size:
        raise ValueError(f"an output of the shape {output.shape[1:]} where the framework has {expected.shape[1:]}")
    before, after = expected.reshape(-1).astype(float), output.reshape(-1).astype(float)
    # Negative infinity in masked scores is right where the framework has it.
    same = (before == after) | ~np.isfinite(before)
    before, after = np.where(same, 0.0, before), np.where(same, 0.0, after)
    error = float(np.max(np.abs(before - after)) / max(float(np.max(np.abs(before))), 1e-6))
    return error, float(sqnr_db(before, after)) if error else 999.0

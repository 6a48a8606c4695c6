"""How many planted faults `edgekit diff` locates: in the ONNX artifacts of every trained model in build/ (or MODELS).

A float artifact is compared with the Keras or PyTorch network that it was made from, a quantized one, whose own noise
would stand before the fault's, with itself as it was before. A fault is located when the tensor
that is named is the broken node's own, or, where the source has no such tensor, the first one behind it that it has.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgekit.core.environment.project import open_project
from edgekit.core.events import ignore
from edgekit.core.records.artifact import load_artifact
from edgekit.reports.console import table
from edgekit.stages.context import Context
from edgekit.stages.validation.diff import diff
from edgekit.workers.pool import WorkerPool

sys.path.insert(0, str(Path(__file__).parents[1]))
from _helpers.planted_faults import FLOAT, QUANTIZED, nearest, planted

SAMPLES = 4


def main(models: list[str]) -> None:
    """Prints a row a fault, and the count."""
    project = open_project(Path.cwd())
    rows, located = [], 0
    with WorkerPool() as pool, tempfile.TemporaryDirectory() as temporary:
        context = Context(project, pool, ignore)
        for folder in sorted(project.root.glob("build/*/*/onnx-*")):
            model, kind, variant = folder.parts[-3:]
            plants = {"onnx-float32": FLOAT, "onnx-int8": QUANTIZED}.get(variant)
            if plants is None or (models and model not in models):
                continue
            path = load_artifact(folder).path
            for fault, tensors, broken in planted(path, plants, Path(temporary)):
                golden = folder.parent / "source" / "golden.npz"
                with tempfile.TemporaryDirectory() as folder_of_samples:
                    given = _inputs(golden, Path(folder_of_samples))
                    whole = str(folder.parent / "source") if plants is FLOAT else str(folder)
                    found = diff(context, whole, str(broken), given, count=SAMPLES)
                right = nearest(broken, tensors, {item.actual for item in found.tensors})
                hit = found.first is not None and found.first.actual in right
                located += hit
                named = "nothing" if found.first is None else found.first.actual
                rows.append(
                    (f"{model}/{kind}", fault, min(tensors)[-40:], "located" if hit else f"named {named[-40:]}")
                )
    print(table(("model", "fault", "planted at", "verdict"), rows, left=4))
    print(f"{located} of {len(rows)} located")


def _inputs(golden: Path, folder: Path) -> Path:
    """The inputs of golden samples as a file for --samples."""
    import numpy as np

    from edgekit.core.records import samples

    made = folder / "inputs.npz"
    np.savez(made, **samples.load(golden, "golden samples").inputs)  # type: ignore[arg-type]
    return made


if __name__ == "__main__":
    main(sys.argv[1:])

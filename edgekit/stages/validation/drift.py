"""The drift of an artifact on the test set: its task metric beside the source's, and the samples that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.environment.atomic_files import mapped_write_errors
from edgekit.core.numerics import tensor_layout
from edgekit.core.numerics.metrics import TASK_METRICS, Array, TaskMetric, top1_agreement
from edgekit.core.numerics.statistics import bootstrap_drop, bootstrap_mean, drift_by_class, mcnemar_p
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact
from edgekit.core.records.samples import Samples
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import Drift
from edgekit.core.values.file_names import TEST_FILE
from edgekit.core.values.tolerances import Tolerances

# The test samples that source and artifact put into different classes.
FLIPS_FILE = "flips.npz"
# Fewer than for a mean, because each resample computes an AUC from all scores.
_AUC_RESAMPLES = 500


def read_test_set(artifact: Artifact) -> Samples | None:
    """Read the test set of an artifact's source, in the artifact's layout.

    Args:
        artifact: The artifact.

    Returns:
        The samples with the source's outputs; None where the source has no test set.

    Raises:
        InputError: The file is damaged.
    """
    folder = artifact.folder.parent / "source"
    if not (folder / TEST_FILE).is_file():
        return None
    test = samples.load(folder / TEST_FILE, "test samples")
    orders = tensor_layout.permutations_between(load_source(folder).signature, artifact.manifest.signature)
    inputs, outputs = (tensor_layout.transpose_arrays(arrays, orders) for arrays in (test.inputs, test.outputs))
    return Samples(inputs, outputs, test.labels)


def drift_of(
    metric_name: str | None, task: str | None, test: Samples, outputs: Mapping[str, Array], tolerances: Tolerances
) -> Drift | None:
    """Measure how much worse an artifact is at the task than its source.

    Args:
        metric_name: Name of the task metric, or None.
        task: Name of the task, or None.
        test: The test set with the source's outputs.
        outputs: The artifact's outputs on the test set by name, shape (N, ...).
        tolerances: The tolerances of the first output.

    Returns:
        The drift of the first output; None without a task metric or labels.
    """
    metric = TASK_METRICS.get(str(metric_name))
    if metric is None or test.labels is None:
        return None
    name = next(iter(test.outputs))
    inputs = next(iter(test.inputs.values()))
    before, after = (metric.compute(arrays[name], test.labels, inputs) for arrays in (test.outputs, outputs))
    drift = Drift(
        metric=metric.name,
        source=before,
        artifact=after,
        drop=metric.drop(before, after),
        samples=test.count,
        top1_agreement=None,
        min_top1_agreement=None,
        **_uncertainty(metric, test, name, outputs[name]),
    )
    if task != "classification":
        return drift
    source_correct, artifact_correct = (
        np.argmax(array, axis=-1) == test.labels for array in (test.outputs[name], outputs[name])
    )
    lost, won = int(np.sum(source_correct & ~artifact_correct)), int(np.sum(~source_correct & artifact_correct))
    return replace(
        drift,
        top1_agreement=top1_agreement(test.outputs[name], outputs[name]),
        min_top1_agreement=tolerances.min_top1_agreement,
        lost=lost,
        won=won,
        p_value=mcnemar_p(lost, won),
        classes=drift_by_class(source_correct, artifact_correct, test.labels),
    )


def _uncertainty(metric: TaskMetric, test: Samples, name: str, outputs: Array) -> dict[str, Any]:
    """Return the confidence interval of the drop, and its variance per sample if the metric is a mean."""
    labels, reference = test.labels, test.outputs[name]
    assert labels is not None  # checked by the caller
    if metric.per_sample is not None:
        before, after = (metric.per_sample(array, labels).astype(np.float64) for array in (reference, outputs))
        drops = before - after if metric.higher_is_better else after - before
        return {"interval": bootstrap_mean(drops), "variance": float(np.var(drops))}
    if metric.scores is None or metric.of_scores is None:
        return {}
    inputs, of_scores = next(iter(test.inputs.values())), metric.of_scores
    scores = [metric.scores(array, inputs) for array in (reference, outputs)]

    def metrics_of(indices: NDArray[np.intp]) -> tuple[float, float]:
        if len(np.unique(labels[indices])) < 2:
            return float("nan"), float("nan")  # an AUC needs samples of both classes
        before, after = (of_scores(array[indices], labels[indices]) for array in scores)
        return before, after

    return {"interval": bootstrap_drop(metrics_of, len(labels), metric.drop, resamples=_AUC_RESAMPLES)}


def write_flips(artifact: Artifact, test: Samples, outputs: Mapping[str, Array]) -> None:
    """Write the test samples that artifact and source put into different classes to flips.npz.

    Args:
        artifact: The artifact, whose folder gets the file; one of an earlier validation is removed.
        test: The test set, with the source's outputs.
        outputs: The artifact's outputs by name, shape (N, ...).
    """
    path = artifact.folder / FLIPS_FILE
    path.unlink(missing_ok=True)
    name = next(iter(test.outputs))
    before, after = (np.argmax(array, axis=-1) for array in (test.outputs[name], outputs[name]))
    index = np.flatnonzero(before != after)
    if len(index) == 0 or test.labels is None:
        return
    arrays = {f"input/{key}": array[index] for key, array in test.inputs.items()}
    with mapped_write_errors(path):
        labels = {"index": index, "label": test.labels[index], "source": before[index], "artifact": after[index]}
        np.savez_compressed(path, **labels, **arrays)  # type: ignore[arg-type]

"""How the labels of samples are read on import."""

from __future__ import annotations

import numpy as np

from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.models.import_job import _read_labels


def test_an_output_with_all_pairs_of_samples_takes_labels():
    signature = Signature(
        (TensorSpec("x", ("batch", 3), "float32"),), (TensorSpec("y", ("batch", "batch"), "float32"),)
    )
    labels = _read_labels(np.arange(5), signature, {"x": np.zeros((5, 3), np.float32)}, {})
    assert labels.metric == "accuracy"
    assert labels.values.tolist() == [0, 1, 2, 3, 4]

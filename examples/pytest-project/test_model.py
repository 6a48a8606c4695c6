"""Requirements on the model that this project releases."""

from pathlib import Path

import numpy as np
import pytest

from edgekit.testing import assert_accuracy_drift, assert_equivalent, assert_latency_budget, assert_size_budget

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Return a file of images with a bright square on noise; the label is the third of the image with the square."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.2, (300, 1, 16, 16)).astype(np.float32)
    labels = rng.integers(0, 3, 300)
    for image, label in zip(images, labels, strict=True):
        image[0, 4:12, 5 * label : 5 * label + 5] += 1
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, image=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def int8(edgekit_export, samples):
    return edgekit_export(f"{HERE / 'net.py'}:build", "tflite:int8", sample=samples)


@pytest.mark.edgekit_slow
def test_the_artifact_computes_the_same_as_the_network(int8, samples):
    assert_equivalent(int8)
    assert_equivalent(int8, f"{HERE / 'net.py'}:build", samples)


@pytest.mark.edgekit_slow
def test_quantization_costs_at_most_two_points(int8):
    assert_accuracy_drift(int8, max_drop=0.02)


@pytest.mark.edgekit_slow
def test_it_fits_the_flash(int8, edgekit_figures):
    assert_size_budget(int8, "10 KB")
    edgekit_figures.check("net int8", {"bytes": (int8 / "model.tflite").stat().st_size}, tolerance=0.02)


@pytest.mark.edgekit_slow
def test_it_is_fast_enough(int8):
    assert_latency_budget(int8, "50 ms")

"""Floor 4: edgekit in a test suite of the user's own: assertions, and the pytest plugin that brings fixtures.

from edgekit.testing import assert_accuracy_drift, assert_equivalent, assert_size_budget

def test_the_model_that_we_ship(tmp_path):
    assert_equivalent("build/net/torch/tflite-int8")
    assert_size_budget("build/net/torch/tflite-int8", "500 KB")
"""

from edgekit.testing.assertions import (
    assert_accuracy_drift,
    assert_equivalent,
    assert_latency_budget,
    assert_size_budget,
)

__all__ = ["assert_accuracy_drift", "assert_equivalent", "assert_latency_budget", "assert_size_budget"]

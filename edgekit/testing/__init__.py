"""Assertions and pytest fixtures for testing models in the user's own test suite.

from edgekit.testing import assert_accuracy_drift, assert_equivalent, assert_size_budget

def test_the_released_model():
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

"""Random networks, from PyTorch to every target that takes float32: `make random-networks` looks at 500 of them."""

import os

import pytest
from _helpers.random_networks import Network, compared, networks
from hypothesis import HealthCheck, given, settings

COUNT = int(os.environ.get("EDGEKIT_RANDOM_NETWORKS", "4"))
SEARCHING = "EDGEKIT_RANDOM_NETWORKS" in os.environ  # the seed is then --hypothesis-seed

# What a search found once, made small.
KEPT = [
    Network((2, 8, 8), (("norm",), ("norm",)), softmax=False, seed=85),  # ExecuTorch: one batch norm behind another
    # ExecuTorch: a layer norm of what hardly varies
    Network((8, 6), (("act", "sigmoid"), ("act", "sigmoid"), ("layer_norm",)), softmax=True, seed=6),
]


def check(network: Network) -> None:
    for name, comparison in compared(network).items():
        # A network whose answer does not depend on its input proves nothing, and breaks nothing.
        assert comparison.passed or not comparison.evidence, (name, comparison.failures)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")  # of torch's exporters
@settings(max_examples=COUNT, derandomize=not SEARCHING, database=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_every_target_computes_what_a_random_network_computes(network: Network):
    check(network)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", KEPT)
@pytest.mark.exhaustive
def test_what_was_found_once_stays_mended(network: Network):
    check(network)

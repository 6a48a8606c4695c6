"""What a worker's process is given."""

import pytest

from edgekit.stages.context import source_environment, training_environment
from edgekit.workers.environment import Environment


def test_a_worker_has_one_thread_of_openmp_unless_it_is_said_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Environment().child_variables()["OMP_NUM_THREADS"] == "1"
    assert source_environment("torch").child_variables()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Environment().child_variables()["OMP_NUM_THREADS"] == "3"
    assert Environment.of({"OMP_NUM_THREADS": "2"}).child_variables()["OMP_NUM_THREADS"] == "2"


def test_training_has_every_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("edgekit.devices.host.available_cpus", lambda: (0, 1, 2, 3, 4))
    assert training_environment("torch").child_variables()["OMP_NUM_THREADS"] == "5"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert training_environment("torch").child_variables()["OMP_NUM_THREADS"] == "3"

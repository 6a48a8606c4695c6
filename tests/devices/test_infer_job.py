"""Running a model file on samples, with and without its state."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.contracts.runtime import RuntimeSession
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.devices import infer_job
from edgekit.devices.infer_job import RunRequest, run_model

SIGNATURE = Signature((TensorSpec("x", ("batch", 2), "float32"),), (TensorSpec("y", ("batch", 2), "float32"),))
SAMPLES = {"x": np.arange(1, 9, dtype=np.float32).reshape(4, 2)}


class Counting(RuntimeSession):
    """A session that divides by the number of its calls."""

    calls = 0

    def _run(self, inputs):
        self.calls += 1
        return [inputs[0] / np.float32(self.calls)]

    def bind(self, inputs):
        raise NotImplementedError


class CountingRuntime:
    """Opens such sessions."""

    def open(self, path, *, threads, signature):
        return Counting(signature)


@pytest.mark.parametrize(("from_start", "divisors"), [(False, [1, 2, 3, 4]), (True, [1, 1, 1, 1])])
def test_a_file_that_keeps_state_is_opened_again_for_each_sample(monkeypatch, from_start, divisors):
    monkeypatch.setattr(infer_job, "RUNTIMES", SimpleNamespace(load=lambda _name: CountingRuntime()))
    request = RunRequest("counting", "model", SIGNATURE, SAMPLES, from_start=from_start)
    outputs = run_model(request, lambda _event: None)["y"]
    np.testing.assert_allclose(outputs, SAMPLES["x"] / np.array(divisors, np.float32)[:, None])

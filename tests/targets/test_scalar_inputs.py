"""Inputs of rank 0, such as a sample rate or a gain, alone and beside batched ones."""

from __future__ import annotations

import numpy as np
import pytest
from _helpers.support import call

from edgekit.core.numerics import batching
from edgekit.core.values.specs import Signature, TensorSpec

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, gain):
        return self.linear(x) * gain


def build():
    torch.manual_seed(0)
    return Net().eval()
"""
TARGETS = ("tflite", "onnx", "executorch", "torchscript", "lite-interpreter")


def test_a_call_gets_the_scalar_of_its_sample_and_no_vector():
    inputs = (TensorSpec("x", (1, 4), "float32"), TensorSpec("gain", (), "float32"))
    samples = {"x": np.zeros((3, 4), np.float32), "gain": np.arange(3, dtype=np.float32)}
    calls = list(batching.iter_batches(Signature(inputs, ()), samples))
    assert [(x.shape, gain.shape, float(gain)) for x, gain in calls] == [((1, 4), (), float(i)) for i in range(3)]
    assert [batching.contiguous(gain).shape for _, gain in calls] == [()] * 3


def test_an_array_with_strides_is_copied_in_order():
    array = np.arange(6).reshape(2, 3).T
    assert batching.contiguous(array).flags.c_contiguous
    np.testing.assert_array_equal(batching.contiguous(array), array)


@pytest.mark.exhaustive
@pytest.mark.parametrize("shape", ["1x4", "batchx4"])
def test_a_scalar_beside_another_input_reaches_every_target(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    samples = {"x": rng.standard_normal((8, 4)), "gain": rng.uniform(0.5, 2, 8)}
    np.savez(tmp_path / "s.npz", **{name: array.astype(np.float32) for name, array in samples.items()})
    targets = [word for target in TARGETS for word in ("--target", f"{target}:float32")]
    inputs = ("--input", f"x:{shape}", "--input", "gain:scalar", "--sample", "s.npz")
    answer = call("export", "net.py:build", *inputs, *targets)
    assert answer.code == 0, answer.err
    answer = call("validate", "net", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.data["validations"]) == len(TARGETS)
    answer = call("bench", "net", "--min-duration", "0", "--min-runs", "2", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.data["measurements"]) == len(TARGETS)

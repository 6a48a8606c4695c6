"""What torch.onnx writes wrongly, and how it is written here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.onnxruntime import RUNTIME
from edgekit.sources._module import LoadedTorch
from edgekit.targets.onnx import TARGET


class Projected(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(4, 6, proj_size=3, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.onnx warns about its own code
def test_an_lstm_with_a_projection_keeps_it(tmp_path: Path):
    torch.manual_seed(0)
    signature = Signature(
        (TensorSpec("x", ("batch", 3, 4), "float32"),), (TensorSpec("y", ("batch", 3, 3), "float32"),)
    )
    inputs = {"x": np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)}
    source = LoadedTorch(Projected().eval(), signature).with_examples(inputs)
    TARGET.convert(source, ConversionRequest("float32", tmp_path))
    outputs = RUNTIME.open(tmp_path / "model.onnx", threads=1).infer(inputs)
    np.testing.assert_allclose(outputs["y"], source.run(inputs)["y"], atol=1e-6)

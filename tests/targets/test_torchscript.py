"""Quantizing for qnnpack: workarounds for its clamps and additions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.torchscript import RUNTIME
from edgekit.sources._module import LoadedTorch
from edgekit.targets.torchscript import TARGET

SIGNATURE = Signature(
    (TensorSpec("image", ("batch", 3, 16, 16), "float32"),), (TensorSpec("scores", ("batch", 5), "float32"),)
)


class Network(torch.nn.Module):
    def __init__(self, *, broadcast):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.clamp = torch.nn.ReLU6()
        self.depthwise = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = torch.nn.Conv2d(16, 16, 1)
        self.head = torch.nn.Linear(16, 5)
        self.broadcast = broadcast

    def forward(self, image):
        x = self.clamp(self.conv(image))
        x = x + self.project(self.clamp(self.depthwise(x)))
        if self.broadcast:
            x = x + x.mean((2, 3), keepdim=True)
        return self.head(x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore")  # of torch's tracer and of quantization, which is deprecated
@pytest.mark.parametrize("broadcast", [False, True], ids=["equal shapes", "a broadcast addition"])
def test_clamps_and_additions_survive_quantization(tmp_path: Path, broadcast):
    torch.manual_seed(0)
    source = LoadedTorch(Network(broadcast=broadcast).eval(), SIGNATURE)
    inputs = {"image": np.random.default_rng(0).normal(0, 2, (64, 3, 16, 16)).astype(np.float32)}
    TARGET.convert(source, ConversionRequest("int8", tmp_path, inputs))
    outputs = RUNTIME.open(tmp_path / "model.pt", threads=1).infer(inputs)
    assert sqnr_db(source.run(inputs)["scores"], outputs["scores"]) > 30


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantizing_while_it_runs_is_deprecated():
    # PyTorch 2.13; once it is not, or has a successor for TorchScript, `torchscript:dynamic` could be offered.
    from torch.ao.quantization import quantize_dynamic

    with pytest.warns(DeprecationWarning, match="torch.ao.quantization is deprecated"):
        quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 4)))

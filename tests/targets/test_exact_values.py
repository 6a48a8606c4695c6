"""int8 keeps comparisons and masks exact, in every format."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS, ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._module import LoadedTorch

PADDING = -0.777  # no multiple of a scale
SIGNATURE = Signature((TensorSpec("x", ("batch", 8, 5), "float32"),), (TensorSpec("y", ("batch", 8, 3), "float32"),))


class Attention(torch.nn.Module):
    """Steps that are padding are found by their value, hidden by a large number, and set to zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = (torch.nn.Linear(5, 6) for _ in range(3))
        self.out = torch.nn.Linear(6, 3)
        self.register_buffer("future", torch.triu(torch.full((8, 8), float("-inf")), 1))

    def forward(self, x):
        kept = (x != PADDING).any(-1)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 2.4 + self.future
        scores = scores + (1 - kept[:, None, :].to(x.dtype)) * -1e9
        return self.out((scores.softmax(-1) @ self.value(x)) * kept[..., None].to(x.dtype))


def samples() -> np.ndarray:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(48, 8, 5)).astype(np.float32)
    for row, length in zip(x, generator.integers(2, 9, 48), strict=True):
        row[length:] = PADDING
    return x


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # converters deprecate one another's names
@pytest.mark.parametrize("name", ["tflite", "onnx", "torchscript", "executorch"])
def test_padding_is_recognized_and_masks_leave_the_other_values(tmp_path: Path, name):
    """Quantized masks leave 6 dB and less, int8 weights and activations alone about 25 dB."""
    x, target = samples(), TARGETS.load(name)
    source = LoadedTorch(Attention().eval(), SIGNATURE).with_examples({"x": x})
    sized = source if target.symbolic else source.at(source.signature.sized({"batch": 1}), {})
    with contextlib.redirect_stderr(io.StringIO()):
        converted = target.convert(sized, ConversionRequest("int8", tmp_path, {"x": x[:32]}))
    session = RUNTIMES.load(target.runtime).open(tmp_path / converted.file, threads=1, signature=converted.signature)
    actual = np.concatenate([session.infer({"x": row[None]})["y"] for row in x[32:]])
    expected = source.run({"x": x[32:]})["y"]
    noise, signal = np.sum((actual - expected) ** 2), np.sum(expected**2)
    assert 10 * np.log10(signal / noise) > 20
    assert converted.signature.inputs[0].dtype == "float32"

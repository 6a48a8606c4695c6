"""What torch.onnx writes wrongly, and how it is written here."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.onnxruntime import RUNTIME
from edgekit.sources._module import LoadedTorch
from edgekit.targets._onnx.torch_operators import corrected_translations
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


class Pooled(torch.nn.Module):
    def forward(self, x):
        pool = torch.nn.functional.avg_pool2d
        return (
            pool(x, 3, 2, padding=1, divisor_override=4),
            pool(x, (3, 2), divisor_override=5),
            pool(x, 3, 2, ceil_mode=True, count_include_pad=False),
        )


class PooledVolume(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.avg_pool3d(x, 2, divisor_override=3)


def exported(module: torch.nn.Module, x: torch.Tensor, translations: dict | None) -> list[np.ndarray]:
    program = torch.onnx.export(module, (x,), dynamo=True, verbose=False, custom_translation_table=translations)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "shape"), [(Pooled(), (2, 3, 9, 8)), (PooledVolume(), (2, 3, 4, 4, 4))])
def test_average_pooling_divides_by_the_number_that_the_call_names(module, shape):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    expected = torch.utils._pytree.tree_leaves(module(x))
    for array, right in zip(exported(module, x, corrected_translations()), expected, strict=True):
        np.testing.assert_allclose(array, right, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnxscript_still_leaves_the_divisor_out():
    """When this fails, `corrected_translations` is no longer needed: see docs/upstream.md."""
    x = torch.ones(1, 1, 4, 4, 4)
    (array,) = exported(PooledVolume(), x, None)
    assert float(array.flat[0]) == 1.0 != float(PooledVolume()(x).flatten()[0])


class Anchored(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("anchors", torch.arange(6.0).reshape(2, 3))

    def forward(self, x):
        return self.layer(x) + self.anchors.sum(), self.anchors, torch.arange(4.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_outputs_that_are_constants_stay(precision: str, tmp_path: Path):
    torch.manual_seed(0)
    outputs = (TensorSpec("y", (1, 3), "float32"), TensorSpec("anchors", (2, 3), "float32"))
    signature = Signature((TensorSpec("x", (1, 4), "float32"),), (*outputs, TensorSpec("grid", (4,), "float32")))
    inputs = {"x": np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)}
    source = LoadedTorch(Anchored().eval(), signature).with_examples(inputs)
    result = TARGET.convert(source, ConversionRequest(precision, tmp_path))
    assert result.signature.outputs == signature.outputs
    actual = RUNTIME.open(tmp_path / "model.onnx", threads=1).infer(inputs)
    for name, expected in source.run(inputs).items():
        np.testing.assert_allclose(actual[name], expected, atol=1e-6 if precision == "float32" else 0.02)

"""Forms of int8 files, in the real runtimes: types of inputs and outputs, ranges, scales per tensor."""

import numpy as np
import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.values.deployment_presets import PRESETS
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes import executorch, litert, onnxruntime
from edgekit.sources._module import LoadedTorch
from edgekit.stages.conversion.preset_lint import preset_findings
from edgekit.targets.executorch import TARGET as EXECUTORCH
from edgekit.targets.onnx import TARGET as ONNX
from edgekit.targets.tflite import TARGET as TFLITE
from edgekit.targets.torchscript import TARGET as TORCHSCRIPT

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and torchao deprecate one another's names
SIGNATURE = Signature(
    (TensorSpec("image", ("batch", 3, 8, 8), "float32"),), (TensorSpec("scores", ("batch", 5), "float32"),)
)
RUNTIMES = {"tflite": litert.RUNTIME, "onnx": onnxruntime.RUNTIME, "executorch": executorch.RUNTIME}
PIXELS = {"image": (0.0, 1.0)}
UNSIGNED = QuantizationForm("uint8", "int8", ranges=PIXELS)
SIGNED = QuantizationForm("int8", "uint8", per_tensor=True, symmetric_activations=True)
FLOAT = QuantizationForm("float32", "float32", per_tensor=True, ranges=PIXELS)


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 4, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 5),
    )
    return LoadedTorch(torch.nn.Sequential(*layers).eval(), SIGNATURE)


@pytest.fixture(scope="module")
def images():
    # Samples do not reach the ends of the range that pixels have.
    return {"image": np.random.default_rng(0).uniform(0.1, 0.8, (32, 3, 8, 8)).astype(np.float32)}


def converted(target, source, images, folder, form, **options):
    fixed = source if target is ONNX else source.at(source.signature.sized({"batch": 1}), {})
    result = target.convert(fixed, ConversionRequest("int8", folder, images, form=form, **options))
    session = RUNTIMES[target.name].open(folder / result.file, threads=1, signature=result.signature)
    outputs = session.infer(images)
    return result.signature, sqnr_db(source.run(images)["scores"], outputs["scores"])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [None, "moving-average"])
@pytest.mark.parametrize("target", [TFLITE, ONNX], ids=lambda target: target.name)
def test_types_and_ranges_are_those_of_the_form(target, recipe, source, images, tmp_path):
    recipe = None if recipe is None else Recipe(target.name, "int8", calibration=recipe)
    signature, quality = converted(target, source, images, tmp_path, UNSIGNED, recipe=recipe)
    (read,), (written,) = signature.inputs, signature.outputs
    assert (read.dtype, written.dtype) == ("uint8", "int8")
    # A camera's bytes are the input as they are.
    assert read.quantization.scale == pytest.approx((1 / 255,), rel=1e-6)
    assert read.quantization.zero_point == (0,)
    assert quality > 24  # moving averages clip some activations of random samples

    (tmp_path / "other").mkdir()
    signature, quality = converted(target, source, images, tmp_path / "other", SIGNED, recipe=recipe)
    (read,), (written,) = signature.inputs, signature.outputs
    assert (read.dtype, written.dtype) == ("int8", "uint8")
    assert read.quantization.zero_point == (0,)
    assert written.quantization.zero_point == (128,)
    assert quality > 22


def test_float_ends_stay_float(source, images, tmp_path):
    for target in (TFLITE, ONNX):
        folder = tmp_path / target.name
        folder.mkdir()
        signature, quality = converted(target, source, images, folder, FLOAT)
        assert {spec.dtype for spec in (*signature.inputs, *signature.outputs)} == {"float32"}
        assert quality > 28
        weights = target.describe(folder / target.file_name)
        assert preset_findings(PRESETS["litert-js"], weights) == (() if target is TFLITE else LITERT_SYMBOLIC)


LITERT_SYMBOLIC = tuple(
    f"this file would not run on LiteRT.js: {name} has the symbolic dimension batch" for name in ("image", "scores")
)


@pytest.mark.slow
def test_executorch_takes_and_returns_int8(source, images, tmp_path):
    form = QuantizationForm("int8", "int8", per_tensor=True, symmetric_activations=True, ranges={"image": (-1.0, 1.0)})
    signature, quality = converted(EXECUTORCH, source, images, tmp_path, form)
    (read,), (written,) = signature.inputs, signature.outputs
    assert (read.dtype, written.dtype) == ("int8", "int8")
    assert read.quantization.scale == pytest.approx((1 / 127.5,), rel=1e-6)
    assert written.quantization.zero_point == (0,)
    assert quality > 20


@pytest.mark.parametrize(
    ("target", "form", "message"),
    [
        (TORCHSCRIPT, QuantizationForm(per_tensor=True), "torchscript:int8 has no form with one scale per weight"),
        (EXECUTORCH, UNSIGNED, "executorch:int8 has no uint8 inputs; it has: float32, int8"),
        (ONNX, QuantizationForm(preset="ethos-u"), "ethos-u does not run onnx:int8; it runs: tflite:int8"),
        (ONNX, QuantizationForm(ranges={"picture": (0, 1)}), "unknown tensor 'picture'; known: .*image"),
        (EXECUTORCH, QuantizationForm(ranges={"picture": (0, 1)}), "and picture is none; they are: image, scores"),
    ],
)
def test_what_a_target_does_not_have_is_refused(target, form, message, source, images, tmp_path):
    with pytest.raises(InputError, match=message):
        converted(target, source, images, tmp_path, form)


@pytest.mark.slow
def test_ends_that_the_quantizer_leaves_in_float_are_quantized_too(images, tmp_path):
    """ONNX Runtime has no integer form of Sin: neither input nor output has a QDQ pair."""

    class Waves(torch.nn.Module):
        def forward(self, image):
            return torch.sin(image).mean((2, 3))

    specs = (TensorSpec("scores", ("batch", 3), "float32"),)
    source = LoadedTorch(Waves(), Signature(SIGNATURE.inputs, specs))
    signature, quality = converted(ONNX, source, images, tmp_path, UNSIGNED)
    assert signature.inputs[0].quantization.zero_point == (0,)
    assert signature.outputs[0].dtype == "int8"
    assert quality > 25


def test_an_operator_that_does_not_run_there_is_named(source, images, tmp_path):
    converted(ONNX, source, images, tmp_path, QuantizationForm("uint8"))
    description = ONNX.describe(tmp_path / "model.onnx")
    findings = preset_findings(PRESETS["ethos-u"], description)
    assert findings[0] == (
        "Conv, DequantizeLinear, Gemm, QuantizeLinear, Reshape do not run on Arm Ethos-U:"
        " the processor beside it runs them"
    )
    assert not any("do not run" in finding for finding in preset_findings(PRESETS["onnxruntime-mobile"], description))

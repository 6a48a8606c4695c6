"""Steps in front of the images of every kind of source, against a computation outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from _helpers.worker_side.preprocessed_models import STEPS, expected_input, images
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekit.contracts.source import SOURCES
from edgekit.core.errors import InputError
from edgekit.core.events import ignore
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.preprocessing import parse_all
from edgekit.stages.models.import_job import ImportRequest, import_user_model

Work = Callable[..., Any]


class Twice(nn.Module):
    """Returns twice its input."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2


def build() -> nn.Module:
    return Twice().eval()


def graph(*shape: Any, opset: int = 17) -> Any:
    """Return a graph with the output 2 * image, computed in a branch that reads the input from outside."""
    value = helper.make_tensor_value_info
    then = helper.make_graph([helper.make_node("Mul", ["image", "two"], ["t"])], "then", [], [value("t", 1, None)])
    other = helper.make_graph([helper.make_node("Neg", ["image"], ["e"])], "else", [], [value("e", 1, None)])
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "large"], ["is_small"]),
        helper.make_node("If", ["is_small"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = {"two": 2.0, "large": 1e9}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [value("image", TensorProto.FLOAT, shape)],
            [value("y", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(np.array(number, np.float32), name) for name, number in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


def imported(kind: str, path: Path, folder: Path, text: str = STEPS, **options: Any) -> SourceModel:
    target = folder / "source"
    target.mkdir()
    return import_user_model(
        ImportRequest("net", kind, str(folder), str(path), preprocess=parse_all([text]), folder=str(target), **options),
        ignore,
    )


def outputs_of(source: SourceModel, folder: Path, pixels: Any) -> Any:
    """Return the output of the source, loaded from its record."""
    source = load_source(folder / "source")
    kind = SOURCES.load(source.kind)
    loaded = kind.load(folder / "source" / source.file, source.all_inputs(source.signature), None)
    loaded = loaded.with_preprocessing(source.preprocessing).at(source.signature, source.sizes)
    loaded = loaded.with_examples({"image": pixels})
    trace = loaded.trace({"image": pixels[:1]}) if kind.name == "torch" else {}
    assert all(array.dtype == np.float32 for array in trace.values())
    return next(iter(loaded.run({"image": pixels}).values()))


def saved_torch(folder: Path, kind: str) -> Path:
    example = torch.zeros(2, 3, 16, 16)
    if kind == "torch":
        program = torch.export.export(build(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, folder / "net.pt2")
        return folder / "net.pt2"
    torch.jit.script(build()).save(str(folder / "net.pt"))
    return folder / "net.pt"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["torch", "torchscript"])
def test_steps_in_front_of_a_module(tmp_path: Path, kind: str) -> None:
    from edgekit.stages.models.model_refs import parse_input

    pixels = images(6)
    np.savez(tmp_path / "raw.npz", image=pixels)
    inputs = (parse_input("image:batchx3x16x16:float32"),) if kind == "torchscript" else ()
    source = imported(kind, saved_torch(tmp_path, kind), tmp_path, sample=str(tmp_path / "raw.npz"), inputs=inputs)
    (image,) = source.signature.inputs
    assert (image.shape[1:], image.dtype, image.layout) == ((24, 30, 3), "uint8", "NHWC")
    assert source.signature.outputs[0].shape[1:] == (3, 16, 16)
    assert [*source.rounding]  # computed in float64 as well
    expected = 2 * expected_input(pixels).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(outputs_of(source, tmp_path, pixels), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "opset"), [((None, 3, 16, 16), 17), (("n", 16, 16, 3), 13), ((1, 3, 16, 16), 11)])
def test_steps_in_front_of_a_graph(tmp_path: Path, shape: Any, opset: int) -> None:
    pixels = images(6)
    onnx.save(graph(*shape, opset=opset), tmp_path / "net.onnx")
    np.save(tmp_path / "raw.npy", pixels)
    source = imported("onnx", tmp_path / "net.onnx", tmp_path, sample=str(tmp_path / "raw.npy"))
    assert source.signature.inputs[0].shape[1:] == (24, 30, 3)
    expected = 2 * expected_input(pixels)
    expected = expected if shape[3] == 3 else expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(outputs_of(source, tmp_path, pixels), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["keras", "saved-model"])
def test_steps_in_front_of_tensorflow(work: Work, tmp_path: Path, kind: str) -> None:
    result = work("keras", "preprocessed_models:preprocessed_model", kind=kind, folder=tmp_path)
    assert result["notes"] == [
        "the input image is preprocessed: 24x30 uint8 NHWC bgr, resized to 18x22, cropped to 16x16, scaled by"
        " 0.00392157, minus 0.485/0.456/0.406, divided by 0.229/0.224/0.225"
    ]
    assert result["sqnr_db"] > 110
    assert result["rounding"]  # computed in float64 as well
    shape, dtype, scale, sqnr_db = result["files"]["float32"]
    assert (shape, dtype, scale) == ((1, 24, 30, 3), "uint8", None)
    assert sqnr_db > 110
    shape, dtype, scale, sqnr_db = result["files"]["int8"]
    assert (shape, dtype, scale) == ((1, 24, 30, 3), "uint8", ((1.0,), (0,)))
    assert sqnr_db > 28  # 29.4 dB with the normalized images as input


def test_an_image_in_floats_of_another_layout(tmp_path: Path) -> None:
    pixels = images(6).transpose(0, 3, 1, 2).astype(np.float32)
    onnx.save(graph("n", 16, 16, 3), tmp_path / "net.onnx")
    np.save(tmp_path / "raw.npy", pixels)
    source = imported(
        "onnx",
        tmp_path / "net.onnx",
        tmp_path,
        f"{STEPS},layout=nchw,dtype=float32",
        sample=str(tmp_path / "raw.npy"),
    )
    (image,) = source.signature.inputs
    assert (image.shape[1:], image.dtype, image.layout) == ((3, 24, 30), "float32", "NCHW")
    expected = 2 * expected_input(pixels.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(outputs_of(source, tmp_path, pixels), expected, atol=1e-5)


def test_samples_of_the_old_shape_are_refused_by_what_they_are(tmp_path: Path) -> None:
    onnx.save(graph("n", 3, 16, 16), tmp_path / "net.onnx")
    np.save(tmp_path / "old.npy", np.zeros((4, 3, 16, 16), np.float32))
    sentence = (
        r"image has the shape \(4, 3, 16, 16\) where the model takes Nx24x30x3; samples are the images in front of the"
        r" preprocessing \(image nx24x30x3 uint8\)"
    )
    with pytest.raises(InputError, match=sentence) as caught:
        imported("onnx", tmp_path / "net.onnx", tmp_path, sample=str(tmp_path / "old.npy"))
    assert "preprocess" in caught.value.parameters


def test_without_samples_the_golden_ones_are_pixels(tmp_path: Path) -> None:
    from edgekit.core.records import samples

    onnx.save(graph("n", 3, 16, 16), tmp_path / "net.onnx")
    imported("onnx", tmp_path / "net.onnx", tmp_path)
    golden = samples.load(tmp_path / "source" / "golden.npz", "golden samples").inputs["image"]
    assert (golden.dtype, golden.min(), golden.max()) == ("uint8", 0, 255)


def test_a_folder_of_images_is_read_as_the_application_has_them(tmp_path: Path) -> None:
    from PIL import Image

    from edgekit.core.records import samples

    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.new("RGB", (30, 24), (200, 100, 50 + index)).save(tmp_path / "photos" / f"{index}.png")
    onnx.save(graph("n", 3, 16, 16), tmp_path / "net.onnx")
    imported("onnx", tmp_path / "net.onnx", tmp_path, calibration=str(tmp_path / "photos"))
    pixels = samples.load(tmp_path / "source" / "calibration.npz", "calibration samples").inputs["image"]
    assert pixels.dtype == np.uint8
    assert sorted(map(tuple, pixels[:, 3, 4])) == [(50 + index, 100, 200) for index in range(4)]  # BGR


def test_synthetic_calibration_needs_images(tmp_path: Path) -> None:
    torch_file = saved_torch(tmp_path, "torch")
    with pytest.raises(InputError, match="samples cannot be synthesized in front of preprocessing; pass images"):
        imported("torch", torch_file, tmp_path, calibration="synthetic")

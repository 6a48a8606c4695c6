"""Recipes that keep single layers in float: real float files, the real quantizers, files that run."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import sqnr_db
from edgekit.core.records import samples
from edgekit.core.records.source import load_source
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes import litert, onnxruntime
from edgekit.sources._module import LoadedTorch
from edgekit.targets._onnx import mixed_precision
from edgekit.targets.onnx import TARGET as ONNX
from edgekit.targets.tflite import TARGET as TFLITE
from edgekit.targets.torchscript import TARGET as TORCHSCRIPT
from edgekit.tflite_files.graph import parse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`"),
]
WIDE = ("0:CONV_2D", "1:CONV_2D")


@pytest.fixture(scope="module")
def source(broken: Path):
    return load_source(broken / "build/broken/keras/source")


@pytest.fixture(scope="module")
def calibration(broken: Path):
    loaded = samples.load(broken / "build/broken/keras/source/calibration.npz", "samples")
    return {name: array[:32] for name, array in loaded.inputs.items()}


@pytest.fixture(scope="module")
def golden(broken: Path):
    return samples.load(broken / "build/broken/keras/source/golden.npz", "samples")


@pytest.fixture(scope="module")
def flatbuffer(broken: Path) -> Path:
    return broken / "build/broken/keras/tflite-float32/model.tflite"


@pytest.fixture(scope="module")
def graph(broken: Path, tmp_path_factory) -> Path:
    model = onnx.load(broken / "build/broken/keras/onnx-float32/model.onnx")
    path = mixed_precision.prepare(model, tmp_path_factory.mktemp("prepared"))
    mixed_precision.name_nodes(path)
    return path


@pytest.fixture
def convert(flatbuffer, graph, source, calibration, tmp_path):
    """`convert(TFLITE, precision="int8", ...)` returns the path of the file."""

    def convert(target, cache_folder=None, **options):
        recipe = Recipe(target.name, **{"precision": "int8", **options})
        job = ConversionRequest(recipe.precision, tmp_path, calibration, recipe=recipe, cache_folder=cache_folder)
        base, signature = (
            (graph, source.signature)
            if target is ONNX
            else (
                flatbuffer,
                source.signature.sized({"batch": 1}),
            )
        )
        converted = target.select(base, signature, job)
        return (tmp_path / converted.file).rename(tmp_path / f"{len(list(tmp_path.iterdir()))}-{converted.file}")

    return convert


def quality(runtime, path, golden):
    session = runtime.RUNTIME.open(path, threads=1)
    return sqnr_db(golden.outputs["scores"], session.infer(golden.inputs)["scores"])


def weight_types(path):
    """The type of each convolution's and dense layer's weights, in order."""
    model = parse(path)
    graph = model.subgraphs[0]
    codes = {0: "float32", 9: "int8", 17: "int4"}
    types = [
        codes[graph.tensors[op.inputs[1]].type]
        for op in graph.operators
        if model.operatorCodes[op.opcodeIndex].builtinCode in (3, 9)  # CONV_2D, FULLY_CONNECTED
    ]
    assert len(types) == 4
    return types


def test_the_layers_of_a_flatbuffer_are_its_operators_its_inputs_and_its_outputs(flatbuffer):
    layers = TFLITE.layers(flatbuffer)
    assert [layer.name for layer in layers] == [
        "INPUT",
        *WIDE,
        "2:RESHAPE",
        "3:FULLY_CONNECTED",
        "4:HARD_SWISH",
        "5:FULLY_CONNECTED",
        "6:SOFTMAX",
        "OUTPUT",
    ]
    weights = {layer.name: layer.weights for layer in layers}
    assert weights["0:CONV_2D"] == 3 * 3 * 16 + 16
    assert weights["1:CONV_2D"] == 3 * 3 * 16 * 16 + 16
    assert weights["2:RESHAPE"] == 0
    assert layers[0].outputs == layers[1].inputs
    assert layers[-1].inputs == layers[-2].outputs
    assert [layer.name for layer in layers if not layer.int16] == ["INPUT", "4:HARD_SWISH", "OUTPUT"]


def test_layers_stay_in_float_and_the_others_do_not(convert, golden):
    int8, mixed = convert(TFLITE, calibration="minmax"), convert(TFLITE, calibration="minmax", float_layers=WIDE)
    assert weight_types(int8) == ["int8"] * 4
    assert weight_types(mixed) == ["float32", "float32", "int8", "int8"]
    assert quality(litert, int8, golden) < 5
    assert quality(litert, mixed, golden) > 35


@pytest.mark.parametrize(
    ("layer", "expected"),
    [("INPUT", ["float32", "int8"]), ("OUTPUT", ["int8", "float32"]), ("6:SOFTMAX", ["int8"] * 2)],
)
def test_inputs_and_outputs_are_layers_of_their_own(convert, layer, expected):
    session = litert.RUNTIME.open(convert(TFLITE, float_layers=(layer,)), threads=1)
    assert [spec.dtype for spec in (*session.signature.inputs, *session.signature.outputs)] == expected


def test_layers_with_int16_activations_keep_int8_weights(convert, golden):
    path = convert(TFLITE, int16_layers=WIDE)
    assert weight_types(path) == ["int8"] * 4
    assert any(tensor.type == 7 for tensor in parse(path).subgraphs[0].tensors)  # INT16
    assert quality(litert, path, golden) > 25


def test_int16_activations_are_rejected_where_they_are_not_supported(convert):
    with pytest.raises(InputError, match="int16 activations of 4:HARD_SWISH, which TFLite does not support"):
        convert(TFLITE, int16_layers=("4:HARD_SWISH",))
    with pytest.raises(InputError, match="int16_layers are supported at the precision int8 only, not at dynamic"):
        convert(TFLITE, precision="dynamic", int16_layers=("0:CONV_2D",))
    with pytest.raises(
        InputError, match="onnx does not support int16_layers in a recipe; keep these layers in float_layers"
    ):
        convert(ONNX, int16_layers=("x",))


def test_dynamic_and_int4_keep_layers_in_float_too(convert, golden):
    for precision in ("dynamic", "int4"):
        assert "float32" in weight_types(convert(TFLITE, precision=precision, float_layers=WIDE))
    assert quality(litert, convert(TFLITE, precision="dynamic", float_layers=WIDE), golden) > 30


@pytest.mark.parametrize("target", [TFLITE, ONNX], ids=["tflite", "onnx"])
def test_an_unknown_layer_is_rejected_with_similar_names(convert, target):
    with pytest.raises(InputError, match="a layer '0:CONV_3D' that this model does not have; near: "):
        convert(target, float_layers=("0:CONV_3D",))


@pytest.mark.parametrize("target", [TFLITE, ONNX], ids=["tflite", "onnx"])
def test_each_calibration_method_gives_its_own_file_and_repeats(convert, target):
    contents = {method: convert(target, calibration=method).read_bytes() for method in target.calibrations}
    again = {method: convert(target, calibration=method).read_bytes() for method in target.calibrations}
    assert again == contents
    assert contents["minmax"] != contents["moving-average"]


def test_the_nodes_of_an_onnx_graph_have_unique_names(graph, source):
    names = [layer.name for layer in ONNX.layers(graph)]
    assert len(set(names)) == len(names) > 5
    assert 0 <= sum(layer.weights for layer in ONNX.layers(graph)) - source.parameters < 10  # hard-swish's constants


def test_nodes_stay_in_float_and_cached_ranges_give_the_same_file(convert, graph, golden, tmp_path):
    convolutions = [layer.name for layer in ONNX.layers(graph) if layer.operator == "Conv"]
    cache = tmp_path / "cache"
    cache.mkdir()
    recipe = {"calibration": "minmax", "float_layers": tuple(convolutions)}
    fresh, first, second = (convert(ONNX, cache_folder=folder, **recipe) for folder in (None, cache, cache))
    assert fresh.read_bytes() == first.read_bytes() == second.read_bytes()
    assert len(list(cache.iterdir())) == 1
    assert quality(onnxruntime, fresh, golden) > 35
    assert quality(onnxruntime, convert(ONNX, calibration="minmax"), golden) < 5


def test_a_node_without_a_name_is_given_one(tmp_path):
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1, 2]) for name in "xy")
    nodes = [onnx.helper.make_node("Relu", ["x"], ["h"]), onnx.helper.make_node("Relu", ["h"], ["y"])]
    path = tmp_path / "unnamed.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y])), path)
    mixed_precision.name_nodes(path)
    assert [node.name for node in onnx.load(path).graph.node] == ["Relu_0", "Relu_1"]


def test_other_targets_reject_a_recipe_with_an_explanation(tmp_path):
    signature = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 2), "float32"),))
    source = LoadedTorch(torch.nn.Linear(4, 2).eval(), signature)
    inputs = {"x": np.zeros((4, 4), np.float32)}
    recipe = Recipe("torchscript", "int8", ("y",))
    with pytest.raises(InputError, match="torchscript keeps single layers in float at no precision"):
        TORCHSCRIPT.convert(source, ConversionRequest("int8", tmp_path, inputs, recipe=recipe))
    assert list(tmp_path.iterdir()) == []


def test_a_precision_or_a_calibration_method_that_a_target_lacks_is_rejected():
    with pytest.raises(InputError, match="onnx keeps single layers in float at dynamic, int8 only"):
        ONNX._check_recipe(Recipe("onnx", "float16", ("x",)))
    with pytest.raises(InputError, match="tflite takes ranges by minmax, moving-average, not by entropy"):
        TFLITE._check_recipe(Recipe("tflite", "int8", calibration="entropy"))

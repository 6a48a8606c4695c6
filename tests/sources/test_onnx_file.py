"""Loading and checking of ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.contracts.source import UserModel
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._onnx_file import load_model
from edgekit.sources.onnx import SOURCE
from edgekit.targets._onnx.simplify import slim

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)


def model(*nodes: Any, weights: onnx.TensorProto | None = None) -> onnx.ModelProto:
    """Return a model that multiplies x (batch, 4) by w (4, 3), followed by the nodes; the last one produces y."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="first"), *nodes],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "w") if weights is None else weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def relu(source: str, target: str, name: str = "") -> Any:
    return helper.make_node("Relu", [source], [target], name=name)


def external(location: str, **more: str) -> onnx.TensorProto:
    """Return a tensor whose weights are stored in an external file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def save(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.startswith(f"{path}: ")
    return sentence.removeprefix(f"{path}: ")


def test_a_valid_model_is_loaded(tmp_path: Path) -> None:
    loaded = load_model(save(tmp_path / "net.onnx", model(relu("h", "y"))))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHTS)


def test_external_weights_are_loaded_into_memory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"1234" + WEIGHTS.tobytes())
    tensor = external("data/w.bin", offset="4", length="48")
    loaded = load_model(save(tmp_path / "net.onnx", model(relu("h", "y"), weights=tensor)))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHTS)


def test_missing_weights_are_reported_with_their_file_name(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", model(relu("h", "y"), weights=external("w.bin")))
    assert refusal(path) == "the weights of 'w' are stored in 'w.bin', and there is no such file beside the model"


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "../{name}/../w.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    location = location.format(name=folder.name)
    path = save(folder / "net.onnx", model(relu("h", "y"), weights=external(location)))
    assert refusal(path) == f"the weights of 'w' are stored in '{location}', which is outside the model's folder"


def test_weights_at_an_absolute_path_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    location = str(tmp_path / "w.bin")
    path = save(tmp_path / "net.onnx", model(relu("h", "y"), weights=external(location)))
    assert refusal(path) == f"the weights of 'w' are stored in '{location}', which is outside the model's folder"


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").symlink_to(tmp_path / "w.bin")
    path = save(tmp_path / "model" / "net.onnx", model(relu("h", "y"), weights=external("w.bin")))
    assert refusal(path).startswith("the weights of 'w' are stored in 'w.bin', which is ")


@pytest.mark.parametrize("more", [{}, {"length": "48"}, {"offset": "99999"}, {"offset": "20", "length": "48"}])
def test_weights_that_are_too_short_are_refused(tmp_path: Path, more: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes()[:40])
    path = save(tmp_path / "net.onnx", model(relu("h", "y"), weights=external("w.bin", **more)))
    assert "'w'" in refusal(path)


def test_weights_in_the_file_that_do_not_fill_their_shape_are_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.raw_data = tensor.raw_data[:-4]
    assert "raw_data size (44 bytes) is too small" in refusal(
        save(tmp_path / "net.onnx", model(relu("h", "y"), weights=tensor))
    )


def test_a_cycle_is_reported_with_a_node_of_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["h", "b"], ["a"], name="add"),
        relu("a", "b", "back"),
        relu("a", "y"),
    ]
    assert refusal(save(tmp_path / "net.onnx", model(*nodes))) == "the graph has a cycle through node 'add'"


def test_a_node_that_reads_its_own_output_is_a_cycle(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["h", "y"], ["y"])]
    assert refusal(save(tmp_path / "net.onnx", model(*nodes))) == "the graph has a cycle through node 'y'"


def test_nodes_out_of_order_are_not_reported_as_a_cycle(tmp_path: Path) -> None:
    nodes = [relu("later", "y", "early"), relu("h", "later")]
    expected = "node 'early' reads 'later', which only a later node produces"
    assert refusal(save(tmp_path / "net.onnx", model(*nodes))) == expected


def test_a_name_that_no_node_produces_is_reported(tmp_path: Path) -> None:
    expected = "node 'last' reads 'nowhere', which no node produces"
    assert refusal(save(tmp_path / "net.onnx", model(relu("nowhere", "y", "last")))) == expected


def test_an_operator_unknown_to_onnx_is_reported(tmp_path: Path) -> None:
    nodes = [helper.make_node("FancyRelu", ["h"], ["y"])]
    sentence = refusal(save(tmp_path / "net.onnx", model(*nodes)))
    assert sentence.startswith("this is not a valid ONNX model (")
    assert "FancyRelu" in sentence


@pytest.mark.parametrize("keep", [1, 20, 0.5, 0.9, -1])
def test_a_truncated_file_is_refused_in_one_sentence(tmp_path: Path, keep: float) -> None:
    path = save(tmp_path / "net.onnx", model(relu("h", "y")))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    refusal(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "this model file is empty"),
        (b"Dear model, how are you?\n" * 40, "this is not an ONNX model, or it is damaged"),
        (b"\x08\x09", "this is not an ONNX model, or it is damaged (it contains no graph)"),
    ],
    ids=["empty", "text", "no graph"],
)
def test_a_file_that_is_not_an_onnx_model_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert refusal(tmp_path / "net.onnx") == sentence


def test_a_missing_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert refusal(tmp_path / "net.onnx") == "no such model file"


def test_a_branch_may_read_values_from_outside_it(tmp_path: Path) -> None:
    def branch(name: str, source: str) -> Any:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([relu(source, name)], name, [], [value])

    def if_nodes(source: str) -> list[Any]:
        condition = numpy_helper.from_array(np.array(True), "yes")
        return [
            helper.make_node("Constant", [], ["yes"], value=condition),
            helper.make_node(
                "If", ["yes"], ["y"], name="if", then_branch=branch("a", source), else_branch=branch("b", "h")
            ),
        ]

    load_model(save(tmp_path / "net.onnx", model(*if_nodes("h"))))
    expected = "node 'if' reads 'nowhere', which no node produces"
    assert refusal(save(tmp_path / "net.onnx", model(*if_nodes("nowhere")))) == expected


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("unknown", [-1, "?", "None"])
def test_unknown_sizes_are_not_sizes_or_names(unknown: int | str, tmp_path: Path) -> None:
    graph = model(relu("h", "y"))
    for value in (*graph.graph.input, *graph.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if isinstance(unknown, int):
                dim.dim_value = unknown
            else:
                dim.dim_param = unknown
    signature = SOURCE.import_model(UserModel(saved(graph, tmp_path)), tmp_path)[1]
    assert signature.inputs[0].shape == ("batch", "x_dim1")


def test_an_output_without_a_type_gets_the_inferred_one(tmp_path: Path) -> None:
    graph = model(relu("h", "y"))
    graph.graph.output.append(onnx.ValueInfoProto(name="h"))
    graph.graph.value_info.append(onnx.ValueInfoProto(name="h"))
    loaded = load_model(saved(graph, tmp_path))
    assert loaded.graph.output[1].type.tensor_type.elem_type == TensorProto.FLOAT


def test_an_input_that_nothing_reads_stays(tmp_path: Path) -> None:
    graph = model(relu("h", "y"))
    graph.graph.input.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, ["batch", 2]))
    path = saved(graph, tmp_path)
    signature = Signature(
        (TensorSpec("x", ("batch", 4), "float32"), TensorSpec("unused", ("batch", 2), "float32")),
        (TensorSpec("y", ("batch", 3), "float32"),),
    )
    slimmed = slim(load_model(path), signature)
    assert [value.name for value in slimmed.graph.input] == ["x", "unused"]
    onnx.checker.check_model(slimmed)

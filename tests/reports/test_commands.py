"""The commands that a report prints: they parse, and each one selects exactly the artifact that it is printed for."""

import html
import json
import re
import shlex
import shutil
from dataclasses import replace

import onnx
import pytest
from _helpers.sample_reports import by_layer, measurement, row
from _helpers.support import call
from onnx import TensorProto, helper

from edgekit.core.records.artifact import load_artifact
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.reports._shared.commands import (
    bench_command,
    check_command,
    diff_command,
    export_command,
    validate_command,
)


def test_a_tuned_artifact_is_exported_from_its_recipe():
    manifest = replace(row("tflite:int8-tuned").artifact.manifest, calibration={"samples": 100})
    assert export_command(manifest) == (
        "edgekit export tiny --framework keras --recipe build/tiny/keras/tflite-int8-tuned/recipe.json"
        " --route keras,tflite"
    )


def test_an_untuned_artifact_is_exported_by_its_variant():
    manifest = replace(row("tflite:int8").artifact.manifest, calibration={"samples": 100})
    assert export_command(manifest) == (
        "edgekit export tiny --framework keras --target tflite:int8 --route keras,tflite --calibration-samples 100"
    )


def test_the_export_command_has_the_form_of_a_quantized_file():
    form = {"preset": "litert-js", "per_tensor": True, "inference_input_type": "uint8", "ranges": {"a=b": [0.0, 1.0]}}
    manifest = row("tflite:int8").artifact.manifest
    manifest = replace(manifest, options={**manifest.options, "form": form})
    assert str(manifest.variant) == "tflite:int8-litert-js-in-uint8-per-tensor-ranges"
    assert export_command(manifest).partition("keras,tflite ")[2] == (
        "--range a=b=0.0..1.0 --for litert-js --per-tensor --inference-input-type uint8"
    )


@pytest.mark.slow
def test_the_export_command_has_the_dimensions_layout_and_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 3, 4])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2, 3, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["scores"])], "tiny", [images], [scores])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    settings = ("--dim", "batch=2", "--layout", "NHWC", "--ir-version", "9", "--opset", "15")
    answer = call("export", "net.onnx", "--target", "onnx:float32", *settings)
    assert answer.code == 0, answer.err
    folder = tmp_path / "build/net/onnx/onnx-float32"
    before = (folder / "model.onnx").read_bytes(), (folder / MANIFEST_FILE).read_bytes()
    command = export_command(load_artifact(folder).manifest)
    assert command == f"edgekit export net --target onnx:float32 --route onnx,onnx {' '.join(settings)}"
    shutil.rmtree(folder)
    answer = call(*shlex.split(command)[1:])
    assert answer.code == 0, answer.err
    assert ((folder / "model.onnx").read_bytes(), (folder / MANIFEST_FILE).read_bytes()) == before


def test_the_other_commands_name_the_tuned_variant():
    manifest = row("tflite:int8-tuned").artifact.manifest
    select = "tiny --framework keras --target tflite:int8-tuned"
    assert validate_command(manifest) == f"edgekit validate {select}"
    assert check_command(manifest) == f"edgekit check {select}"
    assert bench_command(measurement("host", tag="tuned")) == f"edgekit bench {select} --threads 1"
    layers = replace(by_layer("tflite:int8-tuned"), reference="tflite:float32")
    assert diff_command(layers) == "edgekit diff build/tiny/keras/tflite-float32 build/tiny/keras/tflite-int8-tuned"


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A project with linear as tflite:int8 and as tflite:int8-tuned, both validated, benchmarked and judged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(
        json.dumps({"target": "tflite", "precision": "int8", "calibration_samples": 50})
    )
    for arguments in (
        ("export", "linear", "--framework", "keras", "--target", "tflite:int8"),
        ("export", "linear", "--framework", "keras", "--recipe", "mine.json"),
        ("validate", "linear"),
        ("bench", "linear", "--min-duration", "0", "--min-runs", "3"),
        ("diff", "build/linear/keras/tflite-int8-tuned"),
    ):
        answer = call(*arguments)
        assert answer.code == 0, answer.err
    return tmp_path


def printed_commands(variant):
    """The commands of the HTML report's evidence on an artifact, by name."""
    page = call("report", "--format", "html").out
    (part,) = [item for item in page.split('<details class="evidence"')[1:] if f"<b>{variant}</b>" in item]
    commands = part.partition('<dl class="commands">')[2].partition("</dl>")[0]
    return {name: html.unescape(text) for name, text in re.findall(r"<dt>([^<]+)<dd>([^\n]+)\n", commands)}


@pytest.mark.exhaustive
def test_each_command_that_is_printed_selects_exactly_its_artifact(built):
    file = built / "build/linear/keras/tflite-int8-tuned/model.tflite"
    before = file.read_bytes()
    assert file.read_bytes() != (built / "build/linear/keras/tflite-int8/model.tflite").read_bytes()
    commands = printed_commands("tflite:int8-tuned")
    assert set(commands) == {"export", "validate", "bench host", "diff", "check"}
    data = {}
    for name, command in commands.items():
        program, *arguments = shlex.split(command)
        assert program == "edgekit"
        answer = call(*arguments, "--json")
        assert answer.code == 0, (command, answer.err)
        data[name] = answer.data
    assert [item["folder"] for item in data["export"]["artifacts"]] == [str(file.parent)]
    assert file.read_bytes() == before
    assert [item["tag"] for item in data["validate"]["validations"]] == ["tuned"]
    assert [item["tag"] for item in data["bench host"]["measurements"]] == ["tuned"]
    assert (built / data["diff"]["kept"]) == file.parent / "layers.json"
    assert {item["variant"] for item in data["check"]["verdicts"]} == {"tflite:int8-tuned"}

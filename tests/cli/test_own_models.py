"""Models of users on the command line: imported, exported and validated, or refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _helpers.support import Answer, call
from onnx import TensorProto, helper
from PIL import Image

from edgekit.core.environment import plugin_registry
from edgekit.core.records import samples
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.source import SourceModel, load_source
from edgekit.workers.pool import WorkerPool

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "fixtures" / "own_models"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
IMAGE = "image:batch,1,8,8"
PHOTO = "image:batch,3,8,8"

# Name of the model -> its argument on the command line, its options, its variants
EXPORTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "two": ("two.keras", (), ("tflite:float32", "onnx:float32")),
    "two_old": ("two_old.h5", (), ("onnx:float32",)),
    "served": ("served", (), ("tflite:float32", "onnx:float32")),
    "net": (
        "net.py:build",
        ("--weights", "net.safetensors", "--sample", "digits.npz"),
        ("onnx:float32", "onnx:int8", "torchscript:int8"),
    ),
    "state": (
        "net.py:build",
        ("--weights", "checkpoint.pt", "--name", "state", "--input", IMAGE),
        ("torchscript:float32",),
    ),
    "net_tokens": (
        "net.py:tokens",
        ("--input", "ids:batch,seq:int64", "--dim", "seq=6"),
        ("onnx:float32", "torchscript:float32"),
    ),
    "program": (
        "program.pt2",
        ("--dim", "batch=4", "--opset", "17", "--ir-version", "9"),
        ("onnx:float32", "torchscript:float32"),
    ),
    "traced": ("traced.pt", ("--input", IMAGE), ("torchscript:float32", "onnx:float32")),
    "relaid": (
        "net.py:masks",
        ("--weights", "masks.safetensors", "--name", "relaid", "--input", PHOTO, "--layout", "NHWC"),
        ("onnx:float32", "torchscript:float32"),
    ),
    "from_file": (
        "net.py:build",
        ("--weights", "state.pth", "--name", "from_file", "--sample", "digits.npz", "--calibration", "more_digits.npz"),
        ("onnx:int8",),
    ),
    "sorted": (
        "net.py:build",
        ("--weights", "state.pth", "--name", "sorted", "--sample", "sorted_digits.npz"),
        ("onnx:int8",),
    ),
    "from_photos": (
        "net.py:masks",
        ("--name", "from_photos", "--sample", "photos.npz", "--calibration", "photos"),
        ("onnx:int8",),
    ),
    "from_generator": (
        "net.py:masks",
        ("--name", "from_generator", "--sample", "photos.npz", "--calibration", "data.py:photos"),
        ("onnx:int8",),
    ),
}
VARIANTS = [(name, variant) for name, (_, _, variants) in EXPORTS.items() for variant in variants]


@pytest.fixture(scope="module", autouse=True)
def _warm(pool: WorkerPool) -> Iterator[None]:
    """Let commands share the workers of the session, instead of starting their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.workers.pool.WorkerPool", lambda **_: contextlib.nullcontext(pool))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models, code and samples, written by their frameworks; tests must not change it."""
    folder = tmp_path_factory.mktemp("models")
    for path in FIXTURES.glob("*.py"):
        shutil.copy(path, folder)
    making = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", folder / f"make_{framework}.py", folder],
            env={**os.environ, **QUIET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for framework in ("torch", "keras")
    ]
    for process in making:
        _, said = process.communicate()
        assert process.returncode == 0, said
    (folder / "photos").mkdir()
    rng = np.random.default_rng(3)
    for index in range(40):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index:02}.png")
    return folder


@pytest.fixture
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make that folder the current one."""
    monkeypatch.chdir(models)
    return models


class SharedProject:
    """Project in which each model of `EXPORTS` is imported, exported and validated when a test first needs it."""

    def __init__(self, models: Path, root: Path) -> None:
        self.models, self.root = models, root
        self._answers: dict[tuple[str, str], Answer] = {}

    def exported(self, name: str) -> Answer:
        """Return the answer of the export."""
        text, options, variants = EXPORTS[name]
        if ("export", name) not in self._answers:
            with contextlib.chdir(self.models):
                answer = call("export", text, *options, *_targets(variants), "--root", self.root)
            self._answers["export", name] = answer
        return self._answers["export", name]

    def validated(self, name: str) -> Answer:
        """Return the answer of validating its artifacts."""
        self.exported(name)
        if ("validate", name) not in self._answers:
            self._answers["validate", name] = call("validate", name, "--json", "--root", self.root)
        return self._answers["validate", name]

    def build(self, name: str) -> Path:
        """Return build/<name>/<kind>."""
        self.exported(name)
        (folder,) = (self.root / "build" / name).iterdir()
        return folder

    def source(self, name: str) -> SourceModel:
        """Return the imported model."""
        return load_source(self.build(name) / "source")

    def artifact(self, name: str, variant: str) -> Artifact:
        """Return the artifact of a variant."""
        return load_artifact(self.build(name) / variant.replace(":", "-"))

    def artifacts(self, name: str) -> list[Artifact]:
        """Return the artifacts of all variants."""
        return [self.artifact(name, variant) for variant in EXPORTS[name][2]]


@pytest.fixture(scope="module")
def shared_project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> SharedProject:
    """Return one project for all models; tests must not change it."""
    return SharedProject(models, tmp_path_factory.mktemp("own"))


def _targets(variants: tuple[str, ...]) -> list[str]:
    return [word for variant in variants for word in ("--target", variant)]


def shapes(specs: Any) -> dict[str, tuple[int | str, ...]]:
    return {spec.name: spec.shape for spec in specs}


# What works


@pytest.mark.parametrize("name", EXPORTS)
def test_a_user_model_is_imported_and_exported(shared_project: SharedProject, name: str) -> None:
    answer = shared_project.exported(name)
    assert answer.code == 0, answer.err
    folders = [str(shared_project.build(name) / variant.replace(":", "-")) for variant in EXPORTS[name][2]]
    assert sorted(answer.out.splitlines()) == sorted(folders)
    assert leftover_files(shared_project.root) == []


@pytest.mark.parametrize("name", EXPORTS)
def test_every_artifact_is_equivalent_to_the_users_model(shared_project: SharedProject, name: str) -> None:
    answer = shared_project.validated(name)
    assert answer.code == 0, answer.err
    found = {f"{item['target']}:{item['precision']}": item["passed"] for item in answer.data["validations"]}
    assert found == dict.fromkeys(EXPORTS[name][2], True)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("two", ["picture", "extra"], ["scores", "side"]),
        ("two_old", ["picture", "extra"], ["scores", "side"]),
        ("net", ["image"], ["output"]),
        ("net_tokens", ["ids"], ["vectors", "pooled", "moved"]),
        ("traced", ["image"], ["output"]),
        ("program", ["image"], ["linear"]),
    ],
)
def test_the_names_of_inputs_and_outputs_survive_in_order(
    shared_project: SharedProject, name: str, inputs: list[str], outputs: list[str]
) -> None:
    for record in (shared_project.source(name), *(artifact.manifest for artifact in shared_project.artifacts(name))):
        assert [spec.name for spec in record.signature.inputs] == inputs
        assert [spec.name for spec in record.signature.outputs] == outputs


def test_the_names_of_a_saved_models_signature_survive(shared_project: SharedProject) -> None:
    signature = shared_project.source("served").signature
    assert {spec.name for spec in signature.inputs} == {"picture", "extra"}
    for artifact in shared_project.artifacts("served"):
        assert [spec.name for spec in artifact.manifest.signature.inputs] == [spec.name for spec in signature.inputs]
        assert [spec.name for spec in artifact.manifest.signature.outputs] == [spec.name for spec in signature.outputs]


def test_shapes_and_types_of_a_dict_of_outputs_are_found_by_running(shared_project: SharedProject) -> None:
    source = shared_project.source("net_tokens")
    assert shapes(source.signature.outputs) == {
        "vectors": ("batch", "seq", 4),
        "pooled": ("batch", 4),
        "moved": ("batch", "seq"),
    }
    types = [spec.dtype for spec in (*source.signature.inputs, *source.signature.outputs)]
    assert types == ["int64", "float32", "float32", "int64"]
    assert source.sizes == {"seq": 6}


@pytest.mark.parametrize("name", ["two", "state", "net_tokens"])
def test_without_a_sample_golden_samples_are_random_numbers_and_noted(shared_project: SharedProject, name: str) -> None:
    note = "golden samples are random numbers; pass a sample of real inputs (npz or npy)"
    assert shared_project.source(name).notes == (note,)
    assert all(note in artifact.manifest.notes for artifact in shared_project.artifacts(name))
    assert note in shared_project.exported(name).err


def test_with_a_sample_there_is_nothing_to_note(shared_project: SharedProject) -> None:
    assert shared_project.source("net").notes == ()


def test_a_sample_is_split_into_golden_calibration_and_test_samples(shared_project: SharedProject) -> None:
    folder = shared_project.build("net") / "source"
    parts = [samples.load(folder / f"{part}.npz", part) for part in ("golden", "calibration", "test")]
    rows = np.concatenate([part.inputs["image"] for part in parts])
    assert len(rows) == sum(part.count for part in parts) == 160
    assert len(np.unique(rows, axis=0)) == 160
    assert all(part.labels is not None and len(part.labels) == part.count for part in parts)


def test_labels_in_the_sample_give_an_accuracy_and_a_drift(shared_project: SharedProject) -> None:
    source = shared_project.source("net")
    assert (source.task, source.metric) == ("classification", "accuracy")
    assert source.metric_value is not None
    assert source.metric_value > 0.9
    drifts = [validation["drift"] for validation in shared_project.validated("net").data["validations"]]
    assert len(drifts) == len(EXPORTS["net"][2])
    for drift in drifts:
        assert drift["metric"] == "accuracy"
        assert drift["source"] == pytest.approx(source.metric_value)
        assert abs(drift["drop"]) < 0.05


def test_samples_that_are_sorted_by_class_are_split_by_class(shared_project: SharedProject) -> None:
    folder = shared_project.build("sorted") / "source"
    parts = [samples.load(folder / f"{part}.npz", part).labels for part in ("golden", "calibration", "test")]
    whole = np.bincount(np.concatenate(parts), minlength=3)
    for labels in parts:
        np.testing.assert_allclose(np.bincount(labels, minlength=3), whole * len(labels) / whole.sum(), atol=2)
    source = shared_project.source("sorted")
    assert source.data["split"] == "drawn with seed 0, by class"
    assert source.notes == ("labels of shape (160, 1) are read as one class index per sample",)
    (artifact,) = shared_project.artifacts("sorted")
    assert artifact.manifest.source["split"] == source.data["split"]
    assert "calibration samples:" not in shared_project.exported("sorted").err


def test_without_labels_there_is_no_accuracy(shared_project: SharedProject) -> None:
    source = shared_project.source("from_photos")
    assert (source.task, source.metric, source.metric_value) == (None, None, None)
    assert all(
        validation["drift"] is None for validation in shared_project.validated("from_photos").data["validations"]
    )


@pytest.mark.parametrize(("name", "count"), [("from_file", 64), ("from_photos", 40), ("from_generator", 64)])
def test_calibration_samples_are_those_that_were_given(shared_project: SharedProject, name: str, count: int) -> None:
    record = shared_project.artifact(name, "onnx:int8").manifest.calibration
    assert record is not None
    assert record["samples"] == count
    kept = samples.load(shared_project.build(name) / "source" / "calibration.npz", "calibration samples").inputs[
        "image"
    ]
    assert (len(kept), kept.dtype) == (count, np.float32)


@pytest.mark.parametrize("variant", EXPORTS["relaid"][2])
def test_a_layout_is_that_of_the_file_and_its_transposes_are_counted(
    shared_project: SharedProject, variant: str
) -> None:
    assert shapes(shared_project.source("relaid").signature.inputs) == {"image": ("batch", 3, 8, 8)}
    artifact = shared_project.artifact("relaid", variant)
    signature, options = artifact.manifest.signature, artifact.manifest.options
    assert [spec.layout for spec in (*signature.inputs, *signature.outputs)] == ["NHWC", "NHWC"]
    assert signature.inputs[0].shape[1:] == (8, 8, 3)
    assert signature.outputs[0].shape[1:] == (8, 8, 2)
    assert artifact.golden().inputs["image"].shape[1:] == (8, 8, 3)
    assert options["layout"] == "NHWC"
    assert options["transposes"] > 0
    note = f"layout NHWC: {options['transposes']} transposes in the file, "
    assert any(text.startswith(note) for text in artifact.manifest.notes)


def test_the_reported_transposes_are_those_in_the_file(shared_project: SharedProject) -> None:
    artifact = shared_project.artifact("relaid", "onnx:float32")
    nodes = onnx.load(artifact.path).graph.node
    assert sum(node.op_type == "Transpose" for node in nodes) == artifact.manifest.options["transposes"]


def test_a_size_fixes_a_dimension(shared_project: SharedProject) -> None:
    assert shapes(shared_project.source("program").signature.inputs) == {"image": ("batch", 1, 8, 8)}
    for artifact in shared_project.artifacts("program"):
        assert shapes(artifact.manifest.signature.inputs) == {"image": (4, 1, 8, 8)}
        assert shapes(artifact.manifest.signature.outputs) == {"linear": (4, 3)}
        assert artifact.manifest.options["dims"] == {"batch": 4}


def test_the_opset_and_the_ir_version_that_were_asked_for_land_in_the_file(shared_project: SharedProject) -> None:
    artifact = shared_project.artifact("program", "onnx:float32")
    model = onnx.load(artifact.path)
    assert {item.domain: item.version for item in model.opset_import} == {"": 17}
    assert model.ir_version == 9
    assert (artifact.manifest.options["opset"], artifact.manifest.options["ir_version"]) == (17, 9)


def test_a_model_is_known_by_its_name_afterwards(
    shared_project: SharedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shared_project.build("two"), tmp_path / "build" / "two" / "keras")
    monkeypatch.chdir(tmp_path)
    answer = call("export", "two", "--target", "onnx:float16", "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert load_artifact(tmp_path / "build" / "two" / "keras" / "onnx-float16").manifest.source["kind"] == "keras"


def test_what_needs_calibration_is_left_out_of_everything_and_refused_by_name(
    shared_project: SharedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shared_project.build("traced"), tmp_path / "build" / "traced" / "torchscript")
    monkeypatch.chdir(tmp_path)
    answer = call("export", "traced", "--explain", "--json", "--root", tmp_path)
    assert answer.code == 0, answer.err
    variants = {item["variant"] for item in answer.data["plans"]}
    assert "onnx:float32" in variants
    assert not variants & {"onnx:int8", "tflite:int8", "tflite:int16x8"}
    assert "skipped " in answer.err
    assert "onnx:int8" in answer.err
    assert "no calibration samples (see --calibration, --sample)" in answer.err
    answer = call("export", "traced", "--target", "onnx:int8", "--root", tmp_path)
    assert answer.code == 2
    assert "onnx:int8 of traced needs calibration samples: pass an npz" in answer.err
    assert not list(tmp_path.glob("build/traced/*/onnx-int8"))


# What is refused

REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "no such file": (("gone.onnx",), "gone.onnx: no such file or folder"),
    "no model": (("net.py",), "not a model that edgekit imports"),
    "bare weights": (("state.pth",), "weights alone need the code that builds the network"),
    "a checkpoint": (("checkpoint.pt",), "weights alone need the code that builds the network"),
    "bare safetensors": (("net.safetensors",), "weights alone need the code that builds the network"),
    "weights without code": (
        ("two.keras", "--weights", "net.safetensors"),
        "weights require code that builds the model",
    ),
    "weights alone": (("--weights", "net.safetensors"), "describe one model of your own"),
    "missing weights": (("net.py:build", "--weights", "gone.pt"), "gone.pt: no such file"),
    "missing sample": (("traced.pt", "--sample", "gone.npz"), "gone.npz: no such file"),
    "the name of a reference model": (("traced.pt", "--name", "linear"), "linear is the name of a reference model"),
    "a name with a slash": (("traced.pt", "--name", "a/b"), "allowed are letters, digits"),
    "bad input": (("traced.pt", "--input", "image"), "input image: write NAME:SHAPE:DTYPE"),
    "bad dtype": (("traced.pt", "--input", "image:1x1x8x8:float23"), "unknown dtype 'float23'"),
    "bad dimension": (("traced.pt", "--input", "image:0x1x8x8"), "invalid dimension '0'"),
    "bad size": (("traced.pt", "--input", IMAGE, "--dim", "batch"), "--dim batch: write NAME=SIZE, such as batch=1"),
    "a size of nothing": (("traced.pt", "--input", IMAGE, "--dim", "batch=0"), "--dim batch=0: write NAME=SIZE"),
    "missing code": (("gone.py:build",), "gone.py: no such Python file"),
    "missing function": (("net.py:nothing",), "net.py: there is no function nothing() in this file"),
    "missing module": (("no_such_module:build",), "no_such_module: there is no Python module of this name"),
    "code that raises": (("net.py:broken",), "net.py:broken raised RuntimeError: the moon is in the wrong phase"),
    "code that makes something else": (("net.py:wrong",), "returned list; it must return a torch.nn.Module"),
    "code that wants arguments": (("net.py:demanding",), "demanding() missing 1 required positional argument"),
    "code that raises, as torch": (
        ("net.py:broken", "--framework", "torch", "--input", IMAGE),
        "net.py:broken raised RuntimeError: the moon is in the wrong phase",
    ),
    "code that makes something else, as torch": (
        ("net.py:wrong", "--framework", "torch", "--input", IMAGE),
        "the code returns an object of type list, not a torch.nn.Module",
    ),
    "no inputs": (("net.py:build",), "this model does not describe its inputs; declare each as NAME:SHAPE:DTYPE"),
    "inputs that the code does not take": (
        ("net.py:build", "--input", "image:batch,2,8,8"),
        "the network does not take these inputs (image batchx2x8x8 float32)",
    ),
    "another number of inputs": (
        ("traced.pt", "--input", IMAGE, "--input", "more:1x2"),
        "this model takes 1 inputs (image); 2 were declared",
    ),
    "another name of an input": (("program.pt2", "--input", "photo:batch,1,8,8"), "has no input photo; its inputs: "),
    "another shape of an input": (("program.pt2", "--input", "image:batch,1,9,9"), ", not image batchx1x9x9"),
    "another dtype of an input": (("program.pt2", "--input", "image:batch,1,8,8:int64"), ", not image"),
    "an unknown dimension": (
        ("program.pt2", "--dim", "width=9"),
        "program has no symbolic dimension width; it has: batch",
    ),
    "a size of no dimension": (
        ("net.py:tokens", "--input", "ids:batch,seq:int64"),
        "the dimension seq of ids has no size; set it, or pass a sample of real inputs (see --dim, --sample)",
    ),
    "weights that do not fit": (
        ("net.py:masks", "--weights", "net.safetensors", "--input", PHOTO),
        "these weights do not fit the network (",
    ),
    "weights that are none": (
        ("net.py:build", "--weights", "digits.npz", "--input", IMAGE),
        "this is not a PyTorch checkpoint of plain weights, or it is damaged",
    ),
    "a whole module for weights": (
        ("net.py:build", "--weights", "whole.pt", "--input", IMAGE),
        "edgekit does not unpickle whole modules: save module.state_dict()",
    ),
    "weights that would be executed": (
        ("net.py:build", "--weights", "malicious.pt", "--input", IMAGE),
        "edgekit does not unpickle whole modules: save module.state_dict()",
    ),
    "a program that would be executed": (
        ("malicious.pt2",),
        "data/sample_inputs/model.pt in this file is a pickle of more than plain tensors",
    ),
    "a Keras file with code in it": (
        ("code.keras",),
        "this model contains Python code (a Lambda layer), which edgekit",
    ),
    "a sample of another shape": (
        ("traced.pt", "--input", IMAGE, "--sample", "other_shape.npz"),
        "image has the shape (8, 1, 9, 9) where the model takes Nx1x8x8",
    ),
    "a sample of another model": (
        ("two.keras", "--sample", "more_digits.npz"),
        "arrays image where the model takes picture, extra",
    ),
    "too few labels": (
        ("net.py:build", "--sample", "few_labels.npz"),
        "5 labels for 160 samples; there must be one label per sample",
    ),
    "labels as texts": (
        ("net.py:build", "--weights", "state.pth", "--sample", "named_labels.npz"),
        "labels are texts; write the classes as numbers, counted from 0 in the order of ",
    ),
    "labels that are counted from 1": (
        ("net.py:build", "--weights", "state.pth", "--sample", "labels_from_one.npz"),
        " has 3 classes, counted from 0 to 2",
    ),
    "calibration of another shape": (
        ("traced.pt", "--input", IMAGE, "--calibration", "other_shape.npz"),
        "image has the shape (8, 1, 9, 9) where the model takes Nx1x8x8",
    ),
    "calibration from nowhere": (
        ("traced.pt", "--input", IMAGE, "--calibration", "gone.npz"),
        "gone.npz: no such npz or npy file of samples",
    ),
    "a folder without images": (
        ("traced.pt", "--input", IMAGE, "--calibration", "served"),
        "this folder contains no images",
    ),
    "images for a model of two inputs": (
        ("two.keras", "--calibration", "photos"),
        "a folder of images requires a model whose only input is an image of fixed size",
    ),
    "a generator of another shape": (
        ("net.py:masks", "--input", PHOTO, "--calibration", "data.py:wrong_shape"),
        "image has the shape (4, 3, 9, 9) where the model takes Nx3x8x8",
    ),
    "a generator that raises": (
        ("net.py:masks", "--input", PHOTO, "--calibration", "data.py:raising"),
        "the generator raised OSError: the disk is gone",
    ),
    "an opset for another target": (
        ("traced.pt", "--input", IMAGE, "--target", "torchscript:float32", "--opset", "17"),
        "none of the selected targets has the option opset (see --opset)",
    ),
}


def leftover_files(root: Path) -> list[str]:
    """Return remains of a failed command: temporary files, empty folders, folders without a record."""
    leftovers = []
    for folder, folders, files in os.walk(root):
        if not folders and not files and len(Path(folder).relative_to(root).parts) in range(1, 5):
            leftovers.append(folder)  # further below are the user's own: a SavedModel may have empty folders
        leftovers += [f"{folder}/{name}" for name in (*folders, *files) if name.startswith(".edgekit-")]
        if Path(folder).name == "source" and "source.json" not in files:
            leftovers.append(folder)
    return leftovers


@pytest.mark.parametrize("what", REFUSALS)
def test_bad_input_is_exit_2_and_one_sentence_and_leaves_nothing_half_written(
    here: Path, tmp_path: Path, what: str
) -> None:
    words, sentence = REFUSALS[what]
    if "--target" not in words:
        words = (*words, "--target", "onnx:float32")
    answer = call("export", *words, "--root", tmp_path, "-q")
    assert answer.code == 2, answer.err
    assert sentence in answer.err
    assert answer.err.startswith("Error: ")
    assert len(answer.err.strip().splitlines()) == 1
    assert answer.out == ""
    assert leftover_files(tmp_path) == []
    assert not list(tmp_path.glob("build/*/*/onnx-float32"))
    assert not (here / "executed").exists()


def onnx_model(*nodes: Any, weights: onnx.TensorProto | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [] if weights is None else [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def kept_in(location: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(4,), data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


ADD = helper.make_node("Add", ["x", "w"], ["y"], name="add")
GRAPHS = {
    "a cycle": (
        onnx_model(helper.make_node("Add", ["x", "y"], ["a"], name="turn"), helper.make_node("Relu", ["a"], ["y"])),
        "the graph has a cycle through node 'turn'",
    ),
    "missing weights": (onnx_model(ADD, weights=kept_in("w.bin")), "and there is no such file beside the model"),
    "a way out": (onnx_model(ADD, weights=kept_in("../w.bin")), "which is outside the model's folder"),
    "an absolute path": (onnx_model(ADD, weights=kept_in("/etc/passwd")), "which is outside the model's folder"),
    "no such operator": (onnx_model(helper.make_node("FancyRelu", ["x"], ["y"])), "FancyRelu"),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_a_bad_graph_is_exit_2_and_one_sentence(tmp_path: Path, what: str) -> None:
    model, sentence = GRAPHS[what]
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    root = tmp_path / "project"
    root.mkdir()
    path = root / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    answer = call("export", path, "--target", "onnx:float32", "--root", root, "-q")
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert [item.name for item in root.iterdir()] == ["graph.onnx"]


def test_a_valid_graph_is_converted_correctly(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(onnx_model(helper.make_node("Relu", ["x"], ["y"])).SerializeToString())
    assert call("export", path, "--target", "onnx:float32", "--root", tmp_path).code == 0
    answer = call("validate", "graph", "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "build/graph/onnx/onnx-float32/manifest.json").read_text())["route"] == [
        "onnx",
        "onnx",
    ]


@pytest.mark.skipif(
    "onnx-to-torch" not in plugin_registry.names("edgekit.sources.bridges"), reason="no bridge from ONNX to PyTorch"
)
def test_an_operator_that_the_bridge_does_not_support_is_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    node = helper.make_node("StringNormalizer", ["x"], ["y"], name="odd")
    model = onnx_model(node)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.STRING
        del value.type.tensor_type.shape.dim[1:]
    path.write_bytes(model.SerializeToString())
    answer = call("export", path, "--target", "tflite:float32", "--root", tmp_path, "-q")
    assert answer.code in (2, 4)
    assert len(answer.err.strip().splitlines()) == 1
    assert leftover_files(tmp_path) == []

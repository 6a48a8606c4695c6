"""The manifest's round trip, and artifacts that are not what their manifest says."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import (
    ArtifactFile,
    Manifest,
    describe_files,
    files_sha256,
    load_artifact,
    write_manifest,
)
from edgekit.core.records.samples import Samples
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.core.values.precisions import precision_names
from edgekit.core.values.specs import Quantization, Signature, TensorSpec, Variant

SEEDED = settings(derandomize=True, max_examples=30)
CONTENT = b"the model"
SIGNATURE = Signature(
    (TensorSpec("x", ("batch", 2), "int8", "NHWC", Quantization((0.5,), (3,))),), (TensorSpec("y", (1,), "float32"),)
)

names = st.text(min_size=1, max_size=8)
values = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8)
mappings = st.dictionaries(names, values, max_size=3)


def manifest(**changes):
    known = {
        "model": "tiny",
        "target": "tflite",
        "precision": "int8",
        "runtime": "litert",
        "file": "model.tflite",
        "sha256": "0" * 64,
        "size_bytes": len(CONTENT),
        "signature": SIGNATURE,
        "source": {"kind": "keras"},
        "route": ("keras", "tflite"),
    }
    return Manifest(**{**known, **changes})


@pytest.fixture
def folder(tmp_path):
    """A good artifact on disk."""
    (tmp_path / "model.tflite").write_bytes(CONTENT)
    write_manifest(tmp_path, manifest(sha256=sha256_file(tmp_path / "model.tflite")))
    return tmp_path


def edit(folder, **changes):
    """Rewrites keys of the manifest; a key set to ... is taken out."""
    path = folder / MANIFEST_FILE
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def refusal(folder):
    with pytest.raises(InputError) as caught:
        load_artifact(folder)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder / MANIFEST_FILE}: ")
    return sentence.removeprefix(f"{folder / MANIFEST_FILE}: ")


@SEEDED
@given(
    precision=st.sampled_from(precision_names()),
    source=mappings.map(lambda found: {**found, "kind": "keras"}),
    options=mappings,
    calibration=st.none() | mappings,
    versions=st.dictionaries(names, names, max_size=2),
    notes=st.lists(names, max_size=3).map(tuple),
    route=st.lists(names, min_size=2, max_size=4).map(tuple),
    reproducible=st.booleans(),
)
def test_a_manifest_survives_the_trip_to_disk(tmp_path_factory, **parts):
    folder = tmp_path_factory.mktemp("artifact")
    written = manifest(**parts)
    write_manifest(folder, written)
    assert load_artifact(folder).manifest == written


def test_an_artifact_knows_its_file_variant_and_label(folder):
    artifact = load_artifact(folder)
    assert artifact.path == folder / "model.tflite"
    assert artifact.manifest.variant == Variant("tflite", "int8")
    assert artifact.label == "tiny/keras tflite:int8"
    assert artifact.verified_path() == artifact.path


def test_golden_samples_stand_beside_the_model(folder):
    Samples({"x": np.ones((2, 2))}, {"y": np.zeros((2, 1))}).save(folder / "golden.npz")
    assert load_artifact(folder).golden().count == 2


def test_missing_golden_samples_are_one_sentence(folder):
    with pytest.raises(InputError) as caught:
        load_artifact(folder).golden()
    assert str(caught.value) == f"{folder / 'golden.npz'}: no such npz file of golden samples"


def test_a_folder_without_manifest_is_no_artifact(tmp_path):
    assert refusal(tmp_path) == "no such manifest"


@pytest.mark.parametrize("version", [0, 3, "1", None, True])
def test_a_manifest_of_another_version_is_refused(folder, version):
    edit(folder, schema_version=version)
    assert refusal(folder) == f"schema_version is {version!r}; this edgekit reads 1 to 2"


def test_an_unknown_key_is_refused_with_the_known_ones(folder):
    edit(folder, colour="red")
    sentence = refusal(folder)
    assert sentence.startswith("colour: unknown key; allowed: calibration, ")
    assert "size_bytes" in sentence


@pytest.mark.parametrize("key", ["model", "target", "precision", "runtime", "file", "sha256"])
@pytest.mark.parametrize("value", [3, None, ["x"]])
def test_a_text_of_another_type_is_refused(folder, key, value):
    edit(folder, **{key: value})
    assert re.fullmatch(f"{key}: must be a (text|name|sha256) .* \\(got ({value!r}|a list)\\)", refusal(folder))


@pytest.mark.parametrize(
    "key", ["model", "target", "precision", "runtime", "file", "sha256", "size_bytes", "source", "signature", "route"]
)
def test_a_missing_key_is_named(folder, key):
    edit(folder, **{key: ...})
    assert key in refusal(folder)


@pytest.mark.parametrize("value", [1.5, "9", None, True])
def test_a_size_that_is_no_whole_number_is_refused(folder, value):
    edit(folder, size_bytes=value)
    assert refusal(folder) == f"size_bytes: must be an integer of at least 0 (got {value!r})"


def test_a_negative_size_is_refused(folder):
    edit(folder, size_bytes=-1)
    assert refusal(folder) == "size_bytes: must be an integer of at least 0 (got -1)"


def test_an_unknown_precision_is_refused_with_the_known_ones(folder):
    edit(folder, precision="int9")
    assert refusal(folder) == f"precision: must be one of {', '.join(precision_names())} (got 'int9')"


@pytest.mark.parametrize("name", ["../model.tflite", "/etc/passwd", "a/../b", "a//b", ".", "a\\b"])
def test_a_file_outside_the_folder_is_refused(folder, name):
    edit(folder, file=name)
    assert refusal(folder) == f"file: must be a name in the artifact's folder (got {name!r})"


@pytest.mark.parametrize(
    ("signature", "sentence"),
    [
        ({"inputs": []}, "signature.outputs: this key is missing"),
        ({"inputs": [{"name": "x"}], "outputs": []}, "signature.inputs[0].shape: this key is missing"),
        ([], "signature: must be an object (got [])"),
        ({"inputs": [3], "outputs": []}, "signature.inputs[0]: must be an object (got 3)"),
        ({"inputs": [], "outputs": []}, "signature.inputs: must name at least one tensor"),
    ],
    ids=str,
)
def test_a_mistyped_signature_names_the_place(folder, signature, sentence):
    edit(folder, signature=signature)
    assert refusal(folder) == sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"route": None},
        {"notes": 3},
        {"route": "keras"},
        {"notes": "a note"},
        {"source": {}},
        {"calibration": 3},
        {"golden": []},
        {"versions": None},
    ],
    ids=str,
)
def test_a_part_of_another_type_is_refused(folder, changes):
    edit(folder, **changes)
    assert next(iter(changes)) in refusal(folder)


def test_a_truncated_manifest_is_one_sentence(folder):
    path = folder / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(folder).startswith("this manifest is not valid JSON")


def verification(folder):
    with pytest.raises(InputError) as caught:
        load_artifact(folder).verified_path()
    return str(caught.value).removeprefix(f"{folder / 'model.tflite'}: ")


def test_a_missing_model_file_is_named(folder):
    (folder / "model.tflite").unlink()
    assert verification(folder) == "the model file that manifest.json names is missing"


def test_a_truncated_model_file_is_told_by_its_size(folder):
    (folder / "model.tflite").write_bytes(CONTENT[:-1])
    sentence = "the file has 8 bytes where manifest.json says 9; it is truncated or was replaced"
    assert verification(folder) == sentence


def test_a_replaced_model_file_of_the_same_size_is_told_by_its_hash(folder):
    (folder / "model.tflite").write_bytes(CONTENT[::-1])
    sentence = "the file is not the one that was exported: its sha256 differs from the manifest's"
    assert verification(folder) == sentence


@pytest.fixture
def several(tmp_path):
    """An artifact of three files, one of them in a folder."""
    (tmp_path / "weights").mkdir()
    for name, content in (("model.xml", b"graph"), ("model.bin", b"weights!"), ("weights/a", b"")):
        (tmp_path / name).write_bytes(content)
    files = describe_files(tmp_path, ("model.xml", "model.bin", "weights/a"))
    write_manifest(tmp_path, manifest(file="model.xml", sha256=files_sha256(files), size_bytes=13, files=files))
    return tmp_path


def test_an_artifact_of_several_files_has_a_main_one(several):
    artifact = load_artifact(several)
    assert artifact.verified_path() == several / "model.xml"
    assert artifact.paths == (several / "model.xml", several / "model.bin", several / "weights/a")
    assert artifact.manifest.size_bytes == 13


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "weights/a"])
def test_each_of_several_files_is_verified(several, name):
    (several / name).write_bytes(b"something else")
    with pytest.raises(InputError, match=f"{several / name}: the file has 14 bytes where manifest.json says"):
        load_artifact(several).verified_path()
    (several / name).unlink()
    with pytest.raises(InputError, match=f"{several / name}: the model file that manifest.json names is missing"):
        load_artifact(several).verified_path()


def test_the_hash_of_several_files_depends_on_each_name_and_content_and_not_on_their_order(several):
    files = load_artifact(several).manifest.files
    assert files_sha256(files) == files_sha256(files[::-1])
    others = [ArtifactFile("b", *("1" * 64, 8)), ArtifactFile("model.bin", "1" * 64, 8)]
    assert len({files_sha256((files[0], item, files[2])) for item in (files[1], *others)}) == 3


def test_a_manifest_of_schema_1_is_read_as_an_artifact_of_one_file(folder):
    expected = load_artifact(folder).manifest
    edit(folder, schema_version=1, files=...)
    assert load_artifact(folder).manifest == expected
    assert expected.files == (ArtifactFile("model.tflite", sha256_file(folder / "model.tflite"), 9),)
    edit(folder, files=[])
    assert refusal(folder).startswith("files: unknown key")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"files": []}, "files: the first one must be the main file 'model.tflite'"),
        ({"files": "x"}, "files: must be a list (got 'x')"),
        ({"files": [3]}, "files[0]: must be an object (got 3)"),
        (
            {"files": [{"path": "../x", "sha256": "", "size": 1}]},
            "files[0].path: must be a name in the artifact's folder",
        ),
        (
            {"files": [{"path": 3, "sha256": "", "size": 1}]},
            "files[0].path: must be a name in the artifact's folder (got 3",
        ),
        (
            {"files": [{"path": "x", "sha256": 3, "size": 1}]},
            "files[0].sha256: must be a sha256 of 64 hexadecimal digits (got 3)",
        ),
        ({"files": [{"path": "x", "sha256": "0" * 64, "size": -1}]}, "files[0].size: must be an integer of at least 0"),
        (
            {"files": [{"path": "x", "sha256": "0" * 64, "size": True}]},
            "files[0].size: must be an integer of at least 0",
        ),
        ({"files": [{"path": "x", "sha256": "0" * 64, "size": 1}]}, "files: the first one must be the main file"),
        ({"sha256": "1" * 64}, "sha256: must be the digest of the listed files"),
        ({"size_bytes": 7}, "size_bytes: must be the sum of the sizes of the files"),
    ],
)
def test_a_list_of_files_that_does_not_fit_is_refused(folder, changes, sentence):
    edit(folder, **changes)
    assert refusal(folder).startswith(sentence)


def test_a_file_that_is_listed_twice_is_refused(several):
    listed = json.loads((several / MANIFEST_FILE).read_text())["files"]
    edit(several, files=[*listed, listed[1]])
    assert refusal(several) == "files: a path is listed twice"

"""The record source.json."""

import json
from dataclasses import replace

import pytest

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import InputError
from edgekit.core.records.source import SourceModel, load_source
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", ("batch", 1), "float32"),), (TensorSpec("y", ("batch", 1), "float32"),))


@pytest.fixture
def source(tmp_path):
    """A source model, written beside its weights."""
    (tmp_path / "weights.pt").write_bytes(b"weights")
    model = SourceModel(
        name="linear",
        kind="torch",
        file="weights.pt",
        sha256=sha256_file(tmp_path / "weights.pt"),
        signature=SIGNATURE,
        task="regression",
        metric="mae",
        metric_value=0.08,
        parameters=2,
        code="torch_model.py",
        history={"loss": [1.0, 0.5]},
        versions={"torch": "2.13"},
    )
    model.save(tmp_path)
    return model


def edit(folder, change):
    path = folder / SOURCE_FILE
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_record_is_unchanged_by_the_round_trip(source, tmp_path):
    assert load_source(tmp_path) == source


def test_the_weights_are_found_beside_it(source, tmp_path):
    assert source.weights_path(tmp_path) == tmp_path / "weights.pt"


def test_missing_weights_name_the_command_that_creates_them(source, tmp_path):
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(InputError) as caught:
        source.weights_path(tmp_path)
    sentence = f"{tmp_path / 'weights.pt'}: the trained model is missing; run: edgekit train linear"
    assert str(caught.value) == sentence


def test_weights_with_another_hash_are_refused(source, tmp_path):
    with pytest.raises(InputError, match=r"not the one that was trained: its sha256 differs from source.json's"):
        replace(source, sha256="0" * 64).weights_path(tmp_path)


def test_a_folder_without_the_record_is_a_one_line_error(tmp_path):
    with pytest.raises(InputError) as caught:
        load_source(tmp_path)
    assert str(caught.value) == f"{tmp_path / SOURCE_FILE}: no such source model description"


@pytest.mark.parametrize("version", [2, None, True])
def test_another_version_is_refused(source, tmp_path, version):
    edit(tmp_path, lambda data: data.update(schema_version=version))
    with pytest.raises(InputError) as caught:
        load_source(tmp_path)
    sentence = "not a source model description of version 1; train or import the model again"
    assert str(caught.value) == f"{tmp_path / SOURCE_FILE}: {sentence}"


def test_an_unknown_key_is_refused(source, tmp_path):
    edit(tmp_path, lambda data: data.update(colour="red"))
    with pytest.raises(InputError, match="colour: unknown key; allowed: code, code_sha256, data, file"):
        load_source(tmp_path)


@pytest.mark.parametrize("key", ["name", "kind", "file", "sha256", "signature", "parameters"])
def test_a_missing_key_is_named(source, tmp_path, key):
    edit(tmp_path, lambda data: data.pop(key))
    with pytest.raises(InputError, match=f"source.json: {key}: this key is missing"):
        load_source(tmp_path)


@pytest.mark.parametrize("value", [None, 3, {"inputs": []}, {"inputs": [3], "outputs": []}])
def test_a_signature_of_a_wrong_type_is_a_one_line_error(source, tmp_path, value):
    edit(tmp_path, lambda data: data.update(signature=value))
    with pytest.raises(InputError, match=r"source\.json: signature[.:]"):
        load_source(tmp_path)

"""The record layers.json: the round trip through JSON, and stale records."""

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
from _helpers.sample_reports import artifact, by_layer

from edgekit.core.environment.atomic_files import write_json
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import load_artifact, write_manifest
from edgekit.core.records.layer_errors import LAYERS_FILE, layers_of, load_layers, to_dict, why_stale


def write_artifacts(tmp_path, layers, variant="tflite:int8"):
    """Write an artifact with its layers.json, and its float32 counterpart with another file."""
    for name, sha256 in ((variant, "0" * 64), ("tflite:float32", "f" * 64)):
        sample = artifact(name, "tiny")
        folder = tmp_path / "tiny/keras" / sample.manifest.variant.slug
        folder.mkdir(parents=True)
        source = {"kind": "keras", "sha256": "5" * 64}
        # Without files, the manifest lists its main file with the new hash.
        write_manifest(folder, replace(sample.manifest, sha256=sha256, source=source, files=()))
    folder = tmp_path / "tiny/keras/tflite-int8"
    write_json(folder / LAYERS_FILE, to_dict(layers))
    return load_artifact(folder)


def test_a_record_is_unchanged_by_the_round_trip(tmp_path):
    layers = by_layer()
    assert layers_of(write_artifacts(tmp_path, layers)) == layers
    assert layers.first.reference == "dense"
    assert layers.worst.reference == "dense"


def test_nan_and_infinity_are_stored_as_null(tmp_path):
    odd = replace(by_layer().tensors[0], cosine=math.nan, max_abs_error=math.inf, actual_range=(-math.inf, 1.0))
    path = tmp_path / LAYERS_FILE
    write_json(path, to_dict(replace(by_layer(), tensors=(odd,))))
    (tensor,) = load_layers(path).tensors
    assert math.isnan(tensor.cosine)
    assert math.isnan(tensor.max_abs_error)
    assert (tensor.actual_range[1], tensor.sqnr_db) == (1.0, odd.sqnr_db)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"artifact_sha256": "1" * 64}, "it is about an earlier model file"),
        ({"reference_sha256": "1" * 64}, "it is about another reference"),
        ({"reference": "tflite:float32"}, "it is about another reference"),
        ({"reference": "tflite:float32", "reference_sha256": "f" * 64}, ""),
        ({"reference": "onnx:float32", "reference_sha256": "f" * 64}, "it is about another reference"),
    ],
)
def test_a_record_about_other_files_is_stale_and_not_used(tmp_path, changes, reason):
    layers = replace(by_layer(), **changes)
    int8 = write_artifacts(tmp_path, layers)
    assert why_stale(int8, layers) == reason
    assert layers_of(int8) == (None if reason else layers)


def test_a_record_whose_reference_was_removed_is_stale(tmp_path):
    layers = replace(by_layer(), reference="tflite:float32", reference_sha256="f" * 64)
    int8 = write_artifacts(tmp_path, layers)
    shutil.rmtree(tmp_path / "tiny/keras/tflite-float32")
    assert layers_of(int8) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "must be a JSON object (got list)"),
        ("{", "is not valid JSON"),
        ('{"schema_version": 9}', "not an error by layer of version 2; run the diff again"),
        ('{"schema_version": 1, "extra": 2}', "extra: unknown key; allowed: artifact_sha256, "),
        ('{"schema_version": 1}', "model: this key is missing; run the diff again"),
    ],
)
def test_a_damaged_file_is_a_one_line_error(tmp_path, text, sentence):
    path = tmp_path / LAYERS_FILE
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        load_layers(path)
    assert str(path) in str(caught.value)


def test_a_tensor_without_a_key_is_a_one_line_error(tmp_path):
    data = to_dict(by_layer())
    del data["tensors"][0]["cosine"]
    path = tmp_path / LAYERS_FILE
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"tensors\[0\]\.cosine: this key is missing; run the diff again"):
        load_layers(path)


def test_a_file_of_version_1_is_read(tmp_path):
    """Version 1 had other names for two keys."""
    data = to_dict(by_layer())
    data["how"] = data.pop("tag")
    for tensor in data["tensors"]:
        tensor["leap_db"] = tensor.pop("divergence_db")
    path = tmp_path / LAYERS_FILE
    path.write_text(json.dumps({**data, "schema_version": 1}))
    assert load_layers(path) == by_layer()

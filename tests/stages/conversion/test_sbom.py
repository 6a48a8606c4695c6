"""The bill of materials, against CycloneDX's own schema."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.sample_reports import artifact, source
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgekit.core.environment.atomic_files import to_json
from edgekit.stages.conversion.sbom import SBOM_FILE, sbom, write_sbom
from edgekit.stages.validation.integrity import OUTDATED, verify

DATA = {"name": "digits", "licence": "CC BY-SA 3.0", "sha256": "d" * 64, "train": 3680}


def made(**changes):
    one = artifact("tflite:int8", "tiny")
    manifest = replace(
        one.manifest,
        versions={"tensorflow": "2.21.0", "keras": "3.15.1"},
        calibration={"samples": 200, "sha256": "c" * 64},
        golden={"samples": 64, "sha256": "e" * 64},
        source={"kind": "keras", "sha256": "b" * 64, "task": "classification", "parameters": 7},
        options={"converter": "TFLiteConverter"},
        **changes,
    )
    return replace(one, manifest=manifest)


def trained():
    return replace(source(), sha256="b" * 64, data=DATA, versions={"keras": "3.15.1", "torch": "2.13.0+cpu"})


def problem(document):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(to_json(document))


@pytest.mark.parametrize("known", [None, trained()], ids=["without its source", "with its source"])
def test_it_keeps_to_the_schema(known):
    assert problem(sbom(made(), known)) is None


def test_the_schema_would_say_no():
    document = sbom(made(), None)
    assert problem({**document, "metadata": {"component": {"type": "nothing"}}}) is not None


def test_it_lists_the_model_its_source_its_data_and_every_tool():
    document = sbom(made(), trained())
    assert document["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    listed = {item["bom-ref"]: item for item in document["components"]}
    assert set(listed) == {
        "source",
        "data:training",
        "data:calibration",
        "data:golden",
        "pkg:pypi/keras@3.15.1",
        "pkg:pypi/tensorflow@2.21.0",
        "pkg:pypi/torch@2.13.0%2Bcpu",
    }
    assert listed["source"]["hashes"][0]["content"] == "b" * 64
    assert listed["data:training"]["licenses"] == [{"license": {"name": "CC BY-SA 3.0"}}]
    assert listed["data:calibration"]["hashes"][0]["content"] == "c" * 64


def test_who_depends_on_what():
    made_from, trained_from = sbom(made(), trained())["dependencies"]
    assert made_from["dependsOn"] == [
        "source",
        "data:calibration",
        "data:golden",
        "pkg:pypi/keras@3.15.1",
        "pkg:pypi/tensorflow@2.21.0",
    ]
    assert trained_from["dependsOn"] == ["data:training", "pkg:pypi/keras@3.15.1", "pkg:pypi/torch@2.13.0%2Bcpu"]


def test_the_same_artifact_gives_the_same_bytes_and_another_one_another_serial_number():
    first, again, other = sbom(made(), trained()), sbom(made(), trained()), sbom(made(sha256="9" * 64), trained())
    assert to_json(first) == to_json(again)
    assert first["serialNumber"] != other["serialNumber"]


@pytest.fixture
def build(project, tmp_path):
    folder = tmp_path / "build"
    for name in ("source", "onnx-int8"):
        shutil.copytree(project / "build/linear/keras" / name, folder / "linear/keras" / name)
    return folder


def test_a_real_artifacts_is_valid_and_verified(build):
    from edgekit.core.records.artifact import load_artifact

    one = load_artifact(build / "linear/keras/onnx-int8")
    path = write_sbom(one)
    document = json.loads(path.read_text())
    assert problem(document) is None
    assert {"data:training", "data:calibration", "data:golden"} <= {item["bom-ref"] for item in document["components"]}
    assert verify(build).findings == ()
    path.write_text(path.read_text().replace(one.manifest.sha256, "0" * 64))
    assert [(item.path, item.state) for item in verify(build).findings] == [(path, OUTDATED)]


def test_export_writes_it_where_it_is_asked_to(project, tmp_path, edgekit):
    shutil.copytree(project / "build/linear/keras/source", tmp_path / "build/linear/keras/source")
    arguments = ("export", "linear", "--framework", "keras", "--target", "onnx:float32", "--root", tmp_path, "--json")
    answer = edgekit(*arguments)
    assert (answer.code, "sboms" in answer.data) == (0, False)
    answer = edgekit(*arguments, "--sbom")
    assert answer.code == 0
    (path,) = answer.data["sboms"]
    assert Path(path) == tmp_path / "build/linear/keras/onnx-float32" / SBOM_FILE
    assert problem(json.loads(Path(path).read_text())) is None

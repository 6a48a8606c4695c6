"""The software bill of materials, validated against the schema of CycloneDX."""

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
from edgekit.core.environment.distributions import InstalledDistribution, installed_distributions
from edgekit.stages.conversion.sbom import SBOM_FILE, sbom, write_sbom
from edgekit.stages.validation.integrity import OUTDATED, verify

DATA = {"name": "digits", "licence": "CC BY-SA 3.0", "sha256": "d" * 64, "train": 3680}


def converted_artifact(**changes):
    sample = artifact("tflite:int8", "tiny")
    manifest = replace(
        sample.manifest,
        versions={"tensorflow": "2.21.0", "keras": "3.15.1"},
        calibration={"samples": 200, "sha256": "c" * 64},
        golden={"samples": 64, "sha256": "e" * 64},
        source={"kind": "keras", "sha256": "b" * 64, "task": "classification", "parameters": 7},
        options={"converter": "TFLiteConverter"},
        **changes,
    )
    return replace(sample, manifest=manifest)


def trained_source():
    return replace(source(), sha256="b" * 64, data=DATA, versions={"keras": "3.15.1", "torch": "2.13.0+cpu"})


def schema_error(document):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(to_json(document))


@pytest.mark.parametrize("source_model", [None, trained_source()], ids=["without its source", "with its source"])
def test_it_is_valid_by_the_schema(source_model):
    assert schema_error(sbom(converted_artifact(), source_model)) is None


def test_the_schema_rejects_an_invalid_document():
    document = sbom(converted_artifact(), None)
    assert schema_error({**document, "metadata": {"component": {"type": "nothing"}}}) is not None


def test_it_lists_the_model_its_source_its_data_and_every_package():
    document = sbom(converted_artifact(), trained_source())
    assert document["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    components = {component["bom-ref"]: component for component in document["components"]}
    assert set(components) == {
        "source",
        "data:training",
        "data:calibration",
        "data:golden",
        "pkg:pypi/keras@3.15.1",
        "pkg:pypi/tensorflow@2.21.0",
        "pkg:pypi/torch@2.13.0%2Bcpu",
    }
    assert components["source"]["hashes"][0]["content"] == "b" * 64
    assert components["data:training"]["licenses"] == [{"license": {"name": "CC BY-SA 3.0"}}]
    assert components["data:calibration"]["hashes"][0]["content"] == "c" * 64


ENVIRONMENT = (
    InstalledDistribution("keras", "3.15.1", "1" * 64, "installed files", "Apache-2.0", True),
    InstalledDistribution("tensorflow", "2.20.0", "2" * 64, "installed files", "Apache 2.0", False),
    InstalledDistribution("ml_dtypes", "0.6.0", "3" * 64, "archive", "", False),
)


def test_the_whole_environment_is_listed_with_hashes_and_licences():
    document = sbom(converted_artifact(), None, ENVIRONMENT)
    assert schema_error(document) is None
    components = {component["bom-ref"]: component for component in document["components"]}
    keras = components["pkg:pypi/keras@3.15.1"]
    assert keras["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert keras["licenses"] == [{"expression": "Apache-2.0"}]
    assert "scope" not in keras
    other = components["pkg:pypi/ml-dtypes@0.6.0"]
    assert other["scope"] == "optional"
    assert other["properties"] == [{"name": "edgekit:hash_of", "value": "archive"}]
    # The tensorflow that converted is another version than the installed one: its hash is not known.
    assert "hashes" not in components["pkg:pypi/tensorflow@2.21.0"]
    assert components["pkg:pypi/tensorflow@2.20.0"]["licenses"] == [{"license": {"name": "Apache 2.0"}}]


@pytest.mark.slow
def test_the_real_environment_is_valid_by_the_schema():
    environment = installed_distributions()
    document = sbom(converted_artifact(), trained_source(), environment)
    assert schema_error(document) is None
    names = {component["name"] for component in document["components"]}
    assert {distribution.name for distribution in environment} <= names
    unhashed = [distribution.name for distribution in environment if not distribution.sha256]
    assert unhashed == []
    assert sum(bool(distribution.licence) for distribution in environment) > 0.8 * len(environment)


def test_artifact_and_source_have_their_own_dependencies():
    of_artifact, of_source = sbom(converted_artifact(), trained_source())["dependencies"]
    assert of_artifact["dependsOn"] == [
        "source",
        "data:calibration",
        "data:golden",
        "pkg:pypi/keras@3.15.1",
        "pkg:pypi/tensorflow@2.21.0",
    ]
    assert of_source["dependsOn"] == ["data:training", "pkg:pypi/keras@3.15.1", "pkg:pypi/torch@2.13.0%2Bcpu"]


def test_the_same_artifact_gives_the_same_bytes_and_another_one_another_serial_number():
    first, again = (sbom(converted_artifact(), trained_source()) for _ in range(2))
    different = sbom(converted_artifact(sha256="9" * 64), trained_source())
    assert to_json(first) == to_json(again)
    assert first["serialNumber"] != different["serialNumber"]


@pytest.fixture
def build(project, tmp_path):
    folder = tmp_path / "build"
    for name in ("source", "onnx-int8"):
        shutil.copytree(project / "build/linear/keras" / name, folder / "linear/keras" / name)
    return folder


def test_that_of_a_real_artifact_is_valid_and_verified(build):
    from edgekit.core.records.artifact import load_artifact

    exported = load_artifact(build / "linear/keras/onnx-int8")
    path = write_sbom(exported)
    document = json.loads(path.read_text())
    assert schema_error(document) is None
    references = {component["bom-ref"] for component in document["components"]}
    assert {"data:training", "data:calibration", "data:golden"} <= references
    assert verify(build).findings == ()
    path.write_text(path.read_text().replace(exported.manifest.sha256, "0" * 64))
    assert [(finding.path, finding.state) for finding in verify(build).findings] == [(path, OUTDATED)]


def test_export_writes_it_only_with_the_option(project, tmp_path, edgekit):
    shutil.copytree(project / "build/linear/keras/source", tmp_path / "build/linear/keras/source")
    arguments = ("export", "linear", "--framework", "keras", "--target", "onnx:float32", "--root", tmp_path, "--json")
    answer = edgekit(*arguments)
    assert (answer.code, "sboms" in answer.data) == (0, False)
    answer = edgekit(*arguments, "--sbom")
    assert answer.code == 0
    (path,) = answer.data["sboms"]
    assert Path(path) == tmp_path / "build/linear/keras/onnx-float32" / SBOM_FILE
    assert schema_error(json.loads(Path(path).read_text())) is None

"""Findings of verify in a build folder whose files were changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from _helpers.sample_reports import by_layer

from edgekit.core.environment.atomic_files import sha256_file, write_json
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.layer_errors import LAYERS_FILE, to_dict
from edgekit.stages.validation.integrity import CHANGED, DAMAGED, MISSING, OUTDATED, UNLISTED, verify

ARTIFACT = Path("linear/keras/onnx-float32")
SOURCE = Path("linear/keras/source")


@pytest.fixture
def build(project, tmp_path):
    """A copy of one model's artifacts that a test may damage."""
    folder = tmp_path / "build"
    for name in (ARTIFACT, SOURCE):
        shutil.copytree(project / "build" / name, folder / name)
    return folder


def findings(folder):
    return [(finding.path.relative_to(folder).as_posix(), finding.state) for finding in verify(folder).findings]


def flip(path: Path) -> None:
    """Flip one bit of the last byte."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_intact_build_has_no_findings(build):
    result = verify(build)
    assert result.findings == ()
    assert (len(result.artifacts), len(result.sources)) == (1, 1)
    assert result.files == sum(1 for path in build.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("damage", "path", "state"),
    [
        (flip, "model.onnx", CHANGED),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "model.onnx", CHANGED),
        (Path.unlink, "model.onnx", MISSING),
        (Path.unlink, "golden.npz", MISSING),
        (lambda path: path.write_bytes(b"PK"), "golden.npz", DAMAGED),
        (lambda path: path.write_text("{"), "manifest.json", DAMAGED),
        (lambda path: path.write_text("[]"), "validation.json", DAMAGED),
        (lambda path: edit(path, artifact_sha256="0" * 64), "validation.json", OUTDATED),
        (lambda path: path.write_text("?"), "bench-pixel-2.json", DAMAGED),
        (lambda path: path.write_text("hello"), "notes.txt", UNLISTED),
        (lambda path: path.mkdir(), "folder", UNLISTED),
    ],
)
def test_damage_is_found(build, damage, path, state):
    damage(build / ARTIFACT / path)
    assert findings(build) == [(f"{ARTIFACT}/{path}", state)]


def test_a_manifest_with_another_hash_matches_neither_the_file_nor_its_results(build):
    path = build / ARTIFACT / "manifest.json"
    (file,) = json.loads(path.read_text())["files"]
    edit(path, sha256="0" * 64, files=[{**file, "sha256": "0" * 64}])
    assert findings(build) == [(f"{ARTIFACT}/model.onnx", CHANGED), (f"{ARTIFACT}/validation.json", OUTDATED)]


def test_the_error_by_layer_is_checked(build):
    folder = build / ARTIFACT
    manifest = load_artifact(folder).manifest
    layers = replace(
        by_layer("onnx:float32", "linear"),
        artifact_sha256=manifest.sha256,
        reference_sha256=manifest.source["sha256"],
    )
    write_json(folder / LAYERS_FILE, to_dict(layers))
    assert findings(build) == []
    edit(folder / LAYERS_FILE, artifact_sha256="0" * 64)
    assert findings(build) == [(f"{ARTIFACT}/{LAYERS_FILE}", OUTDATED)]
    (folder / LAYERS_FILE).write_text("{")
    assert findings(build) == [(f"{ARTIFACT}/{LAYERS_FILE}", DAMAGED)]


def test_other_golden_samples_are_found(build, project):
    shutil.copy(project / "build" / "linear/keras/source/test.npz", build / ARTIFACT / "golden.npz")
    assert findings(build) == [(f"{ARTIFACT}/golden.npz", CHANGED)]


def test_a_damaged_source_is_found(build):
    flip(build / SOURCE / "model.keras")
    assert findings(build) == [(f"{SOURCE}/model.keras", CHANGED)]


def test_a_source_that_was_trained_again_is_reported(build):
    flip(build / SOURCE / "model.keras")
    edit(build / SOURCE / "source.json", sha256=sha256_file(build / SOURCE / "model.keras"))
    assert findings(build) == [(str(ARTIFACT), OUTDATED)]
    assert verify(build).broken == ()


def test_files_that_the_pipeline_writes_next_to_an_artifact_are_expected(build):
    (build / ARTIFACT / "check.json").write_text("{}")
    assert findings(build) == []


def test_the_staging_folder_of_a_running_export_is_ignored(build):
    staging = build / "linear/keras/.edgekit-1-x"
    staging.mkdir()
    (staging / "manifest.json").write_text("{")
    assert findings(build) == []


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_artifacts_is_bad_input(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=str(tmp_path / name)):
        verify(tmp_path / name)


def test_the_command_fails_on_broken_files(build, edgekit):
    assert edgekit("verify", build).code == 0
    (build / ARTIFACT / "notes.txt").write_text("hello")
    unlisted = edgekit("verify", build)
    assert (unlisted.code, "unlisted" in unlisted.out) == (0, True)
    assert edgekit("verify", build, "--strict").code == 1
    flip(build / ARTIFACT / "model.onnx")
    answer = edgekit("verify", build, "--json")
    assert answer.code == 1
    assert [finding["state"] for finding in answer.data["findings"]] == ["changed", "unlisted"]
    assert answer.data["passed"] is False


def test_the_command_checks_the_projects_build_folder_by_default(build, edgekit):
    answer = edgekit("verify", "--root", build.parent)
    assert answer.code == 0
    assert answer.out.endswith("1 artifacts and 1 sources: all as recorded\n")


def test_the_command_rejects_a_folder_without_artifacts(tmp_path, edgekit):
    answer = edgekit("verify", tmp_path)
    assert answer.code == 2
    assert "contains no artifact" in answer.err

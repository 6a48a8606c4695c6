"""`edgekit gc` with step records that name files outside the project: it removes nothing there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from _helpers.support import call

from edgekit.core.build.graph import StepKey, StepKind, StepRecord
from edgekit.core.build.step_records import StepRecords

CONTENT = b"precious"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "build").mkdir(parents=True)
    (root / "edgekit.toml").write_text(
        'variants = ["onnx:float32"]\n\n[[models]]\nname = "linear"\nframework = "torch"\n'
    )
    return root


def record(root: Path, outputs: Mapping[str, str], step_kind: StepKind = StepKind.CHECK, /, **arguments: str) -> None:
    step = StepRecord("old step", step_kind, StepKey({}, {}), outputs, 1.0, arguments=arguments)
    StepRecords(root / "build").save(step)


@pytest.mark.parametrize("way", ["above", "absolute", "through a link", "a link"])
def test_a_file_outside_the_project_is_kept_and_reported(root: Path, tmp_path: Path, way: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(CONTENT)
    (root / "build/link").symlink_to(outside)
    (root / "build/file").symlink_to(outside / "file")
    (root / "build/old.json").write_bytes(CONTENT)
    names = {
        "above": "build/../../outside/file",
        "absolute": str(outside / "file"),
        "through a link": "build/link/file",
        "a link": "build/file",
    }
    record(root, {names[way]: DIGEST, "build/old.json": DIGEST})
    dry = call("gc", "--root", root, "--dry-run", "--json")
    answer = call("gc", "--root", root, "--json")
    assert answer.code == 0, answer.err
    assert dry.data["outside_and_kept"] == answer.data["outside_and_kept"] == [names[way]]
    assert answer.data["removed"] == ["build/old.json"]
    assert (outside / "file").read_bytes() == CONTENT
    assert (root / "build/file").is_symlink()


def test_a_fifo_in_a_record_is_not_read(root: Path) -> None:

    os.mkfifo(root / "build/fifo")
    record(root, {"build/fifo": DIGEST})
    answer = call("gc", "--root", root, "--json")
    assert (answer.code, answer.data["removed"]) == (0, [])


@pytest.mark.parametrize(
    ("model", "kind"),
    [("../../outside", "torch"), ("link", "torch"), ("x", "../../../outside/torch"), ("", "/outside")],
)
def test_a_checkpoint_outside_the_build_folder_is_kept(root: Path, tmp_path: Path, model: str, kind: str) -> None:
    checkpoint = tmp_path / "outside/torch/.checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_bytes(CONTENT)
    (root / "build/link").symlink_to(tmp_path / "outside")
    kind = str(checkpoint.parent) if kind == "/outside" else kind
    record(root, {}, StepKind.TRAIN, model=model, kind=kind)
    assert call("gc", "--root", root).code == 0
    assert (checkpoint / "state.json").read_bytes() == CONTENT


def test_a_checkpoint_in_the_build_folder_is_removed(root: Path) -> None:
    checkpoint = root / "build/net/torch/.checkpoint"
    checkpoint.mkdir(parents=True)
    record(root, {}, StepKind.TRAIN, model="net", kind="torch")
    assert call("gc", "--root", root).code == 0
    assert not (root / "build/net").exists()

"""Loading of SavedModels: the choice of the signature, and the refusal of operators that access files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Work = Callable[..., Any]
Refusal = Callable[..., str]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Return the folder of the SavedModel, and the folder that it is imported into."""
    (tmp_path / "imported").mkdir()
    return {"path": tmp_path / "saved", "folder": tmp_path / "imported"}


@pytest.mark.parametrize("kind", ["plain", "other"])
def test_the_serving_signature_or_the_only_one_is_used(work: Work, folders: dict[str, Path], kind: str) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind=kind)
    assert work("saved-model", "run_saved_model", **folders) == {"y": [[2.0] * 3] * 2}


@pytest.mark.parametrize(("kind", "listed"), [("several", "double, triple"), ("none", "none")])
def test_without_a_serving_signature_the_others_are_listed(
    work: Work, refusal: Refusal, folders: dict[str, Path], kind: str, listed: str
) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind=kind)
    expected = f"this SavedModel has no signature 'serving_default' (its signatures: {listed})"
    assert refusal("saved-model", "run_saved_model", **folders) == f"{folders['path']}: {expected}"


@pytest.mark.parametrize(
    ("kind", "operator"),
    [
        ("reading", "ReadFile"),
        ("writing", "WriteFile"),
        ("printing", "PrintV2"),
        ("saving", "Save"),
        ("lines", "TextLineDataset"),
    ],
)
def test_a_graph_that_reads_or_writes_files_is_refused_and_not_run(
    work: Work, refusal: Refusal, folders: dict[str, Path], tmp_path: Path, kind: str, operator: str
) -> None:
    file = tmp_path / "file.txt"
    work("saved-model", "saved_model", folder=folders["path"], kind=kind, file=file)
    try:
        sentence = refusal("saved-model", "run_saved_model", **folders)
    finally:
        written = file.exists()
    expected = f"{folders['path']}: this SavedModel reads or writes files, or calls Python, when it runs ("
    assert sentence.startswith(expected)
    assert sentence.endswith("); edgekit does not run such models")
    assert operator in sentence
    assert not written
    assert list(folders["folder"].iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"Dear model, how are you?\n" * 40], ids=["empty", "text"])
def test_a_file_that_is_not_a_graph_is_refused_in_one_sentence(
    refusal: Refusal, folders: dict[str, Path], content: bytes
) -> None:
    folders["path"].mkdir()
    (folders["path"] / "saved_model.pb").write_bytes(content)
    expected = f"{folders['path']}: this is not a SavedModel, or it is damaged"
    assert refusal("saved-model", "run_saved_model", **folders).startswith(expected)


@pytest.mark.parametrize(
    "file", ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]
)
def test_a_truncated_file_is_refused_in_one_sentence(
    work: Work, refusal: Refusal, folders: dict[str, Path], file: str
) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind="plain")
    path = folders["path"] / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    expected = f"{folders['path']}: this is not a SavedModel, or it is damaged"
    assert refusal("saved-model", "run_saved_model", **folders).startswith(expected)

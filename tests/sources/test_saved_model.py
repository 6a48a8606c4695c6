"""Loading of SavedModels: the choice of the signature, and the refusal of files that act when they are loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.environment.atomic_files import sha256_path
from edgekit.tensorflow_files.saved_model import allowed_operators

Work = Callable[..., Any]
Refusal = Callable[..., str]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Return the folder of the SavedModel, and the folder that it is imported into."""
    (tmp_path / "imported").mkdir()
    return {"path": tmp_path / "saved", "folder": tmp_path / "imported"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "other"])
def test_the_serving_signature_or_the_only_one_is_used(work: Work, folders: dict[str, Path], kind: str) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind=kind)
    assert work("saved-model", "run_saved_model", **folders) == {"y": [[2.0] * 3] * 2}


@pytest.mark.parametrize(("kind", "chosen"), [("plain", "triple"), ("several", "triple")])
def test_a_signature_is_chosen_by_name_and_kept(
    work: Work, refusal: Refusal, folders: dict[str, Path], kind: str, chosen: str
) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind=kind)
    assert work("saved-model", "run_saved_model", **folders, chosen=chosen) == {"y": [[3.0] * 3] * 2}
    (folders["folder"].parent / "second").mkdir()
    others = {**folders, "folder": folders["folder"].parent / "second"}
    assert refusal("saved-model", "run_saved_model", **others, chosen="quadruple").startswith(
        f"{folders['path']}: this SavedModel has no signature 'quadruple' (its signatures: "
    )


@pytest.mark.parametrize(("kind", "listed"), [("several", "double, triple; choose one"), ("none", "none")])
def test_without_a_serving_signature_the_others_are_listed(
    work: Work, refusal: Refusal, folders: dict[str, Path], kind: str, listed: str
) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind=kind)
    names, semicolon, advice = listed.partition(";")
    expected = f"this SavedModel has no signature 'serving_default' (its signatures: {names}){semicolon}{advice}"
    assert refusal("saved-model", "run_saved_model", **folders) == f"{folders['path']}: {expected}"


def test_tensors_of_strings_are_refused_by_name(work: Work, refusal: Refusal, folders: dict[str, Path]) -> None:
    work("saved-model", "saved_model", folder=folders["path"], kind="words")
    assert refusal("saved-model", "run_saved_model", **folders).startswith(
        f"{folders['path']}: 'y' is a tensor of the type string, which no target has; save the part of the model behind"
    )


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
    assert sentence.startswith(f"{folders['path']}: this SavedModel contains operators that edgekit does not run (")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("tables", {"y": [[0.0, 6.0, 0.0]]}), ("tensorflow1", {"y": [[0.0, 2.0, 4.0]]}), ("lstm", None)],
)
def test_tables_from_assets_keras_exports_and_tensorflow_1_models_run(
    work: Work, folders: dict[str, Path], kind: str, expected: dict[str, Any] | None
) -> None:
    work("saved-model", "saved_models:ordinary", folder=folders["path"], kind=kind)
    result = work("saved-model", "saved_models:run", inputs=[[0.0, 1.0, 2.0]], **folders)
    assert expected is None or result == expected
    assert len(result) == 1


@pytest.mark.parametrize("kind", ["module", "keras", "holder", "checkpoint", "optimizer"])
def test_models_run_whatever_object_holds_them(work: Work, folders: dict[str, Path], kind: str) -> None:
    """TensorFlow revives only classes that it knows: of others neither `variables` nor `add_slot` can be called."""
    work("saved-model", "saved_models:with_objects", folder=folders["path"], kind=kind)
    described = work("saved-model", "saved_models:describe", inputs=[[1.0, 0.0, 2.0]], **folders)
    assert described["outputs"] == [[[9.0, 12.0]]] * 2
    assert sorted(described["parameters"].values()) == [[2], [3, 2]]  # and no variable that the function does not read


def test_tensorflow_still_needs_the_optimizer_to_be_removed(work: Work, folders: dict[str, Path]) -> None:
    """Where this fails, TensorFlow loads such files, and edgekit need not rewrite them."""
    work("saved-model", "saved_models:with_objects", folder=folders["path"], kind="optimizer")
    assert "add_slot" in work("saved-model", "saved_models:load_error", folder=folders["path"])


CHECKPOINTS = "this SavedModel reads or writes checkpoint files when it is loaded or run"
OPERATORS = "this SavedModel contains operators that edgekit does not run"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("save", f"{CHECKPOINTS} (SaveV2)"),
        ("restore", f"{CHECKPOINTS} (RestoreV2)"),
        ("merge", f"{CHECKPOINTS} (MergeV2Checkpoints)"),
        ("write", f"{OPERATORS} ('WriteFile')"),
        ("vocabulary", f"{OPERATORS} ('GenerateVocabRemapping')"),
        ("sampler", f"{OPERATORS} ('FixedUnigramCandidateSampler')"),
        ("descriptor", f"{OPERATORS} ('DecodeProtoV2')"),
        ("text table", "this SavedModel fills a table from a text file that is not one of its assets"),
        ("python", f"{OPERATORS} ('"),
        ("tensorflow1", f"{CHECKPOINTS} (SaveV2)"),
        ("restorer", f"{CHECKPOINTS} (SaveV2)"),
    ],
)
def test_a_model_whose_initializer_reads_or_writes_a_file_is_refused_before_it_is_loaded(
    work: Work, refusal: Refusal, folders: dict[str, Path], tmp_path: Path, kind: str, expected: str
) -> None:
    canary = tmp_path / "canary" / "file"
    canary.parent.mkdir()
    os.mkfifo(canary)  # a reader would wait for ever, a writer replaces it
    work("saved-model", "saved_models:acting", folder=folders["path"], kind=kind, file=canary)
    sentence = refusal("saved-model", "run_saved_model", **folders)
    assert sentence.startswith(f"{folders['path']}: {expected}")
    assert [path.name for path in canary.parent.iterdir()] == ["file"]
    assert canary.is_fifo()
    assert list(folders["folder"].iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "written"),
    [("save", "canary.index"), ("write", "canary"), ("tensorflow1", "canary.index"), ("restorer", "canary.index")],
)
def test_without_the_check_tensorflow_writes_the_canary(
    work: Work, folders: dict[str, Path], tmp_path: Path, kind: str, written: str
) -> None:
    work("saved-model", "saved_models:acting", folder=folders["path"], kind=kind, file=tmp_path / "canary")
    work("saved-model", "saved_models:load_unchecked", folder=folders["path"])
    assert (tmp_path / written).exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("asset above", "'assets/../../secret.txt' is not the relative path of a file inside"),
        ("absolute asset", "no such file"),  # TensorFlow joins the names too, so this is a file below assets/
        ("missing asset", "no such file"),
        ("registered class", "an object of the custom type 'custom.Class'"),
        ("registered saver", "an object of the custom type 'custom.saver'"),
        ("revived type", "an object of the custom type 'custom_type'"),
        ("unknown operator", f"{OPERATORS} ('NotAnOperator')"),
        ("call of the saver", CHECKPOINTS),
        ("interface of the saver", CHECKPOINTS),
    ],
)
def test_a_file_that_names_other_files_or_classes_is_refused(
    work: Work, refusal: Refusal, folders: dict[str, Path], tmp_path: Path, change: str, expected: str
) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    work("saved-model", "saved_models:ordinary", folder=folders["path"], kind="tables")
    work("saved-model", "saved_models:edit", folder=folders["path"], change=change)
    assert expected in refusal("saved-model", "run_saved_model", **folders)
    assert list(folders["folder"].iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "saved_model.pb",
        "assets/words.txt",
        "assets",
        "variables",
        "variables/variables.index",
        "fingerprint.pb",
        "debug/saved_model_debug_info.pb",
    ],
)
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_links_and_fifos_in_the_folder_are_refused(
    work: Work, refusal: Refusal, folders: dict[str, Path], tmp_path: Path, name: str, kind: str
) -> None:
    work("saved-model", "saved_models:ordinary", folder=folders["path"], kind="tables")
    place = folders["path"] / name
    place.parent.mkdir(exist_ok=True)
    moved = tmp_path / "moved"
    if place.exists():
        place.rename(moved)
    else:
        moved.write_text("elsewhere")
    if kind == "link":
        place.symlink_to(moved)
    else:
        os.mkfifo(place)
    sentence = refusal("saved-model", "run_saved_model", **folders)
    assert sentence.startswith(f"{place}: this is ") or "leads outside" in sentence or "no such file" in sentence
    assert list(folders["folder"].iterdir()) == []


def test_only_files_that_belong_to_the_model_are_copied_and_hashed(
    work: Work, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    work("saved-model", "saved_models:ordinary", folder=folders["path"], kind="tables")
    (folders["path"] / "assets" / "leak").symlink_to(tmp_path / "secret.txt")
    (folders["path"] / "notes.txt").write_text("mine\n")
    (folders["path"] / "saved_model.pbtxt").write_text("not read\n")
    os.mkfifo(folders["path"] / "pipe")
    work("saved-model", "saved_models:run", inputs=[[0.0, 1.0, 2.0]], **folders)
    copy = folders["folder"] / "saved_model"
    names = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if not path.is_dir())
    variables = ["variables/variables.data-00000-of-00001", "variables/variables.index"]
    assert names == ["assets/words.txt", "fingerprint.pb", "saved_model.pb", *variables]
    listed = "".join(f"{name} {hashlib.sha256((copy / name).read_bytes()).hexdigest()}\n" for name in names)
    assert sha256_path(copy) == hashlib.sha256(listed.encode()).hexdigest()


def test_every_operator_of_tensorflow_has_been_reviewed(work: Work) -> None:
    """An operator of a new TensorFlow belongs into one of the two files, after its documentation was read."""
    text = Path(__file__).with_name("refused_operators.txt").read_text()
    refused = {word for line in text.splitlines() if not line.startswith("#") for word in line.split()}
    assert refused & allowed_operators() == set()
    assert set(work("saved-model", "saved_models:operators")) - refused - allowed_operators() == set()

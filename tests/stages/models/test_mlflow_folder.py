"""Folders of MLflow: the model of the flavor that edgekit imports is found, or the folder is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgekit.core.errors import InputError
from edgekit.stages.models import model_refs
from edgekit.stages.models.mlflow_folder import model_inside

pytest.importorskip("yaml")

# As mlflow 3.17 writes them, without what says how to serve a model.
GENERIC = "  python_function:\n    loader_module: mlflow\n"
FLAVORS = {
    "onnx": ("onnx:\n    data: model.onnx", "model.onnx", "onnx"),
    "keras": ("keras:\n    data: data\n    save_exported_model: false", "data/model.keras", "keras"),
    "tensorflow": ("tensorflow:\n    data: data\n    model_type: keras", "data/model.keras", "keras"),
    "older tensorflow": ("tensorflow:\n    data: data", "data/model/saved_model.pb", "saved-model"),
    "module": ("tensorflow:\n    saved_model_dir: tf2model", "tf2model/saved_model.pb", "saved-model"),
    "exported": ("pytorch:\n    model_data: data", "data/model.pt2", "torch"),
    "scripted": ("pytorch:\n    model_data: data", "data/model.pth", "torchscript"),
    "transformers": ("transformers:\n    model_binary: model", "model/config.json", "torch"),
}


def folder(path: Path, flavor: str, *files: str) -> Path:
    path.mkdir()
    (path / "MLmodel").write_text(f"flavors:\n  {flavor}\n{GENERIC}mlflow_version: 3.17.2\n")
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".pth"):
            with zipfile.ZipFile(path / name, "w") as archive:
                for record in ("net/constants.pkl", "net/code/net.py"):
                    archive.writestr(record, b"")
        else:
            (path / name).write_text('{"model_type": "bert"}')
    return path


@pytest.mark.parametrize("name", FLAVORS)
def test_the_model_of_a_flavor_is_found(tmp_path: Path, name: str) -> None:
    flavor, file, kind = FLAVORS[name]
    path = folder(tmp_path / "net", flavor, file)
    found = path / file
    assert model_inside(path) == (found.parent if found.suffix in (".pb", ".json") else found)
    assert model_refs.kind_of(path) == kind


def test_other_paths_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    for path in (tmp_path, tmp_path / "net.onnx", tmp_path / "gone"):
        assert model_inside(path) == path


def test_a_pickled_module_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = folder(tmp_path / "net", "pytorch:\n    model_data: data")
    (path / "data").mkdir()
    (path / "data" / "model.pth").write_bytes(b"\x80\x02.")
    with pytest.raises(InputError, match=r"pickled this PyTorch module.*serialization_format='pt2'"):
        model_refs.kind_of(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "flavors:\n  sklearn:\n    pickled_model: model.pkl\n",
            "a model of the flavor sklearn, which edgekit does",
        ),
        (f"flavors:\n{GENERIC}", "a model of the flavor python_function, which edgekit does not import"),
        ("flavors:\n  onnx:\n    data: model.onnx\n", "there is no model of the flavor onnx that MLmodel names"),
        ("flavors:\n  onnx: 3\n", "there is no model of the flavor onnx that MLmodel names"),
        ("flavors: [\n", "this is not YAML"),
        ("flavors: !!python/object/apply:os.abort []\n", "this is not YAML"),
        ("- 1\n", "it has no table 'flavors'"),
        ("", "it has no table 'flavors'"),
        ("flavors:\n  onnx:\n    data: ../other.onnx\n", "../other.onnx"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "other.onnx").write_bytes(b"")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "MLmodel").write_text(text)
    with pytest.raises(InputError) as caught:
        model_refs.kind_of(tmp_path / "net")
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

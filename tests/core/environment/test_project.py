"""The project folder, and the models and device profiles that edgekit ships."""

from pathlib import Path

import pytest

from edgekit.core.environment.project import Project, open_project, portable_path, user_profiles_folder
from edgekit.core.errors import InputError

SHIPPED = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path):
    return open_project(tmp_path)


def add_model(root, name):
    folder = root / "models" / name
    folder.mkdir(parents=True)
    (folder / "model.toml").touch()
    return folder


def add_device(root, name):
    path = root / "device_profiles" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_a_path_that_is_not_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(InputError) as caught:
            open_project(root)
        assert str(caught.value) == f"{root}: no such folder"
        assert caught.value.exit_code == 2


def test_the_root_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_project(Path()).root == tmp_path.resolve()


def test_shipped_models_and_devices_are_listed_for_every_project(project):
    models = sorted(path.parent.name for path in (SHIPPED / "models").glob("*/model.toml"))
    devices = sorted(path.stem for path in (SHIPPED / "device_profiles").glob("*.toml"))
    assert {"linear", "simple_cnn"} <= set(models)
    assert list(project.models()) == models
    assert list(project.device_files()) == devices


def test_a_model_of_the_project_is_listed_in_order(project):
    folder = add_model(project.root, "aardvark")
    assert next(iter(project.models().items())) == ("aardvark", folder)
    assert project.model_folder("aardvark") == folder


def test_models_and_devices_of_the_project_take_precedence_over_shipped_ones(project):
    assert project.model_folder("linear") == SHIPPED / "models" / "linear"
    folder, device = add_model(project.root, "linear"), add_device(project.root, "pixel-2")
    assert project.model_folder("linear") == folder
    assert project.device_file("pixel-2") == device


def test_profiles_of_the_user_s_configuration_replace_shipped_ones_and_not_the_project_s(
    project, monkeypatch, tmp_path
):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "configuration"))
    for folder, name in (
        (user_profiles_folder(), "pi-fitted"),
        (user_profiles_folder(), "pixel-2"),
        (user_profiles_folder(), "mine"),
        (project.root / "device_profiles", "mine"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").touch()
    files = project.device_files()
    assert files["pi-fitted"].parent == files["pixel-2"].parent == user_profiles_folder()
    assert files["mine"].parent == project.root / "device_profiles"
    assert list(files) == sorted(files)


def test_a_folder_without_model_toml_is_not_a_model(project):
    (project.root / "models" / "empty").mkdir(parents=True)
    assert "empty" not in project.models()


def test_an_unknown_model_is_refused_with_the_known_ones(project):
    with pytest.raises(InputError) as caught:
        project.model_folder("lineer")
    assert str(caught.value) == f"unknown model 'lineer'; known: {', '.join(project.models())}"


def test_an_unknown_device_is_refused_with_the_known_ones(project):
    with pytest.raises(InputError) as caught:
        project.device_file("pixel-1")
    assert str(caught.value) == f"unknown device 'pixel-1'; known: {', '.join(project.device_files())}"


def test_stages_write_below_build(project):
    build = project.root / "build"
    assert project.build == build
    assert project.source_folder("linear", "keras") == build / "linear" / "keras" / "source"
    assert project.artifact_folder("linear", "keras", "tflite-int8") == build / "linear" / "keras" / "tflite-int8"


def test_a_model_is_trained_when_its_source_json_exists(project):
    folder = project.source_folder("linear", "torch")
    folder.mkdir(parents=True)
    assert not project.is_trained("linear", "torch")
    (folder / "source.json").touch()
    assert project.is_trained("linear", "torch")
    assert not project.is_trained("linear", "keras")


def add_artifact(project, *parts):
    folder = project.build.joinpath(*parts)
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    return folder


def test_artifacts_are_listed_in_order(project):
    torch = add_artifact(project, "linear", "torch", "onnx-int8")
    keras = [add_artifact(project, "linear", "keras", slug) for slug in ("tflite-int8", "onnx-int8")]
    assert list(project.artifact_folders()) == [*sorted(keras), torch]


def test_unfinished_exports_and_other_folders_are_not_artifacts(project):
    add_artifact(project, "linear", "keras", ".edgekit-abc")
    add_artifact(project, ".edgekit-xyz", "keras", "tflite-int8")
    add_artifact(project, "linear", "keras", "tflite-int8", "deeper")
    project.source_folder("linear", "keras").mkdir()
    assert list(project.artifact_folders()) == []


def test_hidden_folders_above_the_project_do_not_hide_its_artifacts(tmp_path):
    (tmp_path / ".hidden").mkdir()
    project = open_project(tmp_path / ".hidden")
    folder = add_artifact(project, "linear", "keras", "tflite-int8")
    assert list(project.artifact_folders()) == [folder]


def test_a_project_without_build_has_no_artifacts(tmp_path):
    assert list(Project(tmp_path).artifact_folders()) == []


def test_paths_in_records_do_not_depend_on_where_edgekit_is_installed(project):
    shipped = project.model_folder("linear") / "data.py"
    assert portable_path(str(shipped)) == "edgekit's models/linear/data.py"
    assert (
        portable_path(str(project.device_file("raspberry-pi-4b"))) == "edgekit's device_profiles/raspberry-pi-4b.toml"
    )
    assert portable_path("models/linear/data.py") == "models/linear/data.py"
    assert portable_path("/elsewhere/models/linear/data.py") == "/elsewhere/models/linear/data.py"

"""Resolution of the models on the command line: by name, by path, by code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.environment.project import open_project
from edgekit.core.errors import InputError
from edgekit.core.events import ignore
from edgekit.core.values.specs import TensorSpec
from edgekit.stages.context import Context
from edgekit.stages.models import model_refs
from edgekit.stages.models.model_refs import UserModelOptions
from edgekit.workers.pool import WorkerPool

SEEDED = settings(derandomize=True, max_examples=100)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """An empty project in the current folder; its pool is not started."""
    monkeypatch.chdir(tmp_path)
    return Context(open_project(tmp_path), WorkerPool(), ignore)


def write_imported(context: Context, name: str, kind: str) -> None:
    folder = context.project.source_folder(name, kind)
    folder.mkdir(parents=True)
    (folder / "source.json").write_text("{}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image:1x3x224x224:float32", TensorSpec("image", (1, 3, 224, 224), "float32")),
        ("image:1x3x224x224", TensorSpec("image", (1, 3, 224, 224), "float32")),
        ("image:1,3,224,224:uint8", TensorSpec("image", (1, 3, 224, 224), "uint8")),
        ("ids:batch,seq:int64", TensorSpec("ids", ("batch", "seq"), "int64")),
        ("ids:batch, seq:int64", TensorSpec("ids", ("batch", "seq"), "int64")),
        ("x:batchx4", TensorSpec("x", ("batch", 4), "float32")),
        ("x:batch", TensorSpec("x", ("batch",), "float32")),
        ("x:4:bool", TensorSpec("x", (4,), "bool")),
        ("scale:scalar:float32", TensorSpec("scale", (), "float32")),
        ("scale::float32", TensorSpec("scale", (), "float32")),
        ("scope/x:0:1x4:float32", TensorSpec("scope/x:0", (1, 4), "float32")),
    ],
)
def test_an_input_is_a_name_a_shape_and_a_type(text: str, expected: TensorSpec) -> None:
    assert model_refs.parse_input(text) == expected


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_/.]{0,8}", fullmatch=True)
symbols = st.from_regex(r"[a-wyz_][a-wyz0-9_]{0,5}", fullmatch=True)
dims = st.lists(st.integers(1, 5000) | symbols, min_size=1, max_size=4).map(tuple)
dtypes = st.sampled_from(["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool"])


@pytest.mark.slow
@SEEDED
@given(names, dims, dtypes)
def test_a_written_input_is_parsed_back(name: str, shape: tuple[int | str, ...], dtype: str) -> None:
    expected = TensorSpec(name, shape, dtype)
    assert model_refs.parse_input(f"{name}:{','.join(map(str, shape))}:{dtype}") == expected


@SEEDED
@given(names, st.lists(st.integers(1, 5000), min_size=1, max_size=4).map(tuple), dtypes)
def test_sizes_may_be_separated_by_x(name: str, shape: tuple[int, ...], dtype: str) -> None:
    text = f"{name}:{'x'.join(map(str, shape))}:{dtype}"
    assert model_refs.parse_input(text) == TensorSpec(name, shape, dtype)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image", "write NAME:SHAPE:DTYPE, such as image:1x3x224x224:float32"),
        ("", "write NAME:SHAPE:DTYPE, such as image:1x3x224x224:float32"),
        (":1x3:float32", "write NAME:SHAPE:DTYPE, such as image:1x3x224x224:float32"),
        ("x:1x3:float23", "unknown dtype 'float23'; known: float32, float16, int64, int32, uint8, bool …"),
        ("x:1x3:double", "unknown dtype 'double'; known: float32, float16, int64, int32, uint8, bool …"),
        ("x:1x3:complex64", "unknown dtype 'complex64'; known: float32, float16, int64, int32, uint8, bool …"),
        ("x:1x3:object", "unknown dtype 'object'; known: float32, float16, int64, int32, uint8, bool …"),
        ("x:0x3:float32", "invalid dimension '0'; use a positive number, or a name such as batch"),
        ("x:1,-3:float32", "invalid dimension '-3'; use a positive number, or a name such as batch"),
        ("x:1,?:float32", "invalid dimension '?'; use a positive number, or a name such as batch"),
        ("x:1,,3:float32", "invalid dimension ''; use a positive number, or a name such as batch"),
        ("x:1.5,3:float32", "invalid dimension '1.5'; use a positive number, or a name such as batch"),
    ],
)
def test_an_invalid_input_is_rejected_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        model_refs.parse_input(text)
    assert str(caught.value) == f"input {text}: {message}"
    assert caught.value.exit_code == 2


def test_a_superscript_digit_is_not_a_dimension() -> None:
    with pytest.raises(InputError):
        model_refs.parse_input("x:1,²:float32")


@pytest.mark.parametrize(
    ("text", "shape"),
    [("NxT", ("N", "T")), ("NxTx80", ("N", "T", 80)), ("batchxT", ("batch", "T")), ("Nxseq", ("N", "seq"))],
)
def test_an_x_beside_a_capital_separates_symbols(text: str, shape: tuple[int | str, ...]) -> None:
    assert model_refs.parse_input(f"ids:{text}:int64").shape == shape


def test_a_symbol_that_contains_an_x_is_one_dimension() -> None:
    assert model_refs.parse_input("ids:maxlen:int64").shape == ("maxlen",)


@SEEDED
@given(st.text(max_size=20))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        spec = model_refs.parse_input(text)
    except InputError as error:
        assert str(error).startswith(f"input {text}: ")
    else:
        assert spec.name
        assert all(dim for dim in spec.shape)


@pytest.mark.parametrize(("text", "expected"), [("batch=1", ("batch", 1)), ("x_dim1=224", ("x_dim1", 224))])
def test_a_size_is_a_name_and_a_number(text: str, expected: tuple[str, int]) -> None:
    assert model_refs.parse_size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["batch", "batch=", "=1", "batch=0", "batch=-1", "batch=1.5", "batch=one", "batch=²"],
)
def test_an_invalid_size_is_rejected_with_the_form(text: str) -> None:
    with pytest.raises(InputError) as caught:
        model_refs.parse_size(text)
    assert str(caught.value) == f"--dim {text}: write NAME=SIZE, such as batch=1"


def script(path: Path, *records: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in records:
            archive.writestr(name, b"")


def test_the_source_kind_is_recognized_from_the_file_or_folder(tmp_path: Path) -> None:
    for name in ("a.keras", "b.H5", "c.onnx", "d.pt2"):
        (tmp_path / name).write_bytes(b"")
    script(tmp_path / "e.pt", "net/constants.pkl", "net/code/net.py")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "saved_model.pb").write_bytes(b"")
    kinds = [model_refs.kind_of(path) for path in sorted(tmp_path.iterdir())]
    assert kinds == ["keras", "keras", "onnx", "torch", "torchscript", "saved-model"]


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net.ckpt", "net.safetensors"])
@pytest.mark.parametrize("zipped", [False, True])
def test_weights_alone_are_rejected_because_they_need_code(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / name
    script(path, "net/data.pkl") if zipped else path.write_bytes(b"weights")
    with pytest.raises(InputError) as caught:
        model_refs.kind_of(path)
    expected = f"{path}: not a TorchScript archive; weights alone need the code that builds the network:"
    assert str(caught.value) == f"{expected} name it as FILE.py:FUNCTION, and pass {name} as its weights"


def test_any_other_file_is_rejected_with_the_accepted_formats(tmp_path: Path) -> None:
    (tmp_path / "net.txt").write_text("")
    (tmp_path / "folder").mkdir()
    for name in ("net.txt", "folder"):
        with pytest.raises(InputError) as caught:
            model_refs.kind_of(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: not a model that edgekit imports (.h5, .hdf5, ")
        assert str(caught.value).endswith(", a folder of a SavedModel, of transformers or of MLflow, or code)")
    with pytest.raises(InputError, match="no such file or folder"):
        model_refs.kind_of(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    "text",
    ["net.py:build", "src/net.py:small", "package.nets:build", "nets:Net", "gone.onnx", "gone.KERAS", "./net", "a/b"],
)
def test_paths_and_code_are_references_to_user_models(empty: Context, text: str) -> None:
    assert model_refs.is_model_reference(empty, text)


@pytest.mark.parametrize("text", ["nope", "linear", "simple_cnn", "taken", "taken.onnx"])
def test_names_are_not_references_to_user_models(empty: Context, text: str) -> None:
    write_imported(empty, "taken", "torch")
    write_imported(empty, "taken.onnx", "onnx")
    assert not model_refs.is_model_reference(empty, text)


def test_a_folder_is_a_reference_to_a_user_model_unless_a_model_has_its_name(empty: Context) -> None:
    for name in ("net", "linear", "taken"):
        (empty.project.root / name).mkdir()
    write_imported(empty, "taken", "saved-model")
    assert [model_refs.is_model_reference(empty, name) for name in ("net", "linear", "taken")] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net.onnx", "net"),
        ("models/my net (2).keras", "my_net__2_"),
        ("saved/", "saved"),
        ("net.py:build", "net"),
        ("net.py:model", "net"),
        ("net.py:small", "net_small"),
        ("src/net.py:Net", "net_Net"),
        ("package.nets:build", "nets"),
        ("package.nets:small", "nets_small"),
        ("nets:create_model", "nets"),
        ("v1.2.onnx", "v1.2"),
    ],
)
def test_the_default_name_is_that_of_the_file_or_code(text: str, expected: str) -> None:
    assert model_refs.default_name(text) == expected


@pytest.mark.parametrize("name", ["linear", "simple_cnn"])
def test_the_name_of_a_reference_model_is_rejected(empty: Context, name: str) -> None:
    for text, options in ((f"./{name}.onnx", UserModelOptions()), ("net.onnx", UserModelOptions(name=name))):
        with pytest.raises(InputError) as caught:
            model_refs.import_model(empty, text, None, options)
        assert str(caught.value) == f"{name} is the name of a reference model; choose another name"
    assert list(empty.project.root.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "my net", "-x", "a\nb"])
def test_a_name_that_is_not_a_folder_name_is_rejected(empty: Context, name: str) -> None:
    with pytest.raises(InputError) as caught:
        model_refs.import_model(empty, "net.onnx", None, UserModelOptions(name=name))
    assert str(caught.value) == (
        f"name {name}: allowed are letters, digits, '_', '-' and '.', first a letter, digit or '_'"
    )


@pytest.mark.parametrize(
    "options",
    [
        UserModelOptions(name="mine"),
        UserModelOptions(weights=Path("w.pt")),
        UserModelOptions(inputs=("x:1x4",)),
        UserModelOptions(sample=Path("s.npz")),
        UserModelOptions(calibration="photos"),
    ],
)
@pytest.mark.parametrize("words", [(), ("linear",), ("a.onnx", "b.onnx")])
def test_options_for_one_model_are_rejected_for_none_and_for_several(
    empty: Context, options: UserModelOptions, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"describe one model of your own: name its file, folder or code"):
        model_refs.resolve(empty, words, None, options)


def test_an_imported_model_is_found_by_name_with_its_kinds(empty: Context) -> None:
    write_imported(empty, "net", "torch")
    write_imported(empty, "net", "onnx")
    (selection,) = model_refs.resolve(empty, ("net",), None, UserModelOptions())
    assert (selection.models, selection.kinds) == (("net",), ("onnx", "torch"))
    (selection,) = model_refs.resolve(empty, ("net",), "torch", UserModelOptions())
    assert selection.kinds == ("torch",)
    with pytest.raises(InputError, match="net is not imported as a keras model; imported as: onnx, torch"):
        model_refs.resolve(empty, ("net",), "keras", UserModelOptions())


def test_reference_models_and_user_models_can_be_combined(empty: Context) -> None:
    write_imported(empty, "net", "onnx")
    selections = model_refs.resolve(empty, ("linear", "net", "simple_cnn"), None, UserModelOptions())
    assert [selection.models for selection in selections] == [("linear", "simple_cnn"), ("net",)]


def test_no_name_stands_for_every_reference_model(empty: Context) -> None:
    write_imported(empty, "net", "onnx")
    (selection,) = model_refs.resolve(empty, (), None, UserModelOptions())
    assert selection.models == tuple(empty.project.models())
    assert {"linear", "simple_cnn"} <= set(selection.models)


def test_an_unknown_name_lists_the_known_ones(empty: Context) -> None:
    with pytest.raises(InputError) as caught:
        model_refs.resolve(empty, ("nope",), None, UserModelOptions())
    assert str(caught.value) == f"unknown model 'nope'; known: {', '.join(empty.project.models())}"


def test_missing_files_are_reported_before_anything_is_loaded(empty: Context) -> None:
    (empty.project.root / "net.onnx").write_bytes(b"")
    for options in (UserModelOptions(sample=Path("gone.npz")), UserModelOptions(weights=Path("gone.npz"))):
        with pytest.raises(InputError) as caught:
            model_refs.import_model(empty, "net.onnx", None, options)
        assert str(caught.value) == "gone.npz: no such file"


def test_weights_require_code(empty: Context) -> None:
    for name in ("net.onnx", "w.pt"):
        (empty.project.root / name).write_bytes(b"")
    with pytest.raises(InputError, match="weights require code that builds the model: FILE"):
        model_refs.import_model(empty, "net.onnx", None, UserModelOptions(weights=Path("w.pt")))

"""Samples that a user hands in: files of arrays, folders of images, generators."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgekit.core.environment import requirements
from edgekit.core.errors import InputError, MissingDependency
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources import _given_samples as given_samples

SEEDED = settings(derandomize=True, deadline=None, max_examples=60)
Array = np.ndarray
Write = Callable[..., Path]


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, ())


VECTOR = signature(TensorSpec("x", ("batch", 4), "float32"))
PAIR = signature(TensorSpec("ids", ("batch", "seq"), "int64"), TensorSpec("flag", ("batch",), "bool"))
NHWC = signature(TensorSpec("image", ("batch", 4, 6, 3), "float32", "NHWC"))
NCHW = signature(TensorSpec("image", ("batch", 3, 4, 6), "float32", "NCHW"))


def refusal(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    return sentence


def read(text: str, base: Path, wanted: Signature, image_range: tuple[float, float] = (0.0, 1.0)) -> dict[str, Array]:
    return given_samples.read(text, base, wanted, image_range)


# Files of arrays


def test_an_npz_file_gives_its_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.arange(6).reshape(2, 3), flag=np.array([True, False]))
    found = read("a.npz", tmp_path, PAIR)
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "ids": ((2, 3), "int64"),
        "flag": ((2,), "bool"),
    }


def test_an_npz_file_of_edgekits_own_gives_its_inputs(tmp_path: Path) -> None:
    arrays = {"input/x": np.ones((2, 4), np.float32), "output/y": np.zeros((2, 3))}
    np.savez(tmp_path / "a.npz", **arrays)
    assert list(given_samples.read_arrays(tmp_path / "a.npz")) == ["x"]


def test_an_npy_file_is_taken_for_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4), np.float32))
    assert read("a.npy", tmp_path, VECTOR)["x"].shape == (5, 4)


def test_one_array_of_any_name_is_taken_for_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", whatever=np.ones((5, 4), np.float32))
    assert list(read("a.npz", tmp_path, VECTOR)) == ["x"]


def test_an_npy_file_is_no_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4)))
    sentence = refusal(read, "a.npy", tmp_path, PAIR)
    assert sentence.startswith("a.npy: arrays ")
    assert sentence.endswith(" where the model takes ids, flag")


@pytest.mark.parametrize(
    ("arrays", "listed"), [({"ids": np.ones(2), "more": np.ones(2)}, "ids, more"), ({"ids": np.ones(2)}, "ids")]
)
def test_other_names_than_the_models_are_listed_beside_them(
    tmp_path: Path, arrays: dict[str, Array], listed: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert refusal(read, "a.npz", tmp_path, PAIR) == f"a.npz: arrays {listed} where the model takes ids, flag"


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 4, 1), (0, 4), ()])
def test_another_shape_is_told_beside_the_models(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    assert refusal(read, "a.npy", tmp_path, VECTOR) == f"a.npy: x has the shape {shape} where the model takes Nx4"


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0.5]), "int64"),
        (np.array([300]), "uint8"),
        (np.array([-1]), "uint8"),
        (np.array([2**40]), "int32"),
        (np.array([2**24 + 1]), "float32"),
        (np.array([1]), "bool"),
        (np.array([True]), "float32"),
    ],
)
def test_a_type_that_would_lose_values_is_refused(array: Array, dtype: str) -> None:
    wanted = signature(TensorSpec("x", ("batch",), dtype))
    with np.errstate(all="raise"):
        sentence = refusal(given_samples.fitted, {"x": array}, wanted, "a.npz")
    assert sentence == f"a.npz: x is {array.dtype} where the model takes {dtype}"


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0.1]), "float32"),
        (np.array([0.1], np.float32), "float16"),
        (np.array([1.0, 2.0]), "int64"),
        (np.array([1, 2]), "float32"),
        (np.array([255]), "uint8"),
        (np.array([7], np.uint8), "int32"),
    ],
)
def test_a_type_that_loses_nothing_but_digits_is_changed(array: Array, dtype: str) -> None:
    found = given_samples.fitted({"x": array}, signature(TensorSpec("x", ("batch",), dtype)), "a.npz")
    assert found["x"].dtype == dtype
    np.testing.assert_allclose(found["x"].astype("float64"), array.astype("float64"), rtol=1e-3)


numbers = st.sampled_from(["float32", "float64", "int8", "uint8", "int32", "int64", "bool"])


@SEEDED
@given(numbers.flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 4))), numbers)
def test_what_fits_has_the_models_type_and_the_values_that_were_given(array: Array, dtype: str) -> None:
    try:
        with np.errstate(all="ignore"):
            found = given_samples.fitted({"x": array}, signature(TensorSpec("x", ("batch",), dtype)), "a.npz")["x"]
    except InputError:
        assert array.dtype != dtype
        return
    assert found.dtype == dtype
    if not np.issubdtype(array.dtype, np.floating):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("values", [[np.nan], [np.inf, 1.0], [1e300]])
def test_floats_that_are_no_integers_are_one_sentence(tmp_path: Path, values: list[float]) -> None:
    np.save(tmp_path / "a.npy", np.array(values))
    wanted = signature(TensorSpec("x", ("batch",), "int64"))
    assert refusal(read, "a.npy", tmp_path, wanted) == "a.npy: x is float64 where the model takes int64"


def test_pickled_objects_are_refused_and_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}, None], dtype=object))
    for name in ("a.npy", "a.npz"):
        sentence = refusal(given_samples.read_arrays, tmp_path / name)
        expected = f"{tmp_path / name}: this is not an npz or npy file of samples"
        assert sentence == f"{expected}: it holds pickled objects, which edgekit does not load"


def test_a_missing_or_empty_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert refusal(read, "a.npz", tmp_path, VECTOR) == f"{path}: no such file of samples"
    path.touch()
    assert refusal(read, "a.npz", tmp_path, VECTOR) == f"{path}: this file of samples is empty"


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).random((9, 4), np.float32))
    return buffer.getvalue()


@SEEDED
@given(st.integers(1, len(npz()) - 1))
def test_a_truncated_npz_file_is_refused_wherever_it_was_cut(
    tmp_path_factory: pytest.TempPathFactory, keep: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.npz"
    path.write_bytes(npz()[:keep])
    assert refusal(given_samples.read_arrays, path).startswith(f"{path}: this is not an npz or npy file of samples: ")


def test_another_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"Dear model, how are you?\n" * 40)
    expected = f"{tmp_path / 'a.npz'}: this is not an npz or npy file of samples: "
    assert refusal(given_samples.read_arrays, tmp_path / "a.npz").startswith(expected)


@pytest.mark.parametrize("inside", ["x", "x.npy"])
def test_a_zip_archive_of_other_things_is_one_sentence(tmp_path: Path, inside: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(inside, b"not an array")
    expected = f"{tmp_path / 'a.npz'}: this is not an npz or npy file of samples: "
    assert refusal(given_samples.read_arrays, tmp_path / "a.npz").startswith(expected)


def test_texts_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([["a"] * 4]))
    assert refusal(read, "a.npy", tmp_path, VECTOR) == "a.npy: x is <U1 where the model takes float32"


# Folders of images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images of other sizes and modes, one in a folder below, and a text."""
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    Image.new("RGB", (12, 9), (255, 0, 51)).save(folder / "cats" / "1.png")
    Image.new("L", (3, 3), 255).save(folder / "2.PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_become_floats_of_the_inputs_size_in_the_order_of_their_paths(photos: Path) -> None:
    found = read("photos", photos.parent, NHWC)["image"]
    assert (found.shape, found.dtype) == ((2, 4, 6, 3), np.float32)
    np.testing.assert_allclose(found[0], 1.0)
    np.testing.assert_allclose(found[1], np.broadcast_to([1.0, 0.0, 0.2], (4, 6, 3)), atol=1e-6)


def test_a_model_with_channels_first_gets_them_first(photos: Path) -> None:
    first, last = read("photos", photos.parent, NCHW)["image"], read("photos", photos.parent, NHWC)["image"]
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))


def test_a_model_with_one_channel_gets_grey(photos: Path) -> None:
    wanted = signature(TensorSpec("image", ("batch", 4, 6, 1), "float32", "NHWC"))
    found = read("photos", photos.parent, wanted)["image"]
    assert found.shape == (2, 4, 6, 1)
    assert 0 < found[1].mean() < 1


@pytest.mark.parametrize(("image_range", "white", "green"), [((-1.0, 1.0), 1.0, -1.0), ((0.0, 255.0), 255.0, 0.0)])
def test_pixels_become_what_the_user_says(
    photos: Path, image_range: tuple[float, float], white: float, green: float
) -> None:
    found = read("photos", photos.parent, NHWC, image_range)["image"]
    np.testing.assert_allclose(found[0], white)
    np.testing.assert_allclose(found[1, :, :, 1], green)


def test_a_model_that_takes_pixels_gets_pixels(photos: Path) -> None:
    wanted = signature(TensorSpec("image", ("batch", 4, 6, 3), "uint8", "NHWC"))
    found = read("photos", photos.parent, wanted)["image"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[1, 0, 0], [255, 0, 51])


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp", ".gif", ".tiff"])
def test_images_of_any_usual_format_are_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (6, 4), (255, 255, 255)).save(tmp_path / f"white{suffix}")
    np.testing.assert_allclose(read(".", tmp_path, NHWC)["image"], 1.0, atol=0.02)


def test_a_folder_without_images_says_which_there_could_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    sentence = refusal(read, ".", tmp_path, NHWC)
    assert sentence == f"{tmp_path}: there is no image in this folder ({', '.join(given_samples._IMAGES)})"


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "start"])
def test_a_damaged_image_is_named(photos: Path, content: bytes) -> None:
    (photos / "3.png").write_bytes(content)
    expected = f"{photos / '3.png'}: this is not an image, or it is damaged"
    assert refusal(read, "photos", photos.parent, NHWC) == expected


def test_a_truncated_image_is_named(photos: Path) -> None:
    path = photos / "3.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:500])
    assert refusal(read, "photos", photos.parent, NHWC) == f"{path}: this is not an image, or it is damaged"


@pytest.mark.parametrize(
    "wanted",
    [
        VECTOR,
        PAIR,
        signature(*NHWC.inputs, *VECTOR.inputs),
        signature(TensorSpec("image", ("batch", "height", "width", 3), "float32", "NHWC")),
    ],
    ids=["a vector", "two inputs", "an image and more", "an image of any size"],
)
def test_a_folder_of_images_suits_one_image_of_a_fixed_size(photos: Path, wanted: Signature) -> None:
    expected = f"{photos}: a folder of images suits a model whose one input is an image of a fixed size"
    assert refusal(read, "photos", photos.parent, wanted) == expected


def test_an_image_of_two_channels_is_none(photos: Path) -> None:
    wanted = signature(TensorSpec("image", ("batch", 4, 6, 2), "float32", "NHWC"))
    assert refusal(read, "photos", photos.parent, wanted) == f"{photos}: images have 1 or 3 channels; image has 2"


def test_without_the_package_for_images_its_command_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.Requirement, "installed", lambda self: False)
    with pytest.raises(MissingDependency, match=r"pip install 'edgekit\[images\]'"):
        read("photos", photos.parent, NHWC)


# Generators


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes data.py with a body for its function `samples`; the folder that it is in."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body: str) -> Path:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        (tmp_path / "data.py").write_text(f"import numpy as np\ndef samples():\n{lines}\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(3): yield {'ids': np.full((2, 5), i), 'flag': np.array([True, False])}",
        "for i in range(3): yield {'flag': np.array([True, False]), 'ids': np.full((2, 5), i)}",
        "for i in range(3): yield np.full((2, 5), i), np.array([True, False])",
        "for i in range(3): yield [np.full((2, 5), i), [True, False]]",
        "return [(np.full((2, 5), i), np.array([True, False])) for i in range(3)]",
    ],
    ids=["dict", "dict in another order", "tuple", "list", "a list of tuples"],
)
def test_samples_that_a_generator_yields_are_put_together(code: Callable[[str], Path], body: str) -> None:
    found = read("data.py:samples", code(body), PAIR)
    assert found["ids"].shape == (6, 5)
    assert found["ids"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["flag"].tolist() == [True, False] * 3


def test_a_generator_for_one_input_may_yield_bare_arrays(code: Callable[[str], Path]) -> None:
    found = read("data.py:samples", code("for i in range(3): yield np.full((1, 4), i)"), VECTOR)
    assert found["x"].dtype == np.float32
    assert found["x"][:, 0].tolist() == [0.0, 1.0, 2.0]


def test_an_endless_generator_is_stopped(code: Callable[[str], Path]) -> None:
    found = read("data.py:samples", code("while True: yield np.zeros((1, 4))"), VECTOR)
    assert len(found["x"]) == given_samples.MOST


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 3", ": this function returns a int where samples belong, one after another"),
        ("return None", ": this function returns a NoneType where samples belong, one after another"),
        ("return []", ": the generator yields nothing"),
        ("raise ValueError('no data')", " raised ValueError: no data"),
        ("yield np.zeros((1, 4)); raise OSError('gone')", ": the generator raised OSError: gone"),
        ("yield {'y': 1}", ": the generator yields y where the model takes ['x']"),
        ("yield 1, 2", ": the generator yields 2 arrays where the model takes 1"),
        ("yield np.zeros((1, 5))", ": x has the shape (1, 5) where the model takes Nx4"),
        ("yield np.zeros((1, 4)); yield np.zeros((1, 5))", ": the generator's samples do not fit together (all the"),
        ("yield np.zeros(())", ": the generator's samples do not fit together (zero-dimensional arrays"),
    ],
)
def test_a_generator_that_does_not_fit_is_one_sentence(code: Callable[[str], Path], body: str, sentence: str) -> None:
    assert refusal(read, "data.py:samples", code(body), VECTOR).startswith(f"data.py:samples{sentence}")


def test_a_missing_generator_is_one_sentence(code: Callable[[str], Path], tmp_path: Path) -> None:
    code("return []")
    expected = f"{tmp_path / 'data.py'}: there is no function other() in this file"
    assert refusal(read, "data.py:other", tmp_path, VECTOR) == expected
    assert refusal(read, "gone.py:samples", tmp_path, VECTOR) == f"{tmp_path / 'gone.py'}: no such Python file"

"""Reading of the user's samples: files of arrays, folders of images, generators."""

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

SEEDED = settings(derandomize=True, max_examples=60)
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


def read(
    text: str, base: Path, model_inputs: Signature, image_range: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Array]:
    return given_samples.read(text, base, model_inputs, image_range)


# Files of arrays


def test_an_npz_file_gives_its_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.arange(6).reshape(2, 3), flag=np.array([True, False]))
    samples = read("a.npz", tmp_path, PAIR)
    assert {name: (array.shape, array.dtype.name) for name, array in samples.items()} == {
        "ids": ((2, 3), "int64"),
        "flag": ((2,), "bool"),
    }


def test_a_golden_samples_file_gives_its_inputs_only(tmp_path: Path) -> None:
    arrays = {"input/x": np.ones((2, 4), np.float32), "output/y": np.zeros((2, 3))}
    np.savez(tmp_path / "a.npz", **arrays)
    assert list(given_samples.read_arrays(tmp_path / "a.npz")) == ["x"]


def test_an_npy_file_is_used_for_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4), np.float32))
    assert read("a.npy", tmp_path, VECTOR)["x"].shape == (5, 4)


def test_a_single_array_of_any_name_is_used_for_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", whatever=np.ones((5, 4), np.float32))
    assert list(read("a.npz", tmp_path, VECTOR)) == ["x"]


def test_an_npy_file_cannot_fill_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 4)))
    sentence = refusal(read, "a.npy", tmp_path, PAIR)
    assert sentence.startswith("a.npy: arrays ")
    assert sentence.endswith(" where the model takes ids, flag")


@pytest.mark.parametrize(
    ("arrays", "listed"), [({"ids": np.ones(2), "more": np.ones(2)}, "ids, more"), ({"ids": np.ones(2)}, "ids")]
)
def test_unknown_names_are_listed_beside_the_models_names(
    tmp_path: Path, arrays: dict[str, Array], listed: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert refusal(read, "a.npz", tmp_path, PAIR) == f"a.npz: arrays {listed} where the model takes ids, flag"


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 4, 1), (0, 4), ()])
def test_a_wrong_shape_is_reported_beside_the_models_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    assert refusal(read, "a.npy", tmp_path, VECTOR) == f"a.npy: x has the shape {shape} where the model takes Nx4"


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0.5]), "int64"),
        (np.array([300]), "uint8"),
        (np.array([-1]), "uint8"),
        (np.array([128], np.uint8), "int8"),
        (np.array([-1], np.int8), "uint8"),
        (np.array([2**63 - 1]), "float32"),
        (np.array([2**40]), "int32"),
        (np.array([2**24 + 1]), "float32"),
        (np.array([1]), "bool"),
        (np.array([True]), "float32"),
    ],
)
def test_a_conversion_that_would_lose_values_is_refused(array: Array, dtype: str) -> None:
    model_inputs = signature(TensorSpec("x", ("batch",), dtype))
    with np.errstate(all="raise"):
        sentence = refusal(given_samples.fitted, {"x": array}, model_inputs, "a.npz")
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
def test_a_conversion_that_only_loses_digits_is_done(array: Array, dtype: str) -> None:
    samples = given_samples.fitted({"x": array}, signature(TensorSpec("x", ("batch",), dtype)), "a.npz")
    assert samples["x"].dtype == dtype
    np.testing.assert_allclose(samples["x"].astype("float64"), array.astype("float64"), rtol=1e-3)


numbers = st.sampled_from(["float32", "float64", "int8", "uint8", "int32", "int64", "bool"])


@SEEDED
@given(numbers.flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 4))), numbers)
def test_fitted_samples_have_the_models_type_and_the_original_values(array: Array, dtype: str) -> None:
    try:
        with np.errstate(all="ignore"):
            samples = given_samples.fitted({"x": array}, signature(TensorSpec("x", ("batch",), dtype)), "a.npz")["x"]
    except InputError:
        assert array.dtype != dtype
        return
    assert samples.dtype == dtype
    if not np.issubdtype(array.dtype, np.floating):
        np.testing.assert_array_equal(samples, array)


@pytest.mark.parametrize("values", [[np.nan], [np.inf, 1.0], [1e300]])
def test_floats_for_an_integer_input_are_refused_in_one_sentence(tmp_path: Path, values: list[float]) -> None:
    np.save(tmp_path / "a.npy", np.array(values))
    model_inputs = signature(TensorSpec("x", ("batch",), "int64"))
    assert refusal(read, "a.npy", tmp_path, model_inputs) == "a.npy: x is float64 where the model takes int64"


def test_pickled_objects_are_refused_and_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}, None], dtype=object))
    for name in ("a.npy", "a.npz"):
        sentence = refusal(given_samples.read_arrays, tmp_path / name)
        expected = f"{tmp_path / name}: this is not an npz or npy file of samples"
        assert sentence == f"{expected}: it holds pickled objects, which edgekit does not load"


def test_a_missing_or_empty_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert refusal(read, "a.npz", tmp_path, VECTOR) == f"{path}: no such npz or npy file of samples"
    path.touch()
    assert refusal(read, "a.npz", tmp_path, VECTOR) == f"{path}: this npz or npy file of samples is empty"


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
    assert refusal(given_samples.read_arrays, path).startswith(
        f"{path}: this is not an npz or npy file of samples, or it is damaged"
    )


def test_another_file_format_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"Dear model, how are you?\n" * 40)
    expected = f"{tmp_path / 'a.npz'}: this is not an npz or npy file of samples, or it is damaged"
    assert refusal(given_samples.read_arrays, tmp_path / "a.npz").startswith(expected)


@pytest.mark.parametrize("inside", ["x", "x.npy"])
def test_a_zip_archive_without_arrays_is_refused_in_one_sentence(tmp_path: Path, inside: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(inside, b"not an array")
    expected = f"{tmp_path / 'a.npz'}: this is not an npz or npy file of samples, or it is damaged"
    assert refusal(given_samples.read_arrays, tmp_path / "a.npz").startswith(expected)


def test_an_array_of_strings_is_refused_in_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([["a"] * 4]))
    assert refusal(read, "a.npy", tmp_path, VECTOR) == "a.npy: x is <U1 where the model takes float32"


# Folders of images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with two images of different sizes and modes, one in a subfolder, and a text file."""
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    Image.new("RGB", (12, 9), (255, 0, 51)).save(folder / "cats" / "1.png")
    Image.new("L", (3, 3), 255).save(folder / "2.PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_become_floats_of_the_inputs_size_in_path_order(photos: Path) -> None:
    samples = read("photos", photos.parent, NHWC)["image"]
    assert (samples.shape, samples.dtype) == ((2, 4, 6, 3), np.float32)
    np.testing.assert_allclose(samples[0], 1.0)
    np.testing.assert_allclose(samples[1], np.broadcast_to([1.0, 0.0, 0.2], (4, 6, 3)), atol=1e-6)


def test_a_channels_first_model_gets_channels_first_images(photos: Path) -> None:
    first, last = read("photos", photos.parent, NCHW)["image"], read("photos", photos.parent, NHWC)["image"]
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))


def test_a_single_channel_model_gets_grayscale_images(photos: Path) -> None:
    model_inputs = signature(TensorSpec("image", ("batch", 4, 6, 1), "float32", "NHWC"))
    samples = read("photos", photos.parent, model_inputs)["image"]
    assert samples.shape == (2, 4, 6, 1)
    assert 0 < samples[1].mean() < 1


@pytest.mark.parametrize(("image_range", "white", "green"), [((-1.0, 1.0), 1.0, -1.0), ((0.0, 255.0), 255.0, 0.0)])
def test_pixels_are_scaled_to_the_users_range(
    photos: Path, image_range: tuple[float, float], white: float, green: float
) -> None:
    samples = read("photos", photos.parent, NHWC, image_range)["image"]
    np.testing.assert_allclose(samples[0], white)
    np.testing.assert_allclose(samples[1, :, :, 1], green)


def test_a_uint8_model_gets_unscaled_pixels(photos: Path) -> None:
    model_inputs = signature(TensorSpec("image", ("batch", 4, 6, 3), "uint8", "NHWC"))
    samples = read("photos", photos.parent, model_inputs)["image"]
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(samples[1, 0, 0], [255, 0, 51])


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp", ".gif", ".tiff"])
def test_images_of_any_usual_format_are_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (6, 4), (255, 255, 255)).save(tmp_path / f"white{suffix}")
    np.testing.assert_allclose(read(".", tmp_path, NHWC)["image"], 1.0, atol=0.02)


def test_a_folder_without_images_is_refused_with_the_known_suffixes(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    sentence = refusal(read, ".", tmp_path, NHWC)
    assert sentence == f"{tmp_path}: this folder contains no images ({', '.join(given_samples._IMAGE_SUFFIXES)})"


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
    "model_inputs",
    [
        VECTOR,
        PAIR,
        signature(*NHWC.inputs, *VECTOR.inputs),
        signature(TensorSpec("image", ("batch", "height", "width", 3), "float32", "NHWC")),
    ],
    ids=["a vector", "two inputs", "an image and more", "an image of any size"],
)
def test_a_folder_of_images_requires_a_single_image_input_of_fixed_size(photos: Path, model_inputs: Signature) -> None:
    expected = f"{photos}: a folder of images requires a model whose only input is an image of fixed size"
    assert refusal(read, "photos", photos.parent, model_inputs) == expected


def test_a_two_channel_image_input_is_refused(photos: Path) -> None:
    model_inputs = signature(TensorSpec("image", ("batch", 4, 6, 2), "float32", "NHWC"))
    assert (
        refusal(read, "photos", photos.parent, model_inputs) == f"{photos}: images have 1, 3 or 4 channels; image has 2"
    )


def test_without_pillow_the_error_gives_the_install_command(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.Requirement, "installed", lambda self: False)
    with pytest.raises(MissingDependency, match=r"pip install 'edgekit\[images\]'"):
        read("photos", photos.parent, NHWC)


# Generators


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write data.py, whose function `samples` has the given body, and return its folder."""
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
def test_batches_that_a_generator_yields_are_concatenated(code: Callable[[str], Path], body: str) -> None:
    samples = read("data.py:samples", code(body), PAIR)
    assert samples["ids"].shape == (6, 5)
    assert samples["ids"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert samples["flag"].tolist() == [True, False] * 3


def test_a_generator_for_one_input_may_yield_bare_arrays(code: Callable[[str], Path]) -> None:
    samples = read("data.py:samples", code("for i in range(3): yield np.full((1, 4), i)"), VECTOR)
    assert samples["x"].dtype == np.float32
    assert samples["x"][:, 0].tolist() == [0.0, 1.0, 2.0]


def test_an_endless_generator_is_cut_off(code: Callable[[str], Path]) -> None:
    samples = read("data.py:samples", code("while True: yield np.zeros((1, 4))"), VECTOR)
    assert len(samples["x"]) == given_samples.MAX_SAMPLES


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 3", ": this function returns a int; it must return an iterable of samples"),
        ("return None", ": this function returns a NoneType; it must return an iterable of samples"),
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
def test_a_generator_that_does_not_fit_is_refused_in_one_sentence(
    code: Callable[[str], Path], body: str, sentence: str
) -> None:
    assert refusal(read, "data.py:samples", code(body), VECTOR).startswith(f"data.py:samples{sentence}")


def test_a_missing_generator_is_refused_in_one_sentence(code: Callable[[str], Path], tmp_path: Path) -> None:
    code("return []")
    expected = f"{tmp_path / 'data.py'}: there is no function other() in this file"
    assert refusal(read, "data.py:other", tmp_path, VECTOR) == expected
    assert refusal(read, "gone.py:samples", tmp_path, VECTOR) == f"{tmp_path / 'gone.py'}: no such Python file"

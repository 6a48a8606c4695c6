"""npz and npy files from anywhere: arrays come back as numpy reads them, everything else is one sentence."""

from __future__ import annotations

import io
import resource
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.environment import bounded_files
from edgekit.core.errors import InputError
from edgekit.core.numerics.array_files import load_arrays


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        load_arrays(path, "npz file of samples")
    return str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_survive(tmp_path, save) -> None:
    arrays = {
        "input/x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 3), np.int8),
        "scalar": np.float64(2.5),
        "text": np.array(["a", "bcd"]),
        "truth": np.array([True, False]),
    }
    save(tmp_path / "a.npz", **arrays)
    loaded = load_arrays(tmp_path / "a.npz", "npz file of samples")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].flags.writeable


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.arrays(st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes()), hnp.array_shapes(min_dims=0, min_side=0)))
def test_it_reads_what_numpy_writes(tmp_path, array) -> None:
    np.save(tmp_path / "a.npy", array)
    loaded = load_arrays(tmp_path / "a.npy", "npy file")[""]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def zipped(path, content: bytes, claimed: int | None = None) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    if claimed is not None:  # in the local header and in the directory
        data = path.read_bytes()
        path.write_bytes(data.replace(len(content).to_bytes(4, "little"), claimed.to_bytes(4, "little")))


def test_an_archive_that_claims_more_than_the_memory_is_not_decompressed(tmp_path, monkeypatch) -> None:
    """A file of some megabytes can hold gigabytes of zeros."""
    monkeypatch.setattr(bounded_files, "available_memory_bytes", lambda: 100 * 2**20)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(80 * 2**20, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "half of the available memory, can be read" in refusal(tmp_path / "bomb.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,), }",
        "{'descr': '<U99999999999', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f4', 'shape': (2,)",
        "__import__('os').system('true')",
    ],
)
def test_a_header_that_does_not_fit_the_data_is_damage(tmp_path, header) -> None:
    (tmp_path / "a.npy").write_bytes(npy(header, bytes(8)))
    zipped(tmp_path / "a.npz", npy(header, bytes(8)))
    for name in ("a.npy", "a.npz"):
        assert refusal(tmp_path / name) == f"{tmp_path / name}: this is not an npz file of samples, or it is damaged"


def test_a_wrong_size_in_the_directory_is_damage(tmp_path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(1000))
    for claimed in (100, 10_000, 2**31):
        zipped(tmp_path / "a.npz", buffer.getvalue(), claimed)
        assert "this is not an npz file of samples" in refusal(tmp_path / "a.npz")


def test_pickled_objects_are_not_loaded(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    assert "it holds pickled objects, which edgekit does not load" in refusal(tmp_path / "a.npz")


def test_what_is_no_archive_is_refused(tmp_path) -> None:
    path = tmp_path / "a.npz"
    for content in (b"PK", b"hello", bytes(100)):
        path.write_bytes(content)
        assert "this is not an npz file of samples" in refusal(path)
    path.write_bytes(b"")
    assert refusal(path) == f"{path}: this npz file of samples is empty"
    with zipfile.ZipFile(path, "w"):
        pass
    assert refusal(path) == f"{path}: this is not an npz file of samples: it holds no arrays"

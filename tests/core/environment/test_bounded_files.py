"""Files that are no files, and archives that claim too much, are refused before they are read."""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path

import pytest

from edgekit.core.environment import bounded_files
from edgekit.core.environment.atomic_files import read_bytes, sha256_file
from edgekit.core.environment.bounded_files import compressed_size, gunzip, open_file
from edgekit.core.errors import InputError


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "cannot read this model file: it is not a regular file"),
        (make_socket, "cannot read this model file: no such device or address"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot read this model file: it is not a regular file"),
        (make_loop, "cannot read this model file: too many levels of symbolic links"),
        (Path.mkdir, "cannot read this model file: is a directory"),
        (lambda path: None, "no such model file"),
    ],
    ids=["fifo", "socket", "device", "loop", "folder", "missing"],
)
@pytest.mark.parametrize("read", [open_file, read_bytes, lambda path, _: sha256_file(path)])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, make, reason, read) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 bytes
    make(Path("model"))
    with pytest.raises(InputError) as caught:
        read(Path("model"), "model file")
    assert str(caught.value).replace("this file", "this model file").replace("such file", "such model file") == (
        f"model: {reason}"
    )


def test_a_name_that_the_system_does_not_take_is_refused() -> None:
    for path, reason in ((Path("a" * 300), "file name too long"), (Path("a\0b"), "embedded null byte")):
        with pytest.raises(InputError, match=reason):
            open_file(path, "model file")


def test_a_link_to_a_file_is_read(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "link", "model file") == b"content"


def test_more_than_half_of_the_memory_is_not_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bounded_files, "available_memory_bytes", lambda: 2000)
    path = tmp_path / "model"
    path.write_bytes(bytes(1000))
    assert len(read_bytes(path, "model file")) == 1000
    path.write_bytes(bytes(1001))
    message = f"{path}: this model file holds 1 KB, and at most 1 KB, half of the available memory, can be read"
    with pytest.raises(InputError) as caught:
        read_bytes(path, "model file")
    assert str(caught.value) == message


@pytest.mark.parametrize("size", [0, 1, 3 << 20, (1 << 20) + 1])
def test_the_compressed_size_is_that_of_gzip(tmp_path, size) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(content)
    assert compressed_size(tmp_path / "file") == len(gzip.compress(content, compresslevel=9, mtime=0))


def test_a_gzip_bomb_is_not_decompressed() -> None:
    assert gunzip(gzip.compress(bytes(1000)), 1000) == bytes(1000)
    for content in (gzip.compress(bytes(1001)), gzip.compress(bytes(10_000_000))):
        with pytest.raises(ValueError, match="it holds more than"):
            gunzip(content, 1000)
    for content in (gzip.compress(b"abc")[:-3], b"\x1f\x8b", b"no gzip"):
        with pytest.raises(ValueError):
            gunzip(content, 1000)

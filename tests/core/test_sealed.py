"""JSON that knows when it was damaged."""

import pytest

from edgekit.core import sealed

DATA = {"a": [1, 2.5, None, "ä"], "b": {"c": True}}


def test_it_comes_back_as_it_was(tmp_path):
    sealed.save(tmp_path / "x.json", DATA)
    assert sealed.load(tmp_path / "x.json") == DATA


def test_no_flipped_bit_goes_unseen(tmp_path):
    path = tmp_path / "x.json"
    sealed.save(path, DATA)
    good = path.read_bytes()
    for position in range(len(good) - 1):  # but for the line feed at the end, which is no part of it
        for bit in range(8):
            flipped = bytearray(good)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            assert sealed.load(path) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"\xff\xfe\n{}"])
def test_something_else_is_nothing(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert sealed.load(tmp_path / "x.json") is None
    assert sealed.load(tmp_path / "gone.json") is None

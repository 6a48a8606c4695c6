"""JSON that knows when it was damaged."""

import pytest

from edgekit.core.records import checksummed_json

DATA = {"a": [1, 2.5, None, "ä"], "b": {"c": True}}


def test_it_comes_back_as_it_was(tmp_path):
    checksummed_json.save(tmp_path / "x.json", DATA)
    assert checksummed_json.load(tmp_path / "x.json") == DATA


def test_no_flipped_bit_goes_unseen(tmp_path):
    path = tmp_path / "x.json"
    checksummed_json.save(path, DATA)
    good = path.read_bytes()
    for position in range(len(good) - 1):  # but for the line feed at the end, which is no part of it
        for bit in range(8):
            flipped = bytearray(good)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            assert checksummed_json.load(path) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"\xff\xfe\n{}"])
def test_something_else_is_nothing(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert checksummed_json.load(tmp_path / "x.json") is None
    assert checksummed_json.load(tmp_path / "gone.json") is None

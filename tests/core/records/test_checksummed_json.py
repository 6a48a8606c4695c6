"""Checksummed JSON."""

import pytest

from edgekit.core.records import checksummed_json

DATA = {"a": [1, 2.5, None, "ä"], "b": {"c": True}}


def test_data_are_unchanged_by_the_round_trip(tmp_path):
    checksummed_json.save(tmp_path / "x.json", DATA)
    assert checksummed_json.load(tmp_path / "x.json") == DATA


def test_every_flipped_bit_is_detected(tmp_path):
    path = tmp_path / "x.json"
    checksummed_json.save(path, DATA)
    good = path.read_bytes()
    for position in range(len(good) - 1):  # without the final line feed, which the checksum does not cover
        for bit in range(8):
            flipped = bytearray(good)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            assert checksummed_json.load(path) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"\xff\xfe\n{}"])
def test_another_or_missing_file_is_none(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert checksummed_json.load(tmp_path / "x.json") is None
    assert checksummed_json.load(tmp_path / "gone.json") is None

"""Check of file sizes against limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.errors import InputError
from edgekit.stages.conversion.size import measure_sizes, parse_limit


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A file of 1,000 compressible bytes, and a folder of 2,000 bytes."""
    monkeypatch.chdir(tmp_path)
    Path("a_int8.tflite").write_bytes(bytes(1000))
    Path("saved").mkdir()
    for name in ("one", "two"):
        (Path("saved") / name).write_bytes(bytes(1000))
    return [Path("a_int8.tflite"), Path("saved")]


def measure(files, *limits):
    return measure_sizes(files, [parse_limit(text) for text in limits])


def test_files_and_folders_are_measured(files):
    assert [item.size_bytes for item in measure(files)] == [1000, 2000]
    compressed = [item.compressed_bytes for item in measure(files)]
    assert compressed[0] < 100
    assert compressed[1] is None


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ((), [True, True]),
        (("1 KB",), [True, False]),
        (("999 B",), [False, False]),
        (("*_int8.tflite=10 B",), [False, True]),
        (("1 MB", "*.tflite=10 B"), [False, True]),
        (("10 B", "*.tflite=1 MB"), [False, False]),  # the strictest
    ],
)
def test_the_strictest_limit_that_matches_a_file_applies(files, limits, passed):
    assert [item.passed for item in measure(files, *limits)] == passed


@pytest.mark.parametrize("text", ["", "500", "x=500", "=5 KB", "5 kb", "*.tflite=5 apples"])
def test_an_invalid_limit_is_bad_input(text):
    with pytest.raises(InputError, match="--max-size"):
        parse_limit(text)


def test_a_missing_file_is_bad_input():
    with pytest.raises(InputError, match=r"nowhere\.tflite: no such file"):
        measure_sizes([Path("nowhere.tflite")], [])


def test_the_command_names_what_is_too_large(files, edgekit):
    answer = edgekit("size", *files, "--max-size", "1 KB", "--max-size", "*.tflite=100 B")
    assert answer.code == 1
    assert "FAILED  a_int8.tflite: 1 KB exceeds the limit 100 B of *.tflite\n" in answer.out
    assert "FAILED  saved: 2 KB exceeds the limit 1 KB\n" in answer.out
    assert edgekit("size", *files, "--max-size", "1 MB").code == 0


def test_the_command_answers_in_json(files, edgekit):
    answer = edgekit("size", *files, "--max-size", "1 KB", "--json")
    assert answer.code == 1
    assert [(item["path"], item["passed"]) for item in answer.data["files"]] == [
        ("a_int8.tflite", True),
        ("saved", False),
    ]


def test_the_command_requires_a_file_and_a_valid_limit(files, edgekit):
    assert edgekit("size").code == 2
    assert edgekit("size", "a_int8.tflite", "--max-size", "much").code == 2
    assert edgekit("size", "b.tflite").code == 2

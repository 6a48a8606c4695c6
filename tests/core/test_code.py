"""Python files that the user named."""

import pytest

from edgekit.core.code import load_function
from edgekit.core.errors import InputError


@pytest.fixture
def write(tmp_path):
    def make(source, name="model.py"):
        path = tmp_path / name
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return path

    return make


def refusal(path, name="build"):
    with pytest.raises(InputError) as caught:
        load_function(path, name)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_function_of_the_file_is_found(write):
    assert load_function(write("def build():\n    return 42\n"), "build")() == 42


def test_a_class_may_stand_for_a_function(write):
    assert load_function(write("class Net:\n    size = 3\n"), "Net")().size == 3


def test_a_second_load_gives_the_same_object(write):
    path = write("class Net:\n    pass\n")
    assert load_function(path, "Net") is load_function(path, "Net")


def test_two_files_of_the_same_name_do_not_meet(write, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = write("def load():\n    return 1\n"), write("def load():\n    return 2\n", "other/model.py")
    assert (load_function(first, "load")(), load_function(second, "load")()) == (1, 2)


def test_dataclasses_of_the_file_work(write):
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
    assert load_function(write(source), "P")(3).x == 3


def test_a_missing_file_is_one_sentence(tmp_path):
    assert refusal(tmp_path / "gone.py") == f"{tmp_path / 'gone.py'}: no such Python file"
    assert refusal(tmp_path) == f"{tmp_path}: no such Python file"


def test_a_file_that_is_not_python_is_one_sentence(write):
    path = write("hello", "model.txt")
    assert refusal(path) == f"{path}: this is not a Python file"


def test_a_missing_function_is_one_sentence(write):
    path = write("def make():\n    pass\n")
    assert refusal(path) == f"{path}: there is no function build() in this file"


def test_what_cannot_be_called_is_no_function(write):
    path = write("build = 3\n")
    assert refusal(path) == f"{path}: there is no function build() in this file"


def test_a_syntax_error_is_told_with_its_line(write):
    path = write("x = 1\ndef build(:\n    pass\n")
    assert refusal(path).startswith(f"{path}: line 2: ")


@pytest.mark.parametrize("source", [b"x = '\xff'\n", b"x = 1\x00\n"], ids=["no UTF-8", "null byte"])
def test_bytes_that_are_no_python_are_one_sentence(write, source):
    path = write(source)
    assert refusal(path).startswith(f"{path}: ")


def test_a_file_that_failed_is_run_again_once_it_is_mended(write):
    path = write("raise RuntimeError('not yet')\n")
    with pytest.raises(RuntimeError, match="not yet"):
        load_function(path, "build")
    write("def build():\n    return 'mended and longer'\n")
    assert load_function(path, "build")() == "mended and longer"


def test_a_syntax_error_that_was_mended_is_forgotten(write):
    path = write("def build(\n")
    refusal(path)
    write("def build():\n    return 'mended'\n")
    assert load_function(path, "build")() == "mended"

"""Loading of the user's Python code."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.core.environment.user_code import Factory, load_function
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


def test_the_function_of_a_file_is_returned(write):
    assert load_function(write("def build():\n    return 42\n"), "build")() == 42


def test_a_class_is_accepted_as_a_function(write):
    assert load_function(write("class Net:\n    size = 3\n"), "Net")().size == 3


def test_a_second_load_returns_the_same_object(write):
    path = write("class Net:\n    pass\n")
    assert load_function(path, "Net") is load_function(path, "Net")


def test_two_files_of_the_same_name_do_not_collide(write, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = write("def load():\n    return 1\n"), write("def load():\n    return 2\n", "other/model.py")
    assert (load_function(first, "load")(), load_function(second, "load")()) == (1, 2)


def test_equal_files_of_two_folders_are_two_modules(write, tmp_path):
    (tmp_path / "other").mkdir()
    source = "calls = []\ndef load():\n    calls.append(1)\n    return __file__, len(calls)\n"
    first, second = write(source), write(source, "other/model.py")
    assert load_function(first, "load")() == (str(first), 1)
    assert load_function(second, "load")() == (str(second), 1)


def test_the_name_of_the_module_does_not_depend_on_the_folder(tmp_path):
    code = "import sys; from pathlib import Path; from edgekit.core.environment.user_code import load_function;"
    code += " print(load_function(Path(sys.argv[1], 'net.py'), 'Net').__module__)"
    names = set()
    for folder in (tmp_path / "a", tmp_path / "b" / "c"):
        folder.mkdir(parents=True)
        (folder / "net.py").write_text("class Net:\n    pass\n")
        names.add(subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True).stdout)
    (name,) = names
    assert name.startswith("edgekit_user_")


def test_dataclasses_of_the_file_work(write):
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
    assert load_function(write(source), "P")(3).x == 3


def test_a_missing_file_is_a_one_line_error(tmp_path):
    assert refusal(tmp_path / "gone.py") == f"{tmp_path / 'gone.py'}: no such Python file"
    assert refusal(tmp_path) == f"{tmp_path}: no such Python file"


def test_a_file_that_is_not_python_is_a_one_line_error(write):
    path = write("hello", "model.txt")
    assert refusal(path) == f"{path}: this is not a Python file"


def test_a_missing_function_is_a_one_line_error(write):
    path = write("def make():\n    pass\n")
    assert refusal(path) == f"{path}: there is no function build() in this file"


def test_a_name_that_is_not_callable_is_refused(write):
    path = write("build = 3\n")
    assert refusal(path) == f"{path}: there is no function build() in this file"


def test_a_syntax_error_is_reported_with_its_line(write):
    path = write("x = 1\ndef build(:\n    pass\n")
    assert refusal(path).startswith(f"{path}: line 2: ")


@pytest.mark.parametrize("source", [b"x = '\xff'\n", b"x = 1\x00\n"], ids=["no UTF-8", "null byte"])
def test_bytes_that_are_not_python_are_a_one_line_error(write, source):
    path = write(source)
    assert refusal(path).startswith(f"{path}: ")


def test_a_file_that_raised_is_executed_again_after_it_was_fixed(write):
    path = write("raise RuntimeError('not yet')\n")
    with pytest.raises(RuntimeError, match="not yet"):
        load_function(path, "build")
    write("def build():\n    return 'mended and longer'\n")
    assert load_function(path, "build")() == "mended and longer"


def test_a_file_with_a_syntax_error_is_loaded_after_it_was_fixed(write):
    path = write("def build(\n")
    refusal(path)
    write("def build():\n    return 'mended'\n")
    assert load_function(path, "build")() == "mended"


@pytest.fixture
def _own_path(monkeypatch):
    """Restore `sys.path`, which a factory extends."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def factory_refusal(text, base, *arguments):
    with pytest.raises(InputError) as caught:
        Factory.parse(text).call(base, *arguments)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "where", "name"),
    [
        ("net.py:small", "net.py", "small"),
        ("net.py", "net.py", "build"),
        ("src/nets/net.py:Net", "src/nets/net.py", "Net"),
        ("/abs/net.py:build", "/abs/net.py", "build"),
        ("odd:name.py:build", "odd:name.py", "build"),
        ("package.module:make", "package.module", "make"),
        ("module", "module", "build"),
    ],
)
def test_a_factory_is_parsed_to_a_location_and_a_function(text, where, name):
    factory = Factory.parse(text)
    assert factory == Factory(where, name)
    assert str(factory) == f"{where}:{name}"
    assert Factory.parse(str(factory)) == factory


def test_the_file_of_a_factory_is_relative_to_the_base(tmp_path):
    assert Factory("net.py", "build").file(tmp_path) == tmp_path / "net.py"
    assert Factory("/abs/net.py", "build").file(tmp_path) == Path("/abs/net.py")
    assert Factory("package.module", "build").file(tmp_path) is None


@pytest.mark.usefixtures("_own_path")
def test_a_factory_calls_the_function_of_a_file(write, tmp_path):
    write("def add(a, b):\n    return a + b\n", "net.py")
    assert Factory.parse("net.py:add").call(tmp_path, 2, 3) == 5


@pytest.mark.usefixtures("_own_path")
def test_a_file_can_import_modules_beside_it(write, tmp_path):
    (tmp_path / "src").mkdir()
    write("VALUE = 7\n", "src/helper_beside_the_net.py")
    write("from helper_beside_the_net import VALUE\ndef build():\n    return VALUE\n", "src/net.py")
    assert Factory.parse("src/net.py:build").call(tmp_path) == 7


@pytest.mark.usefixtures("_own_path")
def test_a_factory_calls_the_function_of_a_module_in_the_base(write, tmp_path):
    (tmp_path / "own_package").mkdir()
    write("", "own_package/__init__.py")
    write("def build():\n    return 'built'\n", "own_package/nets.py")
    assert Factory.parse("own_package.nets:build").call(tmp_path) == "built"


@pytest.mark.usefixtures("_own_path")
def test_a_missing_location_or_function_is_a_one_line_error(write, tmp_path):
    write("def make():\n    pass\n", "net.py")
    write("def make():\n    pass\n", "a_module_here.py")
    path = tmp_path / "net.py"
    assert factory_refusal("gone.py:build", tmp_path) == f"{tmp_path / 'gone.py'}: no such Python file"
    assert factory_refusal("net.py:build", tmp_path) == f"{path}: there is no function build() in this file"
    expected = "a_module_here: there is no function build() in this module"
    assert factory_refusal("a_module_here:build", tmp_path) == expected
    assert factory_refusal("no_such_pkg:build", tmp_path) == "no_such_pkg: there is no Python module of this name"
    expected = "no_such_pkg.nets: there is no Python module of this name"
    assert factory_refusal("no_such_pkg.nets:build", tmp_path) == expected


@pytest.mark.usefixtures("_own_path")
@pytest.mark.parametrize("location", ["file", "module"])
def test_an_exception_during_the_import_is_reported_in_one_line(write, tmp_path, location):
    write("raise ValueError('not today\\nnor tomorrow')\n", f"raises_in_a_{location}.py")
    where = "raises_in_a_file.py" if location == "file" else "raises_in_a_module"
    expected = f"{where}:build: importing it raised ValueError: not today"
    assert factory_refusal(f"{where}:build", tmp_path) == expected


@pytest.mark.usefixtures("_own_path")
@pytest.mark.parametrize("location", ["file", "module"])
def test_a_package_that_the_code_needs_is_named_in_the_error(write, tmp_path, location):
    write("import a_package_that_nobody_has\n", f"needs_it_in_a_{location}.py")
    where = "needs_it_in_a_file.py" if location == "file" else "needs_it_in_a_module"
    assert "No module named 'a_package_that_nobody_has'" in factory_refusal(f"{where}:build", tmp_path)


@pytest.mark.usefixtures("_own_path")
def test_a_package_that_the_code_needs_is_named_even_if_the_module_s_name_starts_with_it(write, tmp_path):
    write("import nobody_has\n", "nobody_has_this_net.py")
    assert "No module named 'nobody_has'" in factory_refusal("nobody_has_this_net:build", tmp_path)


@pytest.mark.usefixtures("_own_path")
@pytest.mark.parametrize(
    ("body", "reported"),
    [
        ("raise RuntimeError('out of paint')", "RuntimeError: out of paint"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
        ("raise RuntimeError", "RuntimeError"),
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        (f"raise ValueError('{'x' * 999}')", f"ValueError: {'x' * 200}"),
    ],
)
def test_an_exception_of_the_function_is_reported_in_one_line(write, tmp_path, body, reported):
    write(f"def build():\n    {body}\n", "net.py")
    assert factory_refusal("net.py:build", tmp_path) == f"net.py:build raised {reported}"


@pytest.mark.usefixtures("_own_path")
def test_a_function_that_needs_arguments_is_a_one_line_error(write, tmp_path):
    write("def build(width):\n    pass\n", "net.py")
    sentence = factory_refusal("net.py:build", tmp_path)
    assert sentence.startswith("net.py:build raised TypeError: build() missing 1 required positional argument")


@pytest.mark.usefixtures("_own_path")
def test_a_syntax_error_of_a_factory_is_reported_with_its_line(write, tmp_path):
    path = write("x = 1\ndef build(:\n    pass\n", "net.py")
    assert factory_refusal("net.py:build", tmp_path).startswith(f"{path}: line 2: ")

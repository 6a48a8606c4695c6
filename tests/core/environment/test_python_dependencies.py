"""The local modules that a Python file imports."""

from edgekit.core.environment.python_dependencies import files_of, module_file


def write_modules(folder, **files):
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return lambda *names: {folder / name for name in names}


def test_imports_inside_functions_and_circular_imports_are_followed(tmp_path):
    paths = write_modules(
        tmp_path,
        net="import os, blocks\nfrom torch import nn",
        blocks="def build():\n    from layers import conv",
        layers="import net",
        alone="",
    )
    assert set(files_of(tmp_path / "net.py", tmp_path)) == paths("net.py", "blocks.py", "layers.py")


def test_packages_and_relative_imports_are_followed(tmp_path):
    paths = write_modules(
        tmp_path,
        net="from pack.inner import one\nimport pack.two as two",
        pack__other="",
        pack__two="from . import three\nfrom .inner.one import x",
        pack__three="",
        pack__inner__one="from .. import two",
    )
    for folder in ("pack", "pack/inner"):
        (tmp_path / folder / "__init__.py").write_text("")
    inits = paths("pack/__init__.py", "pack/inner/__init__.py")
    files = set(files_of(tmp_path / "net.py", tmp_path))
    assert files == inits | paths("net.py", "pack/two.py", "pack/three.py", "pack/inner/one.py")


def test_a_file_with_a_syntax_error_has_no_imports(tmp_path):
    write_modules(tmp_path, net="import blocks\ndef", blocks="")
    assert files_of(tmp_path / "net.py", tmp_path) == (tmp_path / "net.py",)
    assert files_of(tmp_path / "gone.py", tmp_path) == ()


def test_module_file_finds_modules_and_packages(tmp_path):
    write_modules(tmp_path, a__b="", c="")
    (tmp_path / "a/__init__.py").write_text("")
    assert module_file("a.b", tmp_path) == tmp_path / "a/b.py"
    assert module_file("a", tmp_path) == tmp_path / "a/__init__.py"
    assert module_file("nothing", tmp_path) is None

"""The local modules that a Python file imports, read from its syntax tree. Nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def files_of(path: Path, top: Path) -> tuple[Path, ...]:
    """Return a Python file and all modules below a folder that it imports, directly or indirectly.

    Args:
        path: The file.
        top: The folder of the modules.

    Returns:
        The files, `path` first; none if `path` does not exist. A file with a syntax error has no imports: running it
        reports the error.
    """
    files: dict[Path, None] = {}
    queue = [path]
    while queue:
        file = queue.pop()
        if file not in files and file.is_file():
            files[file] = None
            queue += _imported_files(file, top)
    return tuple(files)


def module_file(name: str, top: Path) -> Path | None:
    """Return the file of a module.

    Args:
        name: The module's dotted name.
        top: The folder of the modules.

    Returns:
        The module's file, a package's `__init__.py`, or None if there is neither below `top`.
    """
    base = top.joinpath(*name.split("."))
    return next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)


def _imported_files(file: Path, top: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(alias.name, top)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else top
            # `from package import name`: the name may be a module of the package.
            for name in (node.module, *(f"{node.module or ''}.{alias.name}" for alias in node.names)):
                yield from _module_files((name or "").strip("."), base)


def _module_files(name: str, top: Path) -> Iterator[Path]:
    """Yield the files of a module and of the packages that contain it."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = module_file(".".join(parts[:end]), top) if parts[0] else None
        if path is not None:
            yield path

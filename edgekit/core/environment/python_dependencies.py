"""Which files a Python file consists of: itself, and whatever it imports that lies beside it. Nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def files_of(path: Path, top: Path) -> tuple[Path, ...]:
    """The file and every module below `top` that it imports, directly or not. One that Python cannot parse imports
    nothing: whoever runs it will say so."""
    found: dict[Path, None] = {}
    queue = [path]
    while queue:
        file = queue.pop()
        if file not in found and file.is_file():
            found[file] = None
            queue += _imported(file, top)
    return tuple(found)


def module_file(name: str, top: Path) -> Path | None:
    """The file of a module below `top`, or None."""
    base = top.joinpath(*name.split("."))
    return next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)


def _imported(file: Path, top: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name, top)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else top
            # What is imported from a package may be a name in it, or a module of it.
            for name in (node.module, *(f"{node.module or ''}.{alias.name}" for alias in node.names)):
                yield from _modules((name or "").strip("."), base)


def _modules(name: str, top: Path) -> Iterator[Path]:
    """The files of a dotted name: those of its packages, and its own."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = module_file(".".join(parts[:end]), top) if parts[0] else None
        if path is not None:
            yield path

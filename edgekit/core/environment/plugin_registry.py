"""Plug-ins by file name: the names are listed from the folder, a module is imported on first use.

Third parties add theirs through entry points of the group of the same name (`edgekit.targets`, …); the entry point's
value names a module that has the same attribute as ours (`TARGET`, `RUNTIME`, `REPORT` …).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.core.errors import InputError, unknown_name

_PACKAGE_ROOT = Path(__file__).parents[2]


def _own_names(package: str) -> list[str]:
    folder = _PACKAGE_ROOT.joinpath(*package.split(".")[1:])
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _entry_points(package: str) -> dict[str, metadata.EntryPoint]:
    return _found(metadata.entry_points, package, tuple(sys.path))


@cache
def _found(look: Callable[..., Any], package: str, _path: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """To look reads a file of every installed distribution: once for each state of the path."""
    return {point.name: point for point in look(group=package)}


def names(package: str) -> list[str]:
    """The plug-ins of a package such as `edgekit.targets`, ours and third parties', without importing any."""
    return sorted({*_own_names(package), *_entry_points(package)})


def load(package: str, name: str, attribute: str) -> Any:
    """The plug-in object: attribute `attribute` of the module that `name` stands for.

    Raises InputError that lists the known names when there is none. Our own win over a third party's of the same name.
    """
    kind = package.rpartition(".")[2].removesuffix("s")
    if name in _own_names(package):
        return getattr(importlib.import_module(f"{package}.{name.replace('-', '_')}"), attribute)
    point = _entry_points(package).get(name)
    if point is None:
        raise unknown_name(kind, name, names(package))
    try:
        return getattr(importlib.import_module(point.module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the {kind} '{name}' of another package ({point.value}) cannot be loaded: {error}") from error

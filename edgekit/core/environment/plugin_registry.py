"""Plug-ins by file name: a folder's file names are the plug-ins' names, and a module is imported on first use.

Third parties register theirs as entry points of the kind's group (`edgekit.targets`, `edgekit.executors`, …). The entry
point's value names a module that has the kind's attribute (`TARGET`, `EXECUTOR`, …).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgekit.core.errors import InputError, unknown_name

T = TypeVar("T")

# The folder of the package `edgekit`.
_PACKAGE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class PluginKind(Generic[T]):
    """A kind of plug-in, such as targets.

    Attributes:
        package: The package whose files are edgekit's own plug-ins.
        attribute: The module attribute that holds the plug-in object.
        base: The class that the object must be an instance of.
        group: The entry-point group of third parties' plug-ins; empty: the package's name.
        on_load: Called with each plug-in that `load` returns, for what a plug-in registers elsewhere.
    """

    package: str
    attribute: str
    base: type[T]
    group: str = ""
    on_load: Callable[[T], None] | None = None

    @property
    def noun(self) -> str:
        """The kind in the singular, such as `target`."""
        return (self.group or self.package).rpartition(".")[2].removesuffix("s")

    def names(self) -> list[str]:
        """List the plug-ins, edgekit's own and third parties', without importing any."""
        return names(self.package, self.group)

    def third_party_names(self) -> list[str]:
        """List the plug-ins that other packages register."""
        return sorted(set(_entry_points(self.group or self.package)) - set(_own_names(self.package)))

    def load(self, name: str) -> T:
        """Load a plug-in.

        Args:
            name: The plug-in's name.

        Returns:
            The plug-in object.

        Raises:
            InputError: There is no plug-in of that name, or a third party's cannot be imported, is not an instance of
                `base`, has another name than its entry point, or registers something that cannot be registered.
        """
        plugin = load(self.package, name, self.attribute, self.group)
        if not isinstance(plugin, self.base):
            raise InputError(f"the {self.noun} '{name}' of another package is not a {self.base.__name__}")
        own_name = getattr(plugin, "name", name)
        if own_name != name:
            raise InputError(f"the {self.noun} '{name}' of another package calls itself '{own_name}'")
        if self.on_load is not None:
            self.on_load(plugin)
        return plugin

    def load_all(self) -> dict[str, T]:
        """Return every plug-in by name, in the order of names."""
        return {name: self.load(name) for name in self.names()}


def _own_names(package: str) -> list[str]:
    folder = _PACKAGE_ROOT.joinpath(*package.split(".")[1:])
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return _entry_points_on_path(metadata.entry_points, group, tuple(sys.path))


# Looking for entry points reads a file of every installed distribution: once for each state of sys.path.
@cache
def _entry_points_on_path(
    entry_points: Callable[..., Any], group: str, _path: tuple[str, ...]
) -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def names(package: str, group: str = "") -> list[str]:
    """List the plug-ins of a kind without importing any.

    Args:
        package: The package of edgekit's own plug-ins, such as `edgekit.targets`.
        group: The entry-point group of third parties' plug-ins; empty: the package's name.

    Returns:
        The names, sorted.
    """
    return sorted({*_own_names(package), *_entry_points(group or package)})


def load(package: str, name: str, attribute: str, group: str = "") -> Any:
    """Import the module of a plug-in and return its plug-in object.

    edgekit's own plug-in takes precedence over a third party's of the same name.

    Args:
        package: The package of edgekit's own plug-ins, such as `edgekit.targets`.
        name: The plug-in's name.
        attribute: The module attribute that holds the plug-in object.
        group: The entry-point group of third parties' plug-ins; empty: the package's name.

    Returns:
        The plug-in object.

    Raises:
        InputError: There is no plug-in of that name (the message lists the known ones), or the module of another
            package cannot be imported or lacks the attribute.
    """
    noun = (group or package).rpartition(".")[2].removesuffix("s")
    if name in _own_names(package):
        return getattr(importlib.import_module(f"{package}.{name.replace('-', '_')}"), attribute)
    point = _entry_points(group or package).get(name)
    if point is None:
        raise unknown_name(noun, name, names(package, group))
    try:
        return getattr(importlib.import_module(point.module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the {noun} '{name}' of another package ({point.value}) cannot be loaded: {error}") from error

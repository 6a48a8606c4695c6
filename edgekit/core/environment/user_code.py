"""Loading Python code that the user named, or that a model's folder holds."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.errors import InputError


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """The function `name` of the file, which is executed as a module.

    Raises InputError when file or function is missing, or Python cannot parse the file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such Python file")
    # One module name a path, so that two models' data.py do not meet, and a second load gives the same classes.
    module_name = f"edgekit_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"{path}: this is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            del sys.modules[module_name]
            raise InputError(f"{path}: line {error.lineno}: {error.msg}") from None
        except BaseException:
            del sys.modules[module_name]
            raise
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path}: there is no function {name}() in this file")
    loaded: Callable[..., Any] = function
    return loaded


@dataclass(frozen=True)
class Factory:
    """A function that the user named: `file.py:function` or `package.module:function`.

    `where` is the file's path, absolute or relative to the folder that `load` is given, or the module's dotted name.
    """

    where: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Factory:
        """From `where:function`; without a function it is `build`."""
        where, _, name = text.rpartition(":")
        return cls(where, name) if where else cls(text, "build")

    def __str__(self) -> str:
        return f"{self.where}:{self.name}"

    def file(self, base: Path) -> Path | None:
        """The Python file, or None for a module's name."""
        return base / self.where if self.where.endswith(".py") else None

    def load(self, base: Path) -> Callable[..., Any]:
        """The function. What stands beside the file (for a module: in `base`) can be imported by it.

        Raises InputError when file, module or function is missing, or when importing it raises.
        """
        path = self.file(base)
        folder = str((base if path is None else path.parent).resolve())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        try:
            return load_function(path, self.name) if path else _module_function(self.where, self.name)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises when it is imported
            raise InputError(f"{self}: importing it raised {_told(error)}") from error

    def call(self, base: Path, *arguments: Any) -> Any:
        """What the function returns. Raises InputError when it cannot be loaded, or raises."""
        function = self.load(base)
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise InputError(f"{self} raised {_told(error)}") from error


def _module_function(module: str, name: str) -> Callable[..., Any]:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{module}: there is no Python module of this name") from None
        raise
    function = getattr(found, name, None)
    if not callable(function):
        raise InputError(f"{module}: there is no function {name}() in this module")
    loaded: Callable[..., Any] = function
    return loaded


def _told(error: BaseException) -> str:
    """`ValueError: the first line of what it says`"""
    message = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__

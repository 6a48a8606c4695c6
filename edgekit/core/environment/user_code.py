"""Loading of the user's Python code by file or module name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.contained_files import path_inside
from edgekit.core.environment.python_dependencies import module_file
from edgekit.core.errors import InputError


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Import a Python file and return one of its functions.

    Args:
        path: The file, which is executed as a module, once in a process.
        name: The function's name.

    Returns:
        The function.

    Raises:
        InputError: The file or the function is missing, or the file has a syntax error.
        Exception: The code of the file raised it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such Python file")
    module_name = _module_name(path.resolve())
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
        except BaseException:  # a module that was executed in part must not be found by the next load
            del sys.modules[module_name]
            raise
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path}: there is no function {name}() in this file")
    loaded: Callable[..., Any] = function
    return loaded


# Module name -> the file that has it in this process.
_module_files: dict[str, Path] = {}


def _module_name(path: Path) -> str:
    """Return the name of a file's module: the same for the same file, another for each other file of this process.

    Converters write names of modules into model files, as the TorchScript class `__torch__.edgekit_user_….Net`. So the
    name depends on the file's own name and content, and not on the folder that the project is in.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read this Python file: {(error.strerror or str(error)).lower()}") from error
    digest = hashlib.sha256(path.name.encode() + b"\0" + content).hexdigest()[:16]
    name, copies = f"edgekit_user_{digest}", 1
    # Equal files of two models, such as `data.py`, are two modules: each finds its own neighbours.
    while _module_files.setdefault(name, path) != path:
        copies += 1
        name = f"edgekit_user_{digest}_{copies}"
    return name


@dataclass(frozen=True)
class Factory:
    """A reference to a function of the user's: `file.py:function` or `package.module:function`.

    Attributes:
        where: The file's path, absolute or relative to the base folder of `load`, or the module's dotted name.
        name: The function's name.
    """

    where: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Factory:
        """Parse a reference.

        Args:
            text: `WHERE:FUNCTION`, or `WHERE` alone for the function `build`.

        Returns:
            The reference.
        """
        where, _, name = text.rpartition(":")
        return cls(where, name) if where else cls(text, "build")

    def __str__(self) -> str:
        return f"{self.where}:{self.name}"

    def file(self, base: Path) -> Path | None:
        """Return the Python file below the base folder, or None if the reference names a module."""
        return base / self.where if self.where.endswith(".py") else None

    def file_inside(self, base: Path) -> Path:
        """Return the Python file of the reference, which must be inside a folder.

        Args:
            base: The folder.

        Returns:
            The file that the reference names, or the file of its module, which is searched in the folder only.

        Raises:
            InputError: The file leads outside the folder, or the folder has no such module.
        """
        if self.where.endswith(".py"):
            return path_inside(base, self.where)
        named = all(part.isidentifier() for part in self.where.split("."))
        file = module_file(self.where, base) if named else None
        if file is None:
            raise InputError(f"{self.where}: there is no Python module of this name in {base}")
        return path_inside(base, file.relative_to(base).as_posix())

    def load(self, base: Path) -> Callable[..., Any]:
        """Import the function.

        The folder of the file (for a module: `base`) is put on `sys.path`, so that the code can import its neighbours.

        Args:
            base: The folder that relative paths and modules are searched in.

        Returns:
            The function.

        Raises:
            InputError: The file, module or function is missing, or importing it raises.
        """
        path = self.file(base)
        folder = str((base if path is None else path.parent).resolve())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        try:
            return load_function(path, self.name) if path else _module_function(self.where, self.name)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything, or call sys.exit()
            raise InputError(f"{self}: importing it raised {_error_summary(error)}") from error

    def call(self, base: Path, *arguments: Any) -> Any:
        """Import the function and call it.

        Args:
            base: The folder that relative paths and modules are searched in.
            *arguments: The arguments of the function.

        Returns:
            What the function returns.

        Raises:
            InputError: The function cannot be imported, or raises.
        """
        function = self.load(base)
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            raise InputError(f"{self} raised {_error_summary(error)}") from error


@dataclass(frozen=True)
class RecordedCode:
    """Code that a record names and that may be run: `recorded_code` of `edgekit.stages.models` gives this permission.

    Attributes:
        reference: The reference, as `Factory` writes it.
        base: The folder that the reference is relative to.
        file: The file with the function; None for an installed module that the user named.
        sha256: The digest of the file.
    """

    reference: str
    base: str
    file: str | None
    sha256: str | None

    def call(self) -> Any:
        """Import the function and call it, after the file was checked again.

        Returns:
            What the function returns.

        Raises:
            InputError: The file has changed, another module has the same name, or the function raises.
        """
        factory = Factory.parse(self.reference)
        if self.file is not None:
            if sha256_file(Path(self.file)) != self.sha256:
                raise InputError(f"{self.file}: this file has changed since it was checked; run the command again")
            if not factory.where.endswith(".py"):
                self._check_module(factory)
        return factory.call(Path(self.base))

    def _check_module(self, factory: Factory) -> None:
        factory.load(Path(self.base))
        loaded = getattr(sys.modules.get(factory.where), "__file__", None)
        if loaded is None or Path(loaded).resolve() != Path(str(self.file)).resolve():
            raise InputError(f"{factory.where}: another module of this name hides {self.file}; rename one of them")


def _module_function(module: str, name: str) -> Callable[..., Any]:
    try:
        loaded_module = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Only the module itself or a package that contains it: any other name is an import of the user's code.
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{module}: there is no Python module of this name") from None
        raise
    function = getattr(loaded_module, name, None)
    if not callable(function):
        raise InputError(f"{module}: there is no function {name}() in this module")
    loaded: Callable[..., Any] = function
    return loaded


def _error_summary(error: BaseException) -> str:
    """Return the type and the first line of an error, such as `ValueError: the shape is wrong`."""
    message = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__

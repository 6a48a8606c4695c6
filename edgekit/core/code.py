"""Loading a Python file that the user named, or that a model's folder holds."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
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

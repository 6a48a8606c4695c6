"""Decoding of what a worker sends: data classes, arrays and plain values, and nothing that runs code.

Workers send pickles, because requests and answers are data classes that hold arrays. A pickle can name any function for
the reader to call. A worker that a model file has taken over must not reach its unconfined parent in this way, so
the parent looks up only the names below.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import io
import pickle
from typing import Any

from edgekit.core.errors import StepFailed

# How numpy 1 and 2 pickle arrays, scalars and dtypes.
_NUMPY_FUNCTIONS = frozenset(
    f"{package}.{name}"
    for package in ("numpy.core", "numpy._core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
)
_NAMES = _NUMPY_FUNCTIONS | {
    "numpy.ndarray",
    "numpy.dtype",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.set",
    "builtins.bytearray",
    "collections.OrderedDict",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    # Python 3.13 pickles paths by the private name of their module.
    "pathlib._local.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.PurePosixPath",
}


class _AnswerUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _NAMES:
            return super().find_class(module, name)
        if module == "ml_dtypes" and name.isidentifier():  # the scalar types behind bfloat16 and int4 arrays
            return super().find_class(module, name)
        # Rebuilding a data class or an enumeration runs no code of it: fields are set, members are looked up.
        if module.partition(".")[0] == "edgekit":
            value: Any = importlib.import_module(module)
            for part in name.split("."):
                value = vars(value)[part]
            if isinstance(value, type) and (dataclasses.is_dataclass(value) or issubclass(value, enum.Enum)):
                return value
        raise pickle.UnpicklingError(f"{module}.{name} is neither a data class nor an array")


def loads(message: bytes) -> Any:
    """Decode a message of a worker.

    Args:
        message: A pickle.

    Returns:
        The value.

    Raises:
        StepFailed: The message is damaged, or holds something else than data classes, arrays and plain values.
    """
    try:
        return _AnswerUnpickler(io.BytesIO(message)).load()
    except Exception as error:  # a damaged pickle raises errors of many types
        raise StepFailed(f"the answer of a worker cannot be read ({type(error).__name__}: {error})") from error

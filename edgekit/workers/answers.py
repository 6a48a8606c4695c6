"""Encoding of what a worker sends: data classes, arrays and plain values, and nothing that runs code.

Workers send pickles, because requests and answers are data classes that hold arrays. A pickle can name any function for
the reader to call. A worker that a model file has taken over must not reach its unconfined parent in this way, so
the parent looks up only the names below.

Arrays are sent as bytes with a name of their type. The functions with which numpy pickles arrays are none of these
names: they take types with any flags and sizes, and an array of such a type reads and writes foreign memory.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import io
import pickle
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.core.errors import StepFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAMES = {
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

# Numbers, text and times, as `numpy.dtype.str` names them; no objects, and no records.
_PLAIN_TYPE = re.compile(r"[<>|][biufcSU][0-9]{1,9}|[<>][mM]8(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?")


def _dtype(name: str) -> np.dtype[Any]:
    """Return the type of an array's elements; its name is `numpy.dtype.str`, or that of a type of ml_dtypes."""
    import numpy as np

    if not isinstance(name, str):
        raise pickle.UnpicklingError("the name of a type is no text")
    if _PLAIN_TYPE.fullmatch(name):
        return np.dtype(name)
    import ml_dtypes  # only where a model has such a type

    scalar = vars(ml_dtypes).get(name)
    if isinstance(scalar, type) and issubclass(scalar, np.generic):
        return np.dtype(scalar)
    raise pickle.UnpicklingError(f"{name!r} is no type of numbers or text")


def _array(name: str, shape: tuple[int, ...], order: str, data: bytes | bytearray) -> NDArray[Any]:
    """Return an array from its bytes."""
    import numpy as np

    dtype = _dtype(name)
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(name: str, data: bytes | bytearray) -> Any:
    """Return a scalar of numpy from its bytes."""
    return _array(name, (), "C", data)[()]


def _object_array(values: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array of objects, such as texts of several lengths."""
    import numpy as np

    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


_FUNCTIONS = {function.__name__: function for function in (_array, _scalar, _object_array)}


class _AnswerPickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        np = sys.modules.get("numpy")  # a worker that has not imported it sends none of its values
        if np is None or not isinstance(value, np.ndarray | np.generic):
            return NotImplemented
        array = np.asarray(value)
        if array.dtype.hasobject:
            return _object_array, (array.reshape(-1).tolist(), array.shape)
        plain = _PLAIN_TYPE.fullmatch(array.dtype.str)
        name = array.dtype.str if plain else array.dtype.name
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        flat = np.ascontiguousarray(array.T if fortran else array).reshape(-1)
        # As bytes, since not all types have a buffer that can be sent without a copy.
        data = pickle.PickleBuffer(flat.view(np.uint8)) if flat.size else b""
        if isinstance(value, np.generic):
            return _scalar, (name, data)
        return _array, (name, array.shape, "F" if fortran else "C", data)


# What Python's pickler writes for such values in protocol 5. The others look up names of a registry, build objects in
# older ways, or number what they store: C's reader makes room for any number that a message claims.
_OPERATIONS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.LONG4),
    *(pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8, pickle.BYTEARRAY8),
    *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.STACK_GLOBAL, pickle.REDUCE, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.BUILD),
)


class _AnswerUnpickler(pickle._Unpickler):
    """Python's own reader instead of C's, since it can leave operations out. Answers have few and large values."""

    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = {
        operation[0]: pickle._Unpickler.dispatch[operation[0]] for operation in _OPERATIONS
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _NAMES:
            return super().find_class(module, name)
        if module == __name__ and name in _FUNCTIONS:
            return _FUNCTIONS[name]
        # Rebuilding a data class or an enumeration runs no code of it: fields are set, members are looked up.
        if module.partition(".")[0] == "edgekit":
            value: Any = importlib.import_module(module)
            for part in name.split("."):
                value = vars(value)[part]
            if isinstance(value, type) and (dataclasses.is_dataclass(value) or issubclass(value, enum.Enum)):
                return value
        raise pickle.UnpicklingError(f"{module}.{name} is neither a data class nor an array")


def dumps(value: Any) -> memoryview:
    """Encode what a worker sends.

    Args:
        value: Data classes, arrays and plain values.

    Returns:
        The message.

    Raises:
        TypeError, pickle.PicklingError: The value holds something that cannot be sent.
    """
    stream = io.BytesIO()
    _AnswerPickler(stream, protocol=5).dump(value)  # the first protocol that writes arrays without a copy
    return stream.getbuffer()


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

"""A reader of the pickles in TorchScript archives that creates plain data and calls nothing.

It reads the opcodes that PyTorch's own writer uses (torch/csrc/jit/serialization/pickler.cpp, 2.13). What a pickle
would call or create becomes an `Opaque` with the name, the arguments and the state.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Names that the unpickler of TorchScript resolves to functions and types of its own.
_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch device",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_qtensor",
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch.jit._pickle build_boollist",
        "torch.jit._pickle build_complexlist",
        "torch.jit._pickle build_doublelist",
        "torch.jit._pickle build_intlist",
        "torch.jit._pickle build_tensorlist",
        "torch.jit._pickle restore_type_tag",
        "torch per_channel_affine",
        "torch per_channel_affine_float_qparams",
        "torch per_tensor_affine",
    }
)
_STORAGES = re.compile(
    r"torch (BFloat16|Bool|Byte|Char|Complex(Double|Float|Half)|Double|Float|Half|Int|Long|QInt32|QInt8|QUInt2x4"
    r"|QUInt4x2|QUInt8|Short|Untyped)Storage"
)

# C++ classes that pack weights; others open files, connections or devices.
_CLASSES = "torch.classes."
_CLASS_NAMESPACES = frozenset({"mkldnn", "quantized", "rnn", "sparse", "xnnpack"})


class RefusedPickle(ValueError):
    """Error for a pickle that is damaged, or names something that no model needs."""


@dataclass
class Opaque:
    """An object that unpickling would create.

    Attributes:
        name: The function or class, as `module name`; '' for a tensor's storage.
        arguments: The arguments of the call.
        state: The state that the object would be given.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


def read(data: bytes) -> Any:
    """Read a pickle.

    Args:
        data: The pickle.

    Returns:
        Numbers, texts, tuples, lists, dicts and `Opaque` objects.

    Raises:
        RefusedPickle: The pickle is damaged, has an opcode that PyTorch does not write, or names a function or a class
            that no model needs.
    """
    machine = _Machine()
    try:
        for opcode, argument, _position in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.run(opcode.name, argument)
    except RefusedPickle:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise RefusedPickle("it is damaged") from error
    raise RefusedPickle("it is damaged")


def check_class(name: str) -> None:
    """Raise RefusedPickle if a text names a C++ class other than the ones that pack weights.

    Args:
        name: A qualified name or a type expression.
    """
    compact = "".join(name.split())
    start = compact.find(_CLASSES)
    while start >= 0:
        start += len(_CLASSES)
        if compact[start:].partition(".")[0] not in _CLASS_NAMESPACES:
            raise RefusedPickle(f"it names the class '{name[:80]}'")
        start = compact.find(_CLASSES, start)


class _Machine:
    """The stack and the memo of an unpickler."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """Execute one opcode."""
        if opcode in _VALUES:
            if isinstance(argument, str):
                check_class(argument)
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            size = _TUPLES[opcode]
            self.stack[-size:] = [tuple(self.stack[-size:])]
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif opcode in _METHODS:
            _METHODS[opcode](self)
        elif opcode == "GLOBAL":
            self.stack.append(Opaque(_checked_global(argument)))
        elif opcode != "PROTO":
            raise RefusedPickle(f"it has the opcode {opcode}, which PyTorch does not write")

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def tuple(self) -> None:
        self.stack.append(tuple(self._since_mark()))

    def list(self) -> None:
        self.stack.append(self._since_mark())

    def dict(self) -> None:
        values = self._since_mark()
        self.stack.append(_pairs(values))

    def append(self) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def appends(self) -> None:
        values = self._since_mark()
        self.stack[-1].extend(values)

    def set_item(self) -> None:
        key, value = self.stack[-2:]
        del self.stack[-2:]
        self._update({_key(key): value})

    def set_items(self) -> None:
        self._update(_pairs(self._since_mark()))

    def _update(self, items: Any) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Opaque) else target).update(items)

    def call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, Opaque) or not isinstance(arguments, tuple):
            raise RefusedPickle("it is damaged")
        self.stack.append(Opaque(function.name, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Opaque):
            raise RefusedPickle("it is damaged")
        self.stack[-1].state = state

    def persistent(self) -> None:
        self.stack.append(Opaque("", self.stack.pop()))

    def pop(self) -> None:
        self.stack.pop()


def _checked_global(name: str) -> str:
    module, _, attribute = name.partition(" ")
    check_class(f"{module}.{attribute}")
    own_class = module.split(".")[0] == "__torch__" and attribute.isidentifier()
    if not own_class and name not in _GLOBALS and not _STORAGES.fullmatch(name):
        raise RefusedPickle(f"it names '{name[:80].replace(' ', '.')}'")
    return name


def _pairs(values: list[Any]) -> Any:
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _key(value: Any) -> Any:
    """Return a key that can be hashed; tensors, objects and tuples as keys are told apart by identity only."""
    return value if isinstance(value, (str, int, float, bool)) else id(value)


_VALUES = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"})
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_METHODS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "LIST": _Machine.list,
    "DICT": _Machine.dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "POP": _Machine.pop,
}

"""Operators and tensors of a TorchScript archive, read from its records without loading it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.torch_files.pickles import Opaque, read
from edgekit.torch_files.script_archive import checked_records, walk

# Bytes an element, by the class of storage that PyTorch writes.
_ELEMENT_BYTES = {
    "Bool": 1,
    "Byte": 1,
    "Char": 1,
    "QInt8": 1,
    "QUInt8": 1,
    "BFloat16": 2,
    "Half": 2,
    "Short": 2,
    "Float": 4,
    "Int": 4,
    "QInt32": 4,
    "ComplexFloat": 8,
    "Double": 8,
    "Long": 8,
    "ComplexDouble": 16,
}
_QUANTIZED_TENSOR = "torch._utils _rebuild_qtensor"
_TENSORS = ("torch._utils _rebuild_tensor_v2", _QUANTIZED_TENSOR)


@dataclass(frozen=True)
class Contents:
    """What an archive contains.

    Attributes:
        operators: How often `forward` calls each operator, those of its submodules included, without prim operators.
        tensors: The shape and the bytes an element of every weight, constant and buffer of at least one dimension.
    """

    operators: Counter[str]
    tensors: tuple[tuple[tuple[int, ...], int], ...]


def read_contents(path: Path) -> Contents:
    """Read the contents of an archive.

    Args:
        path: A TorchScript archive or a file for the lite interpreter.

    Returns:
        Its operators and tensors.

    Raises:
        InputError: The file is missing or empty, or calls what a file may not call.
        ValueError: The file is no such archive, or it is damaged.
    """
    records = checked_records(path)
    code = _Code({name: text.decode() for name, text in records.items() if name.endswith(".py")})
    root = read(records["data.pkl"])
    main = root.name.replace(" ", ".") if isinstance(root, Opaque) else ""
    parts = [*_tensors(root), *_tensors(read(records["constants.pkl"]))]
    return Contents(code.calls(main, "forward"), tuple(parts))


def _tensors(value: Any) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the tensors in the value of a pickle."""
    # The scales and zero points of a quantized tensor describe it, and are no weights of their own.
    scales = {
        id(argument)
        for part in walk(value)
        if isinstance(part, Opaque) and part.name == _QUANTIZED_TENSOR
        for argument in walk(part.arguments)
        if argument is not part
    }
    for part in walk(value):
        if id(part) in scales:
            continue
        if not isinstance(part, Opaque) or part.name not in _TENSORS:
            continue
        storage, _offset, shape = (*part.arguments, None, None, None)[:3]
        kind = _storage_kind(storage)
        sizes = tuple(size for size in shape if isinstance(size, int)) if isinstance(shape, tuple) else ()
        # Packed quantized layers hold strides and paddings as tensors of 16 bits, which nothing else uses.
        if sizes and kind in _ELEMENT_BYTES and kind != "Short":
            yield sizes, _ELEMENT_BYTES[kind]


def _storage_kind(storage: Any) -> str:
    """Return the class of a storage without its suffix, such as `Float`."""
    arguments = storage.arguments if isinstance(storage, Opaque) else ()
    kind = arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else None
    return kind.name.removeprefix("torch ").removesuffix("Storage") if isinstance(kind, Opaque) else ""


class _Code:
    """The functions and classes of an archive, by their qualified names."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._functions: dict[str, ast.FunctionDef] = {}
        self._attributes: dict[str, dict[str, str]] = {}
        self._counts: dict[str, Counter[str]] = {}
        for record, source in sources.items():
            module = record.removeprefix("code/").removesuffix(".py").replace("/", ".")
            try:
                statements = ast.parse(source).body
            except (SyntaxError, RecursionError, MemoryError) as error:
                raise ValueError(f"{record} is damaged") from error
            for statement in statements:
                self._add(module, statement)

    def _add(self, module: str, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef):
            self._functions[f"{module}.{statement.name}"] = statement
        elif isinstance(statement, ast.ClassDef):
            name = f"{module}.{statement.name}"
            attributes = self._attributes.setdefault(name, {})
            for part in statement.body:
                if isinstance(part, ast.FunctionDef):
                    self._functions[f"{name}.{part.name}"] = part
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    attributes[part.target.id] = _dotted(part.annotation)
                elif isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Subscript):
                    key = part.targets[0].slice  # __annotations__["0"] = __torch__.Layer
                    if isinstance(key, ast.Constant):
                        attributes[str(key.value)] = _dotted(part.value)

    def calls(self, owner: str, method: str) -> Counter[str]:
        """Return how often a method or, without an owner, a function calls each operator."""
        name = f"{owner}.{method}" if owner else method
        if name not in self._counts:
            self._counts[name] = Counter()  # of a recursive call, which TorchScript does not have
            function = self._functions.get(name)
            if function is not None:
                self._counts[name] = self._count(function, owner)
        return self._counts[name]

    def _count(self, function: ast.FunctionDef, owner: str) -> Counter[str]:
        types = {argument.arg: _dotted(argument.annotation) for argument in function.args.args if argument.annotation}
        if owner and function.args.args:
            types[function.args.args[0].arg] = owner
        counts = Counter[str]()
        for statement in _statements(function.body):
            for node in _expressions(statement):
                if isinstance(node, ast.Call):
                    counts += self._called(node, types)
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                types[statement.targets[0].id] = self._type(statement.value, types)
        return counts

    def _called(self, call: ast.Call, types: Mapping[str, str]) -> Counter[str]:
        path = _dotted(call.func)
        parts = path.split(".")
        if parts[0] == "torch":
            return Counter({f"aten::{parts[-1]}": 1})
        if parts[0] == "ops" and len(parts) == 3:
            return Counter() if parts[1] == "prim" else Counter({f"{parts[1]}::{parts[2]}": 1})
        if isinstance(call.func, ast.Name) or parts[0] == "__torch__":
            return self.calls("", types.get(path, path))
        if isinstance(call.func, ast.Attribute):
            owner = self._type(call.func.value, types)
            return self.calls(owner, call.func.attr) if owner else Counter()
        return Counter()

    def _type(self, value: ast.expr, types: Mapping[str, str]) -> str:
        """Return the qualified name of the class of an expression, or of the function that it names, else ''."""
        if isinstance(value, ast.Name):
            return types.get(value.id, "")
        if _dotted(value).startswith("__torch__."):
            return _dotted(value)
        if isinstance(value, ast.Attribute):
            return self._attributes.get(self._type(value.value, types), {}).get(value.attr, "")
        is_lookup = isinstance(value, ast.Call) and _dotted(value.func) == "getattr" and len(value.args) > 1
        if is_lookup and isinstance(value, ast.Call) and isinstance(value.args[1], ast.Constant):
            return self._attributes.get(self._type(value.args[0], types), {}).get(str(value.args[1].value), "")
        return ""


def _dotted(node: ast.expr | None) -> str:
    """Return a dotted name, or '' for any other expression."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield all statements in their order, those of branches and loops included."""
    pending = list(reversed(body))
    while pending:
        statement = pending.pop()
        yield statement
        for block in ("orelse", "body"):
            pending.extend(reversed(getattr(statement, block, [])))


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield all expressions of a statement, but not those of statements inside it."""
    pending: list[ast.AST] = [node for node in ast.iter_child_nodes(statement) if isinstance(node, ast.expr)]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(ast.iter_child_nodes(node))

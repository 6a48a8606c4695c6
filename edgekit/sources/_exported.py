"""Reading `.pt2` files without executing what they hold.

`torch.export.load` (2.13) falls back to full unpickling when a safe load fails, evaluates shape expressions as Python
(sympy.sympify), and looks up operators by any dotted path that begins with `torch`. So a file is looked through first:
pickles must load with weights_only, expressions must be arithmetic, operators must be PyTorch's.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError

_OPERATORS = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+")
_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment|extra/.*"
    r"|models/\w+\.json|data/(weights|constants)/\w+_config\.json|data/sample_inputs/\w+\.pt"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=!&|~.']*")
_CALL = re.compile(r"(\w+)\s*\(")
_ATTRIBUTE = re.compile(r"__|\.\s*[A-Za-z_]|\)\s*\(")
_FUNCTIONS = frozenset(
    """Symbol Integer Float Rational Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv IntTrueDiv FloatTrueDiv Pow Add Mul
    Abs Eq Ne Lt Le Gt Ge And Or Not Piecewise PowByNatural FloatPow ToFloat TruncToInt TruncToFloat CeilToInt
    FloorToInt RoundToInt RoundDecimal ModularIndexing LShift RShift Where Identity floor ceiling""".split()  # noqa: SIM905
)
_EXPRESSION_KEYS = ("expr_str", "as_expr_str")


def load_program(path: Path) -> Any:
    """The ExportedProgram. Raises InputError when it is damaged, or holds what would be executed."""
    import torch

    read_bytes(path, "model file")
    _look_through(path)
    try:
        with _weights_only():
            return torch.export.load(path)
    except Exception as error:  # zip, JSON and schema errors of many types: all mean that the file is no program
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: this is not an exported program of PyTorch, or it is damaged ({reason})") from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """Every torch.load in the block unpickles plain tensors only, whatever it is told."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _look_through(path: Path) -> None:
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        records = list(reader.get_all_records())
    except RuntimeError as error:
        raise InputError(f"{path}: this is not an exported program of PyTorch, or it is damaged") from error
    for name in records:
        if not _RECORDS.fullmatch(name):
            raise InputError(
                f"{path}: '{name}' in this file is more than weights and a graph, which edgekit does not load (or"
                " an older PyTorch wrote it: save the program again)"
            )
        if name.endswith((".pt", ".pth", ".pkl")):
            _check_pickle(path, name, reader.get_record(name))
        elif name.endswith("_config.json"):
            _check_names(path, name, reader.get_record(name))
        elif name.endswith(".json"):
            _check_graph(path, name, reader.get_record(name))


def _check_pickle(path: Path, name: str, record: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(record), weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(
            f"{path}: {name} in this file is a pickle of more than plain tensors, which edgekit does not execute; save"
            " the program again with tensors alone as its example inputs"
        ) from error


def _parsed(path: Path, name: str, record: bytes) -> Any:
    try:
        return json.loads(record)
    except ValueError as error:
        raise InputError(f"{path}: {name} in this file is damaged ({error})") from error


def _check_names(path: Path, name: str, record: bytes) -> None:
    """What a list of weights or constants leads to: plain tensors by number, and no object that would be unpickled."""
    for key, text in _strings(_parsed(path, name, record)):
        if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", text):
            raise InputError(f"{path}: '{text[:80]}' in this file is no plain tensor, which edgekit does not load")


def _check_graph(path: Path, name: str, record: bytes) -> None:
    """Operators are looked up by their names, and names of values become Python code: both must be just that."""
    for key, text in _strings(_parsed(path, name, record)):
        if key in ("target", "as_operator") and not _OPERATORS.fullmatch(text):
            raise InputError(f"{path}: the graph calls '{text[:80]}', which is no operator of PyTorch")
        if key == "name" and text and not text.isidentifier():
            raise InputError(f"{path}: the graph has a value named '{text[:80]}', which is no name")
        if key in _EXPRESSION_KEYS and not _is_arithmetic(text):
            raise InputError(f"{path}: the graph has a shape expression that is more than arithmetic: '{text[:80]}'")


def _is_arithmetic(text: str) -> bool:
    """Whether a shape expression has known functions in it and nothing that Python would look up elsewhere."""
    called = {name for name in _CALL.findall(text) if not name.isdigit()}
    return bool(_EXPRESSION.fullmatch(text)) and not _ATTRIBUTE.search(text) and called <= _FUNCTIONS


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in the JSON with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)

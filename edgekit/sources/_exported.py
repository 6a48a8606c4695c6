"""Loading `.pt2` files of torch.export without executing code that they contain.

`torch.export.load` (2.13) falls back to full unpickling when a safe load fails, evaluates shape expressions as Python
(sympy.sympify), and resolves operators by any dotted path that begins with `torch`. So every record is checked before
the file is loaded: pickles must load with weights_only, shape expressions must be arithmetic, and operators must be
PyTorch's own. All rules are allow lists: what a later PyTorch adds is refused until it has been reviewed.
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

# The deserializer resolves a call's target with getattr along the dotted path, from torch, math or operator: without
# this rule `torch.serialization.os.system` would be such a path. torch.ops takes exactly namespace.name[.overload];
# `_operator`, `math` and `torch.sym_*` are the targets of arithmetic on symbolic sizes.
_OPERATORS = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+")
# Records of the PT2 archive format (torch/export/pt2_archive/constants.py) that are metadata, JSON, or raw tensors.
# Everything else is refused, above all `data/aotinductor/` (compiled libraries) and `custom_obj_*` (script objects).
_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment|extra/.*"
    r"|models/\w+\.json|data/(weights|constants)/\w+_config\.json|data/sample_inputs/\w+\.pt"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
)
# The characters of printed arithmetic; double quotes, brackets, braces and colons (literals, lambdas) are not among
# them. Single quotes are: sympy's srepr writes Symbol('s0').
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=!&|~.']*")
_CALL = re.compile(r"(\w+)\s*\(")
# Double underscores, attribute access, and the call of a call's result are the ways from a harmless object to
# `__class__` and from there to any module.
_ATTRIBUTE = re.compile(r"__|\.\s*[A-Za-z_]|\)\s*\(")
# Functions that sympy and torch.utils._sympy.functions print in the sizes of exported programs.
_FUNCTIONS = frozenset(
    """Symbol Integer Float Rational Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv IntTrueDiv FloatTrueDiv Pow Add Mul
    Abs Eq Ne Lt Le Gt Ge And Or Not Piecewise PowByNatural FloatPow ToFloat TruncToInt TruncToFloat CeilToInt
    FloorToInt RoundToInt RoundDecimal ModularIndexing LShift RShift Where Identity floor ceiling""".split()  # noqa: SIM905
)
# Keys of the JSON schema (torch/_export/serde/schema.py) whose texts PyTorch evaluates.
_EXPRESSION_KEYS = ("expr_str", "as_expr_str")


def load_program(path: Path) -> Any:
    """Load an exported program without executing code from the file.

    Args:
        path: The `.pt2` file.

    Returns:
        The `torch.export.ExportedProgram`.

    Raises:
        InputError: The file is missing, empty, damaged, or contains code that loading would execute.
    """
    import torch

    read_bytes(path, "model file")
    _check_archive(path)
    try:
        with _weights_only():
            return torch.export.load(path)
    except Exception as error:  # zip, JSON and schema errors of many types: all mean that the file is no program
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: this is not an exported program of PyTorch, or it is damaged ({reason})") from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every torch.load in the block unpickle plain tensors only, even if called with weights_only=False."""
    # torch.export.load calls torch.load itself, and retries without weights_only; only this variable overrides that.
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


def _check_archive(path: Path) -> None:
    """Raise InputError if a record of the archive is not of a known, harmless kind."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        records = list(reader.get_all_records())
    except RuntimeError as error:
        raise InputError(f"{path}: this is not an exported program of PyTorch, or it is damaged") from error
    for name in records:
        if not _RECORDS.fullmatch(name):
            raise InputError(
                f"{path}: '{name}' in this file is neither weights nor a graph, and edgekit does not load it; if an"
                " older PyTorch wrote the file, save the program again"
            )
        if name.endswith((".pt", ".pth", ".pkl")):
            _check_pickle(path, name, reader.get_record(name))
        elif name.endswith("_config.json"):
            _check_payloads(path, name, reader.get_record(name))
        elif name.endswith(".json"):
            _check_graph(path, name, reader.get_record(name))


def _check_pickle(path: Path, name: str, record: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(record), weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(
            f"{path}: {name} in this file is a pickle of more than plain tensors, which edgekit does not execute; save"
            " the program again with only tensors as example inputs"
        ) from error


def _parse_json(path: Path, name: str, record: bytes) -> Any:
    try:
        return json.loads(record)
    except ValueError as error:
        raise InputError(f"{path}: {name} in this file is damaged ({error})") from error


def _check_payloads(path: Path, name: str, record: bytes) -> None:
    """Raise InputError if a table of weights or constants names a file that is not a raw tensor."""
    for key, text in _strings(_parse_json(path, name, record)):
        # `opaque_obj_*` payloads go through pickle, `custom_obj_*` through TorchBind: weights_only covers neither.
        if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", text):
            raise InputError(f"{path}: '{text[:80]}' in this file is not a plain tensor, and edgekit does not load it")


def _check_graph(path: Path, name: str, record: bytes) -> None:
    """Raise InputError if the graph calls a function that is not an operator, or contains Python code."""
    for key, text in _strings(_parse_json(path, name, record)):
        if key in ("target", "as_operator") and not _OPERATORS.fullmatch(text):
            raise InputError(f"{path}: the graph calls '{text[:80]}', which is not a PyTorch operator")
        # torch.fx writes the names of values and arguments into the source code that it compiles for the module.
        if key == "name" and text and not text.isidentifier():
            raise InputError(f"{path}: the graph has a value named '{text[:80]}', which is not an identifier")
        if key in _EXPRESSION_KEYS and not _is_arithmetic(text):
            raise InputError(f"{path}: the graph has a shape expression that is more than arithmetic: '{text[:80]}'")


def _is_arithmetic(text: str) -> bool:
    """Return whether a shape expression calls known functions only and accesses no attributes."""
    functions = {name for name in _CALL.findall(text) if not name.isdigit()}
    return bool(_EXPRESSION.fullmatch(text)) and not _ATTRIBUTE.search(text) and functions <= _FUNCTIONS


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string in the JSON value with its key; strings in a list have the list's key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _strings(child, name)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child, key)

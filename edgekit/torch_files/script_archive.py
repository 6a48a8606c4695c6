"""TorchScript archives and files for the lite interpreter: checking and loading.

PyTorch runs an archive's code already while it loads it (`__setstate__`), and the operators of that code include some
that read and write files. So the archive is looked through first, as data: its records, its pickles and its code. Only
then PyTorch may load it.

Records are read by PyTorch's own zip reader, so that the check sees the bytes that the loader will see.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.torch_files.operators import is_allowed
from edgekit.torch_files.pickles import Opaque, RefusedPickle, read
from edgekit.torch_files.script_code import RefusedCode, check_code

# Records that torch.jit.save and _save_for_lite_interpreter write (torch 2.13). Tensors and extra files are never
# interpreted. Older formats (`model.json`, `attributes.pkl`) have loaders of their own, which no check covers.
_RECORDS = re.compile(
    r"version|byteorder|\.data/\w+|\.format_version|\.storage_alignment|extra/.*|(data|constants|bytecode|traced_inputs)/[\w.]+"
    r"|(data|constants|bytecode|traced_inputs|mobile_debug_handles)\.pkl|code/[\w/]+\.(py|debug_pkl|py\.debug_pkl)",
    re.ASCII | re.DOTALL,
)
# Far more than the code of any network takes; a record is inflated to the size that the archive states.
_MAX_CODE_BYTES = 64 << 20
_ZIP_MAGIC = b"PK\x03\x04"
_OPERATOR_NAME = re.compile(r"\w+::[\w.]+")


def load_script(path: Path) -> Any:
    """Load a TorchScript archive on the CPU, after checking it.

    Args:
        path: The archive.

    Returns:
        The `torch.jit.ScriptModule`.

    Raises:
        InputError: The file is missing or empty, or calls what a file may not call.
        ValueError: The file is no such archive, or it is damaged.
        RuntimeError: PyTorch cannot load the archive.
    """
    import torch

    check_script_archive(path)
    return torch.jit.load(str(path), map_location="cpu")


def load_mobile(path: Path) -> Any:
    """Load a file for the lite interpreter on the CPU, after checking it.

    Args:
        path: The file.

    Returns:
        The `torch.jit.mobile.LiteScriptModule`.

    Raises:
        InputError: The file is missing or empty, or calls what a file may not call.
        ValueError: The file is no such file, or it is damaged.
        RuntimeError: PyTorch cannot load the file.
    """
    from torch.jit.mobile import _load_for_lite_interpreter

    check_script_archive(path)
    return _load_for_lite_interpreter(str(path), map_location="cpu")


def check_script_archive(path: Path) -> None:
    """Raise an error unless loading and running an archive can only compute.

    Args:
        path: A TorchScript archive or a file for the lite interpreter.

    Raises:
        InputError: The file is missing or empty, has a record of an unknown kind, or calls an operator that is not
            allowed.
        ValueError: The file is no such archive, or it is damaged.
    """
    try:
        stat = path.stat()
    except OSError:
        read_bytes(path, "model file")  # raises the error with its reason
        raise
    _check(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


def checked_records(path: Path) -> dict[str, bytes]:
    """Return the code and the pickles of an archive, after checking it.

    Args:
        path: A TorchScript archive or a file for the lite interpreter.

    Returns:
        The content of every record that PyTorch interprets, by name.

    Raises:
        InputError: The file is missing or empty, or calls what a file may not call.
        ValueError: The file is no such archive, or it is damaged.
    """
    check_script_archive(path)
    records = dict(_code_records(path))
    if "data.pkl" not in records:
        raise ValueError("it contains no module")
    return records


@functools.lru_cache(maxsize=16)  # a process opens the same file for several purposes
def _check(path: Path, _version: tuple[int, ...]) -> None:
    with path.open("rb") as file:
        magic = file.read(len(_ZIP_MAGIC))
    # PyTorch also loads flatbuffers, which it recognizes at the start of the file, whatever follows.
    if magic != _ZIP_MAGIC:
        read_bytes(path, "model file")
        raise ValueError("it is not a zip archive")
    for name, content in _code_records(path):
        if name.endswith(".py"):
            _check_source(path, name, content)
        else:
            _check_pickle(path, name, content)


def _code_records(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the records that PyTorch interprets; raise an error for any of an unknown kind."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = list(reader.get_all_records())
    except RuntimeError as error:
        raise ValueError("it is not a complete zip archive") from error
    # PyTorch finds records without regard to case, so two names that differ in it only are one record.
    if len({name.lower() for name in names}) != len(names):
        raise ValueError("it has two records of the same name")
    for name in names:
        if not _RECORDS.fullmatch(name):
            raise InputError(
                f"{path}: '{name[:80]}' in this archive is neither code nor weights of TorchScript, and edgekit does"
                " not load it; if an older PyTorch wrote the file, save it again"
            )
        if not name.startswith("extra/") and name.endswith((".py", "pkl")):
            if reader.get_record_size(name) > _MAX_CODE_BYTES:
                raise InputError(f"{path}: {name} in this archive is larger than {_MAX_CODE_BYTES >> 20} MiB")
            try:
                yield name, reader.get_record(name)
            except RuntimeError as error:
                raise ValueError(f"{name} cannot be read") from error
    if "constants.pkl" not in names:
        raise ValueError("it contains no code; a checkpoint of weights alone is not a model")


def _check_source(path: Path, name: str, content: bytes) -> None:
    try:
        check_code(content.decode("ascii"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not ASCII text") from error
    except RefusedCode as error:
        raise InputError(
            f"{path}: the code in {name} {error}, and edgekit runs only operators of PyTorch that compute on tensors"
        ) from error


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    try:
        value = read(content)
    except RefusedPickle as error:
        raise InputError(f"{path}: edgekit does not load {name} in this archive: {error}") from error
    if name == "bytecode.pkl":
        for text in _texts(value):
            if _OPERATOR_NAME.fullmatch(text) and not is_allowed(text):
                raise InputError(
                    f"{path}: the code in {name} calls '{text[:80]}', and edgekit runs only operators of PyTorch that"
                    " compute on tensors"
                )


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in the value of a pickle."""
    for part in walk(value):
        if isinstance(part, str):
            yield part


def walk(value: Any) -> Iterator[Any]:
    """Yield every value in the value of a pickle once, in its order.

    Args:
        value: What `pickles.read` returned.
    """
    pending, seen = [value], set[int]()
    while pending:
        part = pending.pop()
        if isinstance(part, (tuple, list, dict, Opaque)):
            if id(part) in seen:
                continue
            seen.add(id(part))
        yield part
        if isinstance(part, (tuple, list)):
            pending.extend(reversed(part))
        elif isinstance(part, dict):
            pending.extend(reversed([entry for pair in part.items() for entry in pair]))
        elif isinstance(part, Opaque):
            pending.extend((part.items, part.state, part.arguments))

"""Loading `.pt2` files of torch.export without executing code that they contain.

`torch.export.load` (2.13) falls back to full unpickling and to an older format when a safe load fails, and trusts every
text in the file. So every record is checked first, and PyTorch gets the checked records: its own reader opens the file,
and hands out the program without what PyTorch would compile or evaluate. All rules are allow lists: what a later
PyTorch adds is refused until it has been reviewed.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.torch_files.exported_program import RefusedProgram, checked_payloads, checked_program

# Records of the PT2 archive format (torch/export/pt2_archive/constants.py) that are metadata, JSON, or raw tensors.
# Everything else is refused, above all `data/aotinductor/` (compiled libraries) and `custom_obj_*` (script objects).
_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment|extra/.*"
    r"|models/\w+\.json|data/(weights|constants)/\w+_config\.json|data/sample_inputs/\w+\.pt"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+",
    re.ASCII,
)
_MODEL = "model"  # the name under which torch.export.save stores a program
# Far more than the description of any network takes; a record is inflated to the size that the archive states.
_MAX_JSON_BYTES = 256 << 20


def load_program(path: Path) -> Any:
    """Load an exported program without executing code from the file.

    Args:
        path: The `.pt2` file.

    Returns:
        The `torch.export.ExportedProgram`, without guards and stack traces.

    Raises:
        InputError: The file is missing, empty, damaged, or contains code that loading would execute.
    """
    from torch.export.pt2_archive._package import PT2ArchiveReader, _load_exported_programs

    read_bytes(path, "model file")
    checked = _checked_records(path)

    class CheckedReader(PT2ArchiveReader):  # type: ignore[misc]
        """Reads the file; of the records that were checked and changed, it returns the checked content."""

        def read_bytes(self, name: str) -> bytes:
            return checked[name] if name in checked else super().read_bytes(name)

    try:
        with _weights_only(), CheckedReader(str(path)) as reader:
            if reader.archive_version() != 0:
                raise ValueError(f"its format has the version {reader.archive_version()}")
            return _load_exported_programs(reader, [f"models/{_MODEL}.json"], None)[_MODEL]
    except Exception as error:  # zip, JSON and schema errors of many types: all mean that the file is no program
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{path}: this is not an exported program of PyTorch, or it is damaged ({reason})") from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every torch.load in the block unpickle plain tensors only, even if called with weights_only=False."""
    # PyTorch calls torch.load itself, with weights_only=False for some records; only this variable overrides that.
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


def _checked_records(path: Path) -> Mapping[str, bytes]:
    """Return the records that PyTorch must read in place of those in the file.

    Raises:
        InputError: A record is damaged, or not of a known, harmless kind.
    """
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        records = list(reader.get_all_records())
    except RuntimeError as error:
        raise InputError(f"{path}: this is not an exported program of PyTorch, or it is damaged") from error
    # PyTorch finds records without regard to case, so two names that differ in it only are one record.
    if len({name.lower() for name in records}) != len(records):
        raise InputError(f"{path}: this file is damaged: it has two records of the same name")
    checked = {}
    for name in records:
        if not _RECORDS.fullmatch(name):
            raise InputError(
                f"{path}: '{name}' in this file is neither weights nor a graph, and edgekit does not load it; if an"
                " older PyTorch wrote the file, save the program again"
            )
        if name.endswith((".pt", ".pth", ".pkl")):
            _check_pickle(path, name, reader.get_record(name))
        elif name.endswith(".json") and not name.startswith("extra/"):
            try:
                checked[name] = _checked_json(reader, name)
            except RefusedProgram as error:
                raise InputError(f"{path}: edgekit does not load {name} in this file: {error}") from error
    return checked


def _checked_json(reader: Any, name: str) -> bytes:
    if reader.get_record_size(name) > _MAX_JSON_BYTES:
        raise RefusedProgram(f"it is larger than {_MAX_JSON_BYTES >> 20} MiB")
    record: bytes = reader.get_record(name)
    if not name.endswith("_config.json"):
        return checked_program(record)
    _check_sizes(reader, name, checked_payloads(record))
    return record


def _check_pickle(path: Path, name: str, record: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(record), weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(
            f"{path}: {name} in this file is a pickle of more than plain tensors, which edgekit does not execute; save"
            " the program again with only tensors as example inputs"
        ) from error


def _check_sizes(reader: Any, table: str, entries: Mapping[str, Any]) -> None:
    """Raise RefusedProgram if the data of a tensor is empty but its size is not: PyTorch would fill in zeros."""
    folder = table.rpartition("/")[0]
    for name, entry in entries.items():
        record = f"{folder}/{entry['path_name']}"
        if not reader.has_record(record):
            raise RefusedProgram(f"it is damaged (the data of '{name[:80]}' is missing)")
        if reader.get_record_size(record) == 0 and prod(size["as_int"] for size in entry["tensor_meta"]["sizes"]):
            raise RefusedProgram(f"it is damaged (the data of '{name[:80]}' is empty)")

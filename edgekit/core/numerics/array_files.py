"""Reading of npz and npy files whose content is not trusted."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from edgekit.core.environment.bounded_files import check_size, open_file
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array

# Arrays are read in pieces, so that no second copy of them exists.
_CHUNK_BYTES = 1 << 20


def load_arrays(path: Path, what: str) -> dict[str, Array]:
    """Read the arrays of an npz or npy file, without unpickling objects.

    Args:
        path: The file.
        what: What the file is, for error messages, such as "npz file of golden samples".

    Returns:
        The arrays by name; the array of an npy file has the name ''.

    Raises:
        InputError: The file is missing, of another format or damaged, holds pickled objects, or claims more than half
            of the available memory.
    """
    with open_file(path, what) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        if size_bytes == 0:
            raise InputError(f"{path}: this {what} is empty")
        try:
            if stream.read(6) == np.lib.format.MAGIC_PREFIX:
                stream.seek(0)
                check_size(path, what, size_bytes)
                return {"": _read_array(stream, size_bytes)}
            stream.seek(0)
            with zipfile.ZipFile(stream) as archive:
                members = archive.infolist()
                check_size(path, what, sum(member.file_size for member in members))
                arrays = {}
                for member in members:
                    with archive.open(member) as content:
                        arrays[member.filename.removesuffix(".npy")] = _read_array(content, member.file_size)
        except InputError:
            raise
        except Exception as error:  # zip, zlib and npy headers: a damaged byte raises errors of any type
            pickled = "Object arrays" in str(error)
            reason = ": it holds pickled objects, which edgekit does not load" if pickled else ", or it is damaged"
            raise InputError(f"{path}: this is not an {what}{reason}") from error
    if not arrays:
        raise InputError(f"{path}: this is not an {what}: it holds no arrays")
    return arrays


def _read_array(stream: IO[bytes], size_bytes: int) -> Array:
    """Read one array, whose header must claim exactly what there is.

    Raises:
        ValueError: The header claims another size, or the data are no array.
    """
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:  # version 3 is for structured dtypes with non-Latin names
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = readers[version](stream)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if stream.tell() + claimed != size_bytes:
        raise ValueError("the header claims another size than there is")
    buffer = np.empty(claimed, np.uint8)
    filled, view = 0, memoryview(buffer.data)
    while filled < claimed:
        data = stream.read(min(_CHUNK_BYTES, claimed - filled))
        if not data:
            raise ValueError("the data are truncated")
        view[filled : filled + len(data)] = data
        filled += len(data)
    array: Array = buffer.view(dtype).reshape(shape, order="F" if fortran else "C")
    return array

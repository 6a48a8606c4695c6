"""TorchScript archives and files for the lite interpreter that write a file when they are loaded or run."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

from edgekit.core.events import Listener

SIZE = 8
_SIGNATURE = json.dumps(
    {
        "inputs": [{"name": "x", "shape": [1, SIZE], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [1, SIZE], "dtype": "float32"}],
    }
)
# Records that PyTorchFileWriter adds itself; writing them again would be an error.
_WRITER_RECORDS = (".data/version", "version", "byteorder", ".data/serialization_id")


def _module(kind: str, marker: str) -> Any:
    """Return a scripted module: `plain`, or one that maps a file of SIZE floats when it is loaded or run."""
    import torch

    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    class Forward(torch.nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mapped = torch.from_file(self.path, shared=True, size=8)
            return mapped.copy_(x.reshape(-1)[:8])

    class SetState(torch.nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path
            self.mapped = torch.zeros(1)

        @torch.jit.export
        def __getstate__(self) -> tuple[str, bool]:
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.path, self.training = state
            self.mapped = torch.from_file(self.path, shared=True, size=8)  # kept, or the compiler drops the call

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    class Save(torch.nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, self.path)
            return torch.relu(x)

    made = {"plain": Plain, "forward": Forward, "setstate": SetState, "save": Save}[kind]
    return torch.jit.script(made() if kind == "plain" else made(marker))


def script(path: str, kind: str, marker: str = "", *, emit: Listener = print) -> None:
    """Save a module of the kind, as a file for the lite interpreter if the path ends in .ptl."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, which is deprecated
        module = _module(kind, marker).eval()
        extra = {"edgekit.json": _SIGNATURE}
        if path.endswith(".ptl"):
            module._save_for_lite_interpreter(path, _extra_files=extra)
        else:
            module.save(path, _extra_files=extra)


def rewrite(source: str, path: str, old: str, new: str, *, emit: Listener = print) -> None:
    """Copy an archive, with a regular expression replaced in its code."""
    records = _records(source)
    code = next(name for name in records if name.endswith(".py"))
    text, count = re.subn(old, new, records[code].decode())
    assert count, f"{old} is not in {records[code].decode()}"
    _write(path, {**records, code: text.encode()})


def plant(source: str, path: str, record: str, content: bytes, *, emit: Listener = print) -> None:
    """Copy an archive, with one record added or replaced."""
    _write(path, {**_records(source), record: content})


def load_unguarded(path: str, run: bool, *, emit: Listener = print) -> None:
    """Load the file with PyTorch's own loader, and run it, without edgekit's checks."""
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, which is deprecated
        module = _load_for_lite_interpreter(path) if path.endswith(".ptl") else torch.jit.load(path)
        if run:
            module(torch.ones(1, SIZE))


def _records(path: str) -> dict[str, bytes]:
    import torch

    reader = torch._C.PyTorchFileReader(path)
    return {name: reader.get_record(name) for name in reader.get_all_records() if name not in _WRITER_RECORDS}


def _write(path: str, records: dict[str, bytes]) -> None:
    import torch

    writer = torch._C.PyTorchFileWriter(str(Path(path)))
    for name, content in records.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()

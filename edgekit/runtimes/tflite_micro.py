"""TensorFlow Lite Micro: the interpreter and the reference kernels of microcontrollers, on this host."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import MAX_ARENA_BYTES, Runtime, Session
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.memory_plan import Arena
from edgekit.core.records.section_sizes import CodeSize
from edgekit.core.values.specs import Quantization, Signature, TensorSpec
from edgekit.runtimes._tflite_micro_code_size import REQUIRES as CODE_SIZE_REQUIRES
from edgekit.runtimes._tflite_micro_code_size import TFLITE_MICRO, code_size

_PART = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_MISSING = re.compile(r"Didn't find op for builtin opcode '(\w+)'|Unresolved custom op: (\S+)")


class MicroSession(Session):
    """One interpreter with an arena of its own."""

    def __init__(self, interpreter: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._interpreter = interpreter

    def _run(self, inputs: list[Array]) -> list[Array]:
        for index, array in enumerate(inputs):
            self._interpreter.set_input(array, index)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_output(index)) for index in range(len(self.signature.outputs))]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        for index, spec in enumerate(self.signature.inputs):
            self._interpreter.set_input(inputs[spec.name], index)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke


class TFLiteMicro(Runtime):
    """Runs .tflite files as a microcontroller would; one thread, tensors in one arena."""

    name = "tflite-micro"
    title = "TensorFlow Lite Micro"
    targets = ("tflite",)
    requires = (TFLITE_MICRO,)
    code_size_requires = CODE_SIZE_REQUIRES

    def load_library(self) -> None:
        from tflite_micro.python.tflite_micro import runtime  # noqa: F401

    def _open(self, path: Path, threads: int, signature: Signature | None) -> MicroSession:
        interpreter, told = _interpreter(read_bytes(path, "model file"), MAX_ARENA_BYTES)
        if interpreter is None:
            raise InputError(f"{path}: TensorFlow Lite Micro does not take this file ({_reason(told)})")
        return MicroSession(interpreter, signature or _numbered(interpreter))

    def try_arena(self, path: Path, size: int) -> str | None:
        """Why the model does not run in an arena of that many bytes, or None: it does. Too small a one may crash."""
        interpreter, told = _interpreter(read_bytes(path, "model file"), size)
        if interpreter is None:
            return _reason(told)
        with _told() as lines:
            try:
                interpreter.invoke()
            except RuntimeError as error:
                return _reason([*lines, str(error)])
        return None

    def read_allocation(self, path: Path, size: int) -> Arena:
        """What an arena of that many bytes is made of."""
        interpreter, told = _interpreter(read_bytes(path, "model file"), size)
        if interpreter is None:
            raise InputError(f"{path}: {_reason(told)}")
        with _told() as lines:
            interpreter.print_allocations()
        parts = {name: int(found) for name, found in _PART.findall("\n".join(lines))}
        return Arena(size, parts.get("head", 0), parts.get("tail", 0))

    def code_size(self, operators: Sequence[str]) -> CodeSize:
        return code_size(operators)


def _interpreter(content: bytes, size: int) -> tuple[Any, list[str]]:
    """The interpreter with an arena of that many bytes, or None; and what it told of the attempt."""
    from tflite_micro.python.tflite_micro import runtime

    with _told() as lines:
        try:
            return runtime.Interpreter.from_bytes(content, arena_size=size), lines
        except (RuntimeError, ValueError, struct.error) as error:  # the last of a truncated file
            failed = str(error)
    return None, [*lines, failed]


@contextmanager
def _told() -> Iterator[list[str]]:
    """The lines that native code writes to stderr while the block runs; they are there once it is over."""
    lines: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            lines += written.read().decode("utf-8", "replace").splitlines()


def _reason(lines: list[str]) -> str:
    found = _MISSING.search("\n".join(lines))
    if found:
        return f"it has no operator {found[1] or found[2]}"
    return next((line for line in lines if line.strip()), "no reason given")[:200]


def _numbered(interpreter: Any) -> Signature:
    """The file's tensors; it is not asked for their names."""
    sides = {}
    for side, ask in (("input", interpreter.get_input_details), ("output", interpreter.get_output_details)):
        specs: list[TensorSpec] = []
        while (details := _details(ask, len(specs))) is not None:
            specs.append(_spec(f"{side}_{len(specs)}", details))
        sides[side] = tuple(specs)
    return Signature(sides["input"], sides["output"])


def _details(ask: Callable[[int], dict[str, Any]], index: int) -> dict[str, Any] | None:
    with _told():
        try:
            return ask(index)
        except (RuntimeError, IndexError, ValueError):
            return None


def _spec(name: str, details: dict[str, Any]) -> TensorSpec:
    given = details["quantization_parameters"]
    scales = tuple(float(scale) for scale in given["scales"])
    quantization = Quantization(scales, tuple(int(zero) for zero in given["zero_points"])) if scales else None
    return TensorSpec(
        name, tuple(int(dim) for dim in details["shape"]), np.dtype(details["dtype"]).name, None, quantization
    )


RUNTIME = TFLiteMicro()

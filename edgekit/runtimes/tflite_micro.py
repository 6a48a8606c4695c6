"""TensorFlow Lite Micro: the interpreter and reference kernels for microcontrollers, built for this host."""

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

from edgekit.contracts.runtime import MAX_ARENA_BYTES, Runtime, RuntimeSession
from edgekit.core.environment.atomic_files import read_bytes
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.memory_plan import Arena
from edgekit.core.records.section_sizes import CodeSize
from edgekit.core.values.specs import Quantization, Signature, TensorSpec
from edgekit.core.values.tensor_order import numbers_by_name
from edgekit.runtimes._tflite_micro_code_size import REQUIRES as CODE_SIZE_REQUIRES
from edgekit.runtimes._tflite_micro_code_size import TFLITE_MICRO, code_size

# The parts of the arena, and an operator that the interpreter does not have; both are reported only in its log.
_ARENA_PART = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_MISSING_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'|Unresolved custom op: (\S+)")


class MicroSession(RuntimeSession):
    """A session with one interpreter, which has a separate arena and numbers inputs and outputs."""

    def __init__(self, interpreter: Any, signature: Signature, inputs: list[int], outputs: list[int]) -> None:
        super().__init__(signature)
        self._interpreter = interpreter
        self._inputs, self._outputs = inputs, outputs

    def _run(self, inputs: list[Array]) -> list[Array]:
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_input(array, index)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_output(index)) for index in self._outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        for index, spec in zip(self._inputs, self.signature.inputs, strict=True):
            self._interpreter.set_input(inputs[spec.name], index)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke


class TFLiteMicroRuntime(Runtime):
    """Runs .tflite files as on a microcontroller: one thread, and all tensors in one arena."""

    name = "tflite-micro"
    title = "TensorFlow Lite Micro"
    targets = ("tflite",)
    requires = (TFLITE_MICRO,)
    code_size_requires = CODE_SIZE_REQUIRES

    def load_library(self) -> None:
        from tflite_micro.python.tflite_micro import runtime  # noqa: F401

    def _open(self, path: Path, threads: int, signature: Signature | None) -> MicroSession:
        content = read_bytes(path, "model file")
        interpreter, log = _open_interpreter(content, MAX_ARENA_BYTES)
        if interpreter is None:
            raise InputError(f"{path}: TensorFlow Lite Micro cannot load this file ({_failure_reason(log)})")
        inputs, outputs = _file_numbers(content)
        known = signature or _file_signature(interpreter, inputs, outputs)
        return MicroSession(interpreter, known, _numbers_of(known.inputs, inputs), _numbers_of(known.outputs, outputs))

    def try_arena(self, path: Path, size: int) -> str | None:
        """Try to run a model in an arena of a fixed size. The process may crash if the arena is too small.

        Args:
            path: The model file.
            size: The arena's size in bytes.

        Returns:
            The reason why the model does not run, or None if it does.
        """
        interpreter, log = _open_interpreter(read_bytes(path, "model file"), size)
        if interpreter is None:
            return _failure_reason(log)
        with _captured_stderr() as lines:
            try:
                interpreter.invoke()
            except RuntimeError as error:
                return _failure_reason([*lines, str(error)])
        return None

    def read_allocation(self, path: Path, size: int) -> Arena:
        """Read how an arena is divided.

        Args:
            path: The model file.
            size: The arena's size in bytes, in which the model runs.

        Returns:
            The size of the arena and of its parts.

        Raises:
            InputError: The model does not run in the arena.
        """
        interpreter, log = _open_interpreter(read_bytes(path, "model file"), size)
        if interpreter is None:
            raise InputError(f"{path}: {_failure_reason(log)}")
        with _captured_stderr() as lines:
            interpreter.print_allocations()
        parts = {name: int(part_bytes) for name, part_bytes in _ARENA_PART.findall("\n".join(lines))}
        return Arena(size, parts.get("head", 0), parts.get("tail", 0))

    def code_size(self, operators: Sequence[str]) -> CodeSize:
        """Measure the x86-64 code of operators and of the interpreter."""
        return code_size(operators)


def _open_interpreter(content: bytes, size: int) -> tuple[Any, list[str]]:
    """Create an interpreter with an arena of `size` bytes; return it, or None if that fails, and its log."""
    from tflite_micro.python.tflite_micro import runtime

    with _captured_stderr() as lines:
        try:
            return runtime.Interpreter.from_bytes(content, arena_size=size), lines
        except (RuntimeError, ValueError, struct.error) as error:  # struct.error: the file is truncated
            failure = str(error)
    return None, [*lines, failure]


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Capture what native code writes to stderr during the block; the list is filled when the block ends."""
    lines: list[str] = []
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as capture:
        os.dup2(capture.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            capture.seek(0)
            lines += capture.read().decode("utf-8", "replace").splitlines()


def _failure_reason(log: list[str]) -> str:
    missing = _MISSING_OPERATOR.search("\n".join(log))
    if missing:
        return f"the operator {missing[1] or missing[2]} is not supported"
    return next((line for line in log if line.strip()), "no reason given")[:200]


def _file_numbers(content: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Return the interpreter's number of each input and output by the name that the file's signature gives it."""
    # The schema of the same package, so that file and interpreter are read alike.
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    # TensorFlow Lite Micro runs the first subgraph, whichever the signature names.
    graph = model.Subgraphs(0)
    signature = model.SignatureDefs(0) if model.SignatureDefsLength() else None
    if signature is None or signature.SubgraphIndex() != 0:
        return {}, {}
    inputs = [signature.Inputs(index) for index in range(signature.InputsLength())]
    outputs = [signature.Outputs(index) for index in range(signature.OutputsLength())]
    return (
        numbers_by_name(_named(inputs), [graph.Inputs(index) for index in range(graph.InputsLength())]),
        numbers_by_name(_named(outputs), [graph.Outputs(index) for index in range(graph.OutputsLength())]),
    )


def _named(entries: Sequence[Any]) -> list[tuple[str, int]]:
    return [((entry.Name() or b"").decode("utf-8", "replace"), entry.TensorIndex()) for entry in entries]


def _numbers_of(specs: Sequence[TensorSpec], numbers: Mapping[str, int]) -> list[int]:
    """Return the interpreter's number of each tensor: by name, or by position where the file has other names."""
    if all(spec.name in numbers for spec in specs):
        return [numbers[spec.name] for spec in specs]
    return list(range(len(specs)))


def _file_signature(interpreter: Any, inputs: dict[str, int], outputs: dict[str, int]) -> Signature:
    """The tensors in the interpreter's order, by the names of the file's signature, or else by their numbers."""
    return Signature(
        _file_specs("input", interpreter.get_input_details, inputs),
        _file_specs("output", interpreter.get_output_details, outputs),
    )


def _file_specs(
    side: str, get_details: Callable[[int], dict[str, Any]], numbers: dict[str, int]
) -> tuple[TensorSpec, ...]:
    # Backwards, so that the first of two names of a tensor is kept.
    names = {number: name for name, number in reversed(numbers.items())}
    specs: list[TensorSpec] = []
    while (details := _details(get_details, len(specs))) is not None:
        specs.append(_spec(names.get(len(specs)) or f"{side}_{len(specs)}", details))
    return tuple(specs)


def _details(get_details: Callable[[int], dict[str, Any]], index: int) -> dict[str, Any] | None:
    with _captured_stderr():
        try:
            return get_details(index)
        except (RuntimeError, IndexError, ValueError):
            return None


def _spec(name: str, details: dict[str, Any]) -> TensorSpec:
    parameters = details["quantization_parameters"]
    scales = tuple(float(scale) for scale in parameters["scales"])
    quantization = Quantization(scales, tuple(int(zero) for zero in parameters["zero_points"])) if scales else None
    return TensorSpec(
        name, tuple(int(dim) for dim in details["shape"]), np.dtype(details["dtype"]).name, None, quantization
    )


RUNTIME = TFLiteMicroRuntime()

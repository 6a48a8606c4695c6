"""LiteRT, the TensorFlow Lite interpreter, with its default delegate XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, RuntimeSession
from edgekit.core.environment.requirements import LITERT
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import from_tensor, to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Dim, Quantization, Signature, TensorSpec
from edgekit.core.values.tensor_order import names_by_position


class LiteRTSession(RuntimeSession):
    """A session with one interpreter; tensors have an index there, and the names of the file's signature outside."""

    def __init__(self, interpreter: Any, signature: Signature, inputs: list[int], outputs: list[int]) -> None:
        super().__init__(signature)
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs

    def _run(self, inputs: list[Array]) -> list[Array]:
        # Fused recurrent operators keep their last state in variables, from which the next call would go on.
        self._interpreter.reset_all_variables()
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        for index, spec in zip(self._inputs, self.signature.inputs, strict=True):
            self._interpreter.set_tensor(index, inputs[spec.name])
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke


class LiteRTRuntime(Runtime):
    """Runs .tflite files."""

    name = "litert"
    title = "LiteRT"
    targets = ("tflite",)
    requires = (LITERT,)

    def load_library(self) -> None:
        import ai_edge_litert.interpreter  # noqa: F401

    def _open(self, path: Path, threads: int, signature: Signature | None) -> LiteRTSession:
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise InputError(f"{path}: LiteRT cannot load this file ({reason})") from error
        inputs, outputs = _named_details(interpreter)
        file_signature = Signature(
            tuple(_spec(name, detail) for name, detail in inputs),
            tuple(_spec(name, detail) for name, detail in outputs),
        )
        return LiteRTSession(
            interpreter,
            file_signature,
            [detail["index"] for _, detail in inputs],
            [detail["index"] for _, detail in outputs],
        )

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        """Trace with TFLite's built-in kernels, since XNNPACK replaces whole subgraphs and keeps no inner tensors."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        computed = [
            index for op in interpreter._get_ops_details() for index in op["outputs"] if index >= 0 and index in details
        ]
        inputs, outputs = _named_details(interpreter)
        input_signature = Signature(tuple(_spec(name, detail) for name, detail in inputs), ())
        names = {detail["index"]: name for name, detail in outputs}
        specs = {index: _spec(names.get(index, details[index]["name"]), details[index]) for index in computed}

        def values(call: list[Array]) -> dict[str, Array]:
            for (_, detail), spec, array in zip(inputs, input_signature.inputs, call, strict=True):
                interpreter.set_tensor(detail["index"], to_tensor(array, spec))
            interpreter.reset_all_variables()  # as in LiteRTSession
            interpreter.invoke()
            return {spec.name: from_tensor(interpreter.get_tensor(index), spec) for index, spec in specs.items()}

        return batching.stack_traces(values(call) for call in batching.iter_batches(input_signature, samples))


def _named_details(interpreter: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Details of inputs and outputs by name; names are those of the first signature, if the file has one."""
    signatures = interpreter._get_full_signature_list()
    names: dict[str, dict[str, int]] = next(iter(signatures.values()), {"inputs": {}, "outputs": {}})
    return (
        _by_name(interpreter.get_input_details(), names["inputs"]),
        _by_name(interpreter.get_output_details(), names["outputs"]),
    )


def _by_name(details: list[Any], entries: Mapping[str, int]) -> list[tuple[str, Any]]:
    by_index = {detail["index"]: detail for detail in details}
    names = names_by_position(list(entries.items()), [detail["index"] for detail in details])
    placed = [(name or detail["name"], detail) for name, detail in zip(names, details, strict=True)]
    # An output that is returned under two names may be in the interpreter's list once.
    extra = [(name, by_index[index]) for name, index in entries.items() if name not in names and index in by_index]
    return placed + extra


def _spec(name: str, detail: Any) -> TensorSpec:
    shape: tuple[Dim, ...] = tuple(
        int(dim) for dim in detail["shape"]
    )  # the allocated shape; `shape_signature` would contain dynamic dimensions
    parameters = detail["quantization_parameters"]
    quantization = None
    if len(parameters["scales"]):
        axis = int(parameters["quantized_dimension"]) if len(parameters["scales"]) > 1 else None
        scales = tuple(float(scale) for scale in parameters["scales"])
        quantization = Quantization(scales, tuple(int(zero) for zero in parameters["zero_points"]), axis)
    return TensorSpec(name, shape, str(np.dtype(detail["dtype"])), None, quantization)


RUNTIME = LiteRTRuntime()

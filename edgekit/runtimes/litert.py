"""LiteRT, the TensorFlow Lite interpreter, with XNNPACK as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, Session
from edgekit.core.environment.requirements import LITERT
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import from_tensor, to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Dim, Quantization, Signature, TensorSpec


class LiteRTSession(Session):
    """One interpreter. Tensors are addressed by index, named as the file's signature names them."""

    def __init__(self, interpreter: Any, signature: Signature, inputs: list[int], outputs: list[int]) -> None:
        super().__init__(signature)
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs

    def _run(self, inputs: list[Array]) -> list[Array]:
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        for index, spec in zip(self._inputs, self.signature.inputs, strict=True):
            self._interpreter.set_tensor(index, inputs[spec.name])
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke


class LiteRT(Runtime):
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
            raise InputError(f"{path}: LiteRT does not take this file ({reason})") from error
        inputs, outputs = _named(interpreter)
        found = Signature(
            tuple(_spec(name, detail) for name, detail in inputs),
            tuple(_spec(name, detail) for name, detail in outputs),
        )
        return LiteRTSession(
            interpreter, found, [detail["index"] for _, detail in inputs], [detail["index"] for _, detail in outputs]
        )

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        """By the reference kernels of TFLite: XNNPACK takes whole subgraphs, and keeps no tensor between."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        details = {item["index"]: item for item in interpreter.get_tensor_details()}
        wanted = [
            index for op in interpreter._get_ops_details() for index in op["outputs"] if index >= 0 and index in details
        ]
        inputs, outputs = _named(interpreter)
        taken = Signature(tuple(_spec(name, item) for name, item in inputs), ())
        names = {item["index"]: name for name, item in outputs}
        specs = {index: _spec(names.get(index, details[index]["name"]), details[index]) for index in wanted}

        def values(call: list[Array]) -> dict[str, Array]:
            for (_, item), spec, array in zip(inputs, taken.inputs, call, strict=True):
                interpreter.set_tensor(item["index"], to_tensor(array, spec))
            interpreter.invoke()
            return {spec.name: from_tensor(interpreter.get_tensor(index), spec) for index, spec in specs.items()}

        return batching.stack_traces(values(call) for call in batching.iter_batches(taken, samples))


def _named(interpreter: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Details of inputs and outputs with their names; those of the first signature where the file has one."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter._get_full_signature_list()
    names: dict[str, dict[str, int]] = next(iter(signatures.values()), {"inputs": {}, "outputs": {}})
    by_index = {side: {index: name for name, index in names[side].items()} for side in ("inputs", "outputs")}
    return (
        [(by_index["inputs"].get(item["index"], item["name"]), item) for item in inputs],
        [(by_index["outputs"].get(item["index"], item["name"]), item) for item in outputs],
    )


def _spec(name: str, detail: Any) -> TensorSpec:
    shape: tuple[Dim, ...] = tuple(int(dim) for dim in detail["shape"])  # what is allocated, not what could be
    parameters = detail["quantization_parameters"]
    quantization = None
    if len(parameters["scales"]):
        axis = int(parameters["quantized_dimension"]) if len(parameters["scales"]) > 1 else None
        scales = tuple(float(scale) for scale in parameters["scales"])
        quantization = Quantization(scales, tuple(int(zero) for zero in parameters["zero_points"]), axis)
    return TensorSpec(name, shape, str(np.dtype(detail["dtype"])), None, quantization)


RUNTIME = LiteRT()

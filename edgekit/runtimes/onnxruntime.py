"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core import calls
from edgekit.core.errors import InputError
from edgekit.core.metrics import Array
from edgekit.core.requirements import ONNXRUNTIME
from edgekit.core.specs import Dim, Signature, TensorSpec
from edgekit.runtimes._base import Runtime, Session

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


class OnnxSession(Session):
    """One InferenceSession."""

    def __init__(self, session: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._session = session

    def _run(self, inputs: list[Array]) -> list[Array]:
        feed = {spec.name: array for spec, array in zip(self.signature.inputs, inputs, strict=True)}
        return [np.asarray(output) for output in self._session.run(None, feed)]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        feed = dict(inputs)
        run = self._session.run
        return lambda: run(None, feed)


class OnnxRuntime(Runtime):
    """Runs .onnx files with the CPU execution provider, graph optimisations on."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    requires = (ONNXRUNTIME,)

    def load_library(self) -> None:
        import onnxruntime  # noqa: F401

    def _open(self, path: Path, threads: int, signature: Signature | None) -> OnnxSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base of its own
            reason = str(error).partition("] : ")[2] or str(error)
            raise InputError(
                f"{path}: ONNX Runtime does not take this file ({reason.splitlines()[0][:200]})"
            ) from error
        found = Signature(
            tuple(_spec(item) for item in session.get_inputs()), tuple(_spec(item) for item in session.get_outputs())
        )
        return OnnxSession(session, found)

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        """Of a file whose inner tensors are outputs."""
        session = self._open(path, 1, None)
        inputs = Signature(session.signature.inputs, ())
        names = [spec.name for spec in session.signature.outputs]
        return calls.stacked(dict(zip(names, session._run(call), strict=True)) for call in calls.split(inputs, samples))


def _spec(item: Any) -> TensorSpec:
    shape: list[Dim] = [dim if isinstance(dim, (int, str)) else f"dim{index}" for index, dim in enumerate(item.shape)]
    return TensorSpec(item.name, tuple(shape), _DTYPES.get(item.type, item.type))


RUNTIME = OnnxRuntime()

"""The runtime `onnx-reference`: ONNX's own evaluator, in Python. Slow, and a second opinion on every ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contracts.runtime import Runtime, RuntimeSession, UnknownSignature
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature

ONNX = Requirement("onnx", "onnx", adds="the runtime onnx-reference")


class ReferenceSession(RuntimeSession):
    """A model in ONNX's evaluator."""

    def __init__(self, evaluator: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._evaluator = evaluator

    def _run(self, inputs: list[Array]) -> list[Array]:
        feeds = {spec.name: array for spec, array in zip(self.signature.inputs, inputs, strict=True)}
        outputs: list[Array] = self._evaluator.run(None, feeds)
        return outputs

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        return partial(self._evaluator.run, None, dict(inputs))


class OnnxReference(Runtime):
    """Evaluates ONNX files operator by operator."""

    name = "onnx-reference"
    title = "ONNX reference evaluator"
    targets = ("onnx-external", "onnx")
    requires = (ONNX,)

    def load_library(self) -> None:
        import onnx.reference  # noqa: F401

    def _open(self, path: Path, threads: int, signature: Signature | None) -> ReferenceSession:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.reference import ReferenceEvaluator

        if signature is None:
            raise UnknownSignature(f"{path}: this runtime takes the signature from the artifact's manifest")
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except (DecodeError, OSError, onnx.checker.ValidationError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise InputError(f"{path}: the ONNX reference evaluator cannot load this file ({reason})") from None
        return ReferenceSession(ReferenceEvaluator(model), signature)


RUNTIME = OnnxReference()

"""The contract of a source kind: the base checks what goes in and out, the subclass runs the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgekit.core.errors import StepFailed
from edgekit.core.metrics import Array
from edgekit.core.requirements import Requirement
from edgekit.core.specs import Signature

BATCH = 256


class Loaded(ABC):
    """A model in memory. Satisfies `edgekit.core.source.LoadedSource`."""

    kind: str

    def __init__(self, model: Any, signature: Signature) -> None:
        self.model = model
        self.signature = signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name, shape (N, ...), in inference mode, in batches.

        Raises StepFailed when the model returns another number of outputs than its signature says.
        """
        ordered = [np.ascontiguousarray(inputs[spec.name]) for spec in self.signature.inputs]
        count = len(ordered[0])
        chunks = [self._run([array[at : at + BATCH] for array in ordered]) for at in range(0, count, BATCH)]
        if any(len(chunk) != len(self.signature.outputs) for chunk in chunks):
            raise StepFailed(
                f"the {self.kind} model returns {len(chunks[0])} outputs, not {len(self.signature.outputs)}"
            )
        return {
            spec.name: np.concatenate([chunk[index] for chunk in chunks])
            for index, spec in enumerate(self.signature.outputs)
        }

    @abstractmethod
    def _run(self, inputs: list[Array]) -> list[Array]:
        """One batch: inputs and outputs in the signature's order."""

    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """Every weight by name, trainable or not, in a stable order."""


class SourceKind(ABC):
    """A kind of source model. `variables` is the environment that its worker is started with."""

    name: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]]
    layout: ClassVar[str]
    """Where channels stand: `last` or `first`."""

    @abstractmethod
    def load(self, path: Path, signature: Signature, code: Path | None) -> Loaded:
        """The model in the file; `code` is the Python file whose `build()` makes the network around bare weights.

        Raises InputError when the file is empty, truncated or something else, or does not fit the code.
        """

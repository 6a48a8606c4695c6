"""The contract of a runtime: `run` checks what goes in and out, the subclass runs. Runtimes never time themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import from_tensor, to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.memory_plan import Arena
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.records.section_sizes import CodeSize
from edgekit.core.values.specs import Signature, TensorSpec

# The largest arena that is tried, in bytes: more than any microcontroller has.
MAX_ARENA_BYTES = 1 << 26


class UnknownSignature(InputError):
    """The file does not name its inputs and outputs, and no signature was given."""

    def to_dict(self) -> dict[str, Any]:
        """As an InputError: outside the worker nobody asks for more."""
        return {**super().to_dict(), "type": InputError.__name__}


class Session(ABC):
    """An opened model file. Inputs and outputs are the file's own tensors: integers where it is fully quantized."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference: raw tensors in, raw tensors out, by name.

        Raises InputError when an input is missing, unknown, or of another dtype or shape than the signature says;
        StepFailed when the runtime returns another number of outputs.
        """
        _check_names(self.signature, inputs)
        for spec in self.signature.inputs:
            _check(spec, inputs[spec.name])
        outputs = self._run([np.ascontiguousarray(inputs[spec.name]) for spec in self.signature.inputs])
        if len(outputs) != len(self.signature.outputs):
            raise StepFailed(
                f"the runtime returned {len(outputs)} outputs where {len(self.signature.outputs)} were expected"
            )
        return {spec.name: output for spec, output in zip(self.signature.outputs, outputs, strict=True)}

    def infer(self, samples: Mapping[str, Array], batch: int = 1) -> dict[str, Array]:
        """Real values in, real values out, for N samples of shape (N, ...), quantized and dequantized where the
        signature asks for it.

        A symbolic batch is run as one sample at a time, as a device would, or `batch` of them: dynamic quantization
        takes its range over the batch, so that neighbours would change the answer. The last batch of a fixed size is
        filled up with its last sample.
        """
        _check_names(self.signature, samples)
        chunks: list[list[Array]] = []
        for call in batching.iter_batches(self.signature, samples, batch):
            raw = {spec.name: to_tensor(array, spec) for spec, array in zip(self.signature.inputs, call, strict=True)}
            outputs = self.run(raw)
            chunks.append([outputs[spec.name] for spec in self.signature.outputs])
        joined = batching.concat_outputs(self.signature, samples, chunks)
        return {spec.name: from_tensor(joined[spec.name], spec) for spec in self.signature.outputs}

    @abstractmethod
    def _run(self, inputs: list[Array]) -> list[Array]:
        """One inference; inputs and outputs in the signature's order."""

    @abstractmethod
    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """A call that runs one inference on these raw tensors, with nothing in it but the inference."""


class Runtime(ABC):
    """Executes model files of one format.

    A target's default runtime is the one that the target names; every other runtime whose `targets` lists the target
    runs its files too, with `--runtime NAME`.

    Attributes:
        name: The runtime's name, as `--runtime` takes it.
        title: The runtime's name for people.
        targets: The targets whose files it runs.
        requires: What has to be installed.
        variables: The environment variables that its process is started with.
        code_size_requires: What has to be installed to tell the code size of operators.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]] = {}
    code_size_requires: ClassVar[tuple[Requirement, ...]] = ()

    def open(self, path: Path, *, threads: int, signature: Signature | None = None) -> Session:
        """Loads the file. `signature` is needed where the file itself has none.

        Raises MissingDependency, and InputError when the file is not one that this runtime takes.
        """
        require(self.requires, f"the runtime {self.name}")
        return self._open(path, threads, signature)

    @abstractmethod
    def _open(self, path: Path, threads: int, signature: Signature | None) -> Session:
        """Loads the file."""

    def trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None = None) -> dict[str, Array]:
        """What every operator computes, in the order of computation, as real values by tensor name, shape (N, 1, ...).

        Samples are by input name, shape (N, ...), each run by itself. `signature` is needed where the file itself has
        none. Raises InputError where the format does not show its inner tensors.
        """
        require(self.requires, f"the runtime {self.name}")
        return self._trace(path, samples, signature)

    @property
    def exposes_intermediates(self) -> bool:
        """Whether the format shows its inner tensors."""
        return type(self)._trace is not Runtime._trace

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        raise InputError(f"{path}: {self.title} does not show what is computed inside")

    @property
    def profiles(self) -> bool:
        """Whether its profiler tells the time of each operator."""
        return type(self)._profile is not Runtime._profile

    def profile(
        self, path: Path, inputs: Mapping[str, Array], *, threads: int, runs: int, signature: Signature | None = None
    ) -> tuple[OperatorCost, ...]:
        """The median time of each operator in ms over so many inferences, in the order of computation.

        Inputs are raw tensors. Raises InputError where the runtime has no profiler.
        """
        require(self.requires, f"the runtime {self.name}")
        return self._profile(path, inputs, threads, runs, signature)

    def _profile(
        self, path: Path, inputs: Mapping[str, Array], threads: int, runs: int, signature: Signature | None
    ) -> tuple[OperatorCost, ...]:
        raise InputError(f"{path}: {self.title} does not tell the time of its operators")

    def save_optimized_model(self, path: Path, to: Path) -> Path:
        """The model as the runtime runs it once it has fused what it can: written to `to`, or the file itself."""
        return path

    @property
    def has_arena(self) -> bool:
        """Whether it runs models in one arena of a fixed size, as on a microcontroller."""
        return type(self).try_arena is not Runtime.try_arena

    def try_arena(self, path: Path, size: int) -> str | None:
        """Return why a model does not run in an arena of that many bytes, or None. One that is too small may crash."""
        raise InputError(f"{path}: {self.title} has no arena")

    def read_allocation(self, path: Path, size: int) -> Arena:
        """Return what an arena of that many bytes consists of."""
        raise InputError(f"{path}: {self.title} has no arena")

    def code_size(self, operators: Sequence[str]) -> CodeSize:
        """Return the code size of operators, and of the interpreter that runs them."""
        raise InputError(f"{self.title} does not tell the code size of operators")

    @abstractmethod
    def load_library(self) -> None:
        """Imports what the runtime needs, so that the memory and time of a model are not mixed with the library's."""


def _check_names(signature: Signature, inputs: Mapping[str, Array]) -> None:
    wanted, got = {spec.name for spec in signature.inputs}, set(inputs)
    if wanted != got:
        raise InputError(
            f"the model takes the inputs {', '.join(sorted(wanted))}; it was given {', '.join(sorted(got))}"
        )


def _check(spec: TensorSpec, array: Array) -> None:
    if str(array.dtype) != spec.dtype:
        raise InputError(f"input {spec.name} is {array.dtype} where the model takes {spec.dtype}")
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"input {spec.name} has the shape {array.shape} where the model takes {spec.shape}")


RUNTIMES: PluginKind[Runtime] = PluginKind("edgekit.runtimes", "RUNTIME", Runtime)  # type: ignore[type-abstract]

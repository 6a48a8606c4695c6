"""The contract of a runtime: the base classes check inputs and outputs, the subclasses run the model.

A plug-in subclasses `Runtime` and `RuntimeSession`. The runner times all runtimes in the same way; none times itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from edgekit.core.environment.damaged_files import damage_reported
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

# The largest arena that is tried, 64 MiB in bytes: more than any microcontroller has.
MAX_ARENA_BYTES = 1 << 26


class UnknownSignature(InputError):
    """Error for a file that does not describe its inputs and outputs, opened without a signature."""

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON values of an InputError: only the worker itself distinguishes the subclass."""
        return {**super().to_dict(), "type": InputError.__name__}


class RuntimeSession(ABC):
    """An opened model file.

    Raw tensors are the file's own: integers if it is fully quantized. Real values are their floating-point equivalents.

    Attributes:
        signature: The file's inputs and outputs in the order of a call, with their quantization parameters.
        arithmetic: How the session computes where that differs from what an application gets by default, as a short
            phrase; empty where it does not.
    """

    arithmetic: str = ""

    def __init__(self, signature: Signature) -> None:
        """Create a session.

        Args:
            signature: The file's inputs and outputs in the order of a call.
        """
        self.signature = signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one inference on raw tensors.

        Args:
            inputs: One array per input by name, with the dtype and shape of the signature.

        Returns:
            One raw array per output by name.

        Raises:
            InputError: An input is missing or unknown, or its dtype or shape differs from the signature's.
            StepFailed: The number of outputs differs from the signature's.
        """
        _check_names(self.signature, inputs)
        for spec in self.signature.inputs:
            _check_array(spec, inputs[spec.name])
        outputs = self._run([batching.contiguous(inputs[spec.name]) for spec in self.signature.inputs])
        if len(outputs) != len(self.signature.outputs):
            raise StepFailed(
                f"the runtime returned {len(outputs)} outputs where {len(self.signature.outputs)} were expected"
            )
        return {spec.name: output for spec, output in zip(self.signature.outputs, outputs, strict=True)}

    def infer(self, samples: Mapping[str, Array], batch: int = 1) -> dict[str, Array]:
        """Run samples; inputs are quantized and outputs dequantized as the signature specifies.

        A symbolic batch defaults to one sample per call, as on a device: dynamic quantization takes its range over the
        whole batch, so the other samples of a batch change the result. If the file fixes the batch, the last call is
        padded with copies of the last sample.

        Args:
            samples: Real values of shape (N, ...) by input name.
            batch: The number of samples per call if the batch is symbolic; ignored otherwise.

        Returns:
            Real values of shape (N, ...) by output name.

        Raises:
            InputError: An input is missing or unknown, or its dtype or shape differs from the signature's.
            StepFailed: The number of outputs differs from the signature's.
        """
        stored = self.infer_stored(samples, batch)
        return {spec.name: from_tensor(stored[spec.name], spec) for spec in self.signature.outputs}

    def infer_stored(self, samples: Mapping[str, Array], batch: int = 1) -> dict[str, Array]:
        """Run samples as `infer` does, and return the outputs in the file's own types.

        Args:
            samples: Real values of shape (N, ...) by input name, or integers of the file's own type.
            batch: The number of samples per call if the batch is symbolic; ignored otherwise.

        Returns:
            Raw values of shape (N, ...) by output name.

        Raises:
            InputError: An input is missing or unknown, or its dtype or shape differs from the signature's.
            StepFailed: The number of outputs differs from the signature's.
        """
        _check_names(self.signature, samples)
        chunks: list[list[Array]] = []
        for call in batching.iter_batches(self.signature, samples, batch):
            raw = {spec.name: to_tensor(array, spec) for spec, array in zip(self.signature.inputs, call, strict=True)}
            outputs = self.run(raw)
            chunks.append([outputs[spec.name] for spec in self.signature.outputs])
        return batching.concat_outputs(self.signature, samples, chunks)

    def by_default(self) -> RuntimeSession | None:
        """Return a session with the options that an application gets if it sets none.

        Sessions are opened so that outputs depend on the file and not on the processor. Where kernels of this
        processor compute otherwise by default, a comparison of both sessions shows it.

        Returns:
            The session, or None if this one computes in the same way, which is the default.
        """
        return None

    @abstractmethod
    def _run(self, inputs: list[Array]) -> list[Array]:
        """Run one inference.

        Args:
            inputs: Contiguous raw arrays in the signature's order; names, dtypes and shapes are checked.

        Returns:
            Raw arrays in the signature's order. They must stay valid after the next call.
        """

    @abstractmethod
    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Return a function that runs one inference on fixed inputs; the runner times its calls.

        Args:
            inputs: One raw array per input by name, with the dtype and shape of the signature.

        Returns:
            A function without arguments. Everything else, such as converting or copying the inputs, is done before it
            is returned as far as the runtime allows it.
        """


class Runtime(ABC):
    """A runtime that executes model files of one format.

    A target's default runtime is the one that the target names. Every other runtime that lists the target in `targets`
    runs its files too, with `--runtime NAME`. A subclass implements `_open` and `load_library`; it overrides `_trace`,
    `_profile`, `try_arena` and the other methods only if the runtime supports them.

    Attributes:
        name: The name of the runtime, as in `--runtime`; it equals the name of the plug-in.
        title: The name for display.
        targets: The targets whose files the runtime executes.
        requires: The packages that it needs.
        variables: The environment variables that its process is started with.
        confined: Whether the kernel may confine its workers: they write into their own folders only, use no network and
            start no programs. A plug-in that cannot work so sets False, and documents why.
        in_browser: Whether models run in a page of a browser: calls from outside can be made, and cannot be timed.
        code_size_requires: The packages that `code_size` needs.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]] = {}
    confined: ClassVar[bool] = True
    in_browser: ClassVar[bool] = False
    code_size_requires: ClassVar[tuple[Requirement, ...]] = ()

    def check(self, path: Path) -> None:  # noqa: B027 - most formats contain no code
        """Check a file before it is opened, apart from `open`, so that the check is not measured as loading.

        Args:
            path: The main model file.

        Raises:
            InputError: The file contains code that opening or running it may not execute.
        """

    def open(self, path: Path, *, threads: int, signature: Signature | None = None) -> RuntimeSession:
        """Open a model file.

        Args:
            path: The main model file.
            threads: The number of threads of an inference.
            signature: The inputs and outputs, for formats that do not describe them.

        Returns:
            A session, ready to run.

        Raises:
            InputError: The file is damaged or of another format, or it needs a signature.
            MissingDependency: A required package is not installed.
        """
        require(self.requires, f"the runtime {self.name}")
        with damage_reported(path, self.title):
            return self._open(path, threads, signature)

    @abstractmethod
    def _open(self, path: Path, threads: int, signature: Signature | None) -> RuntimeSession:
        """Open a model file; the required packages are installed.

        Args:
            path: The main model file.
            threads: The number of threads of an inference.
            signature: The inputs and outputs; None if the caller has none.

        Returns:
            A session, ready to run.

        Raises:
            InputError: The file is damaged or of another format.
            UnknownSignature: The file does not describe its inputs and outputs, and `signature` is None.
        """

    def trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None = None) -> dict[str, Array]:
        """Compute the result of every operator, one call per sample.

        Args:
            path: The main model file.
            samples: Real values of shape (N, ...) by input name.
            signature: The inputs and outputs, for formats that do not describe them.

        Returns:
            Real values of shape (N, 1, ...) by tensor name, in the order of computation.

        Raises:
            InputError: The runtime does not expose intermediate tensors, which is the default.
            MissingDependency: A required package is not installed.
        """
        require(self.requires, f"the runtime {self.name}")
        return self._trace(path, samples, signature)

    @property
    def exposes_intermediates(self) -> bool:
        """Whether `trace` is supported."""
        return type(self)._trace is not Runtime._trace

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        """Compute the result of every operator, as `trace` does; the required packages are installed."""
        raise InputError(f"{path}: {self.title} does not expose intermediate tensors")

    @property
    def profiles(self) -> bool:
        """Whether `profile` is supported."""
        return type(self)._profile is not Runtime._profile

    def profile(
        self, path: Path, inputs: Mapping[str, Array], *, threads: int, runs: int, signature: Signature | None = None
    ) -> tuple[OperatorCost, ...]:
        """Measure the time of each operator with the runtime's own profiler.

        Args:
            path: The main model file.
            inputs: One raw array per input by name.
            threads: The number of threads of an inference.
            runs: The number of profiled inferences.
            signature: The inputs and outputs, for formats that do not describe them.

        Returns:
            The median time in ms of each operator over the runs, in the order of computation.

        Raises:
            InputError: The runtime has no profiler, which is the default.
            MissingDependency: A required package is not installed.
        """
        require(self.requires, f"the runtime {self.name}")
        return self._profile(path, inputs, threads, runs, signature)

    def _profile(
        self, path: Path, inputs: Mapping[str, Array], threads: int, runs: int, signature: Signature | None
    ) -> tuple[OperatorCost, ...]:
        """Measure the time of each operator, as `profile` does; the required packages are installed."""
        raise InputError(f"{path}: {self.title} cannot measure the time of single operators")

    def save_optimized_model(self, path: Path, to: Path) -> Path:
        """Write the model as the runtime executes it, after its graph optimizations.

        Args:
            path: The main model file.
            to: The path to write to.

        Returns:
            `to`, or `path` if the runtime does not change the graph, which is the default.

        Raises:
            InputError: The file is damaged or of another format.
        """
        return path

    @property
    def has_arena(self) -> bool:
        """Whether models run in one memory arena of a fixed size, as on a microcontroller."""
        return type(self).try_arena is not Runtime.try_arena

    def try_arena(self, path: Path, size: int) -> str | None:
        """Try to run a model in an arena of a fixed size. The process may crash if the arena is too small.

        Args:
            path: The main model file.
            size: The size of the arena in bytes, at most `MAX_ARENA_BYTES`.

        Returns:
            The reason why the model does not run, or None if it does.

        Raises:
            InputError: The runtime has no arena, which is the default.
        """
        raise InputError(f"{path}: {self.title} has no arena")

    def read_allocation(self, path: Path, size: int) -> Arena:
        """Read how an arena is divided.

        Args:
            path: The main model file.
            size: The size of the arena in bytes, in which the model runs.

        Returns:
            The sizes of the arena's parts in bytes.

        Raises:
            InputError: The model does not run in the arena, or the runtime has no arena, which is the default.
        """
        raise InputError(f"{path}: {self.title} has no arena")

    def code_size(self, operators: Sequence[str]) -> CodeSize:
        """Measure the size of the machine code of operators and of the interpreter.

        Args:
            operators: The names of the operators, in the format's own spelling.

        Returns:
            The sizes in bytes.

        Raises:
            InputError: The runtime cannot measure code sizes, which is the default.
            MissingDependency: A package of `code_size_requires` is not installed.
        """
        raise InputError(f"{self.title} cannot measure the code size of operators")

    @abstractmethod
    def load_library(self) -> None:
        """Import the runtime's library, so that its time and memory are not counted as those of a model."""


def _check_names(signature: Signature, inputs: Mapping[str, Array]) -> None:
    expected, actual = {spec.name for spec in signature.inputs}, set(inputs)
    if expected != actual:
        raise InputError(
            f"the model takes the inputs {', '.join(sorted(expected))}; it was given {', '.join(sorted(actual))}"
        )


def _check_array(spec: TensorSpec, array: Array) -> None:
    if str(array.dtype) != spec.dtype:
        raise InputError(f"input {spec.name} is {array.dtype} where the model takes {spec.dtype}")
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"input {spec.name} has the shape {array.shape} where the model takes {spec.shape}")


RUNTIMES: PluginKind[Runtime] = PluginKind("edgekit.runtimes", "RUNTIME", Runtime)  # type: ignore[type-abstract]

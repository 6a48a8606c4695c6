"""The contract of a source kind: the base checks what goes in and out, the subclass runs the framework."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation, inverse_permutation
from edgekit.core.values.specs import Signature, TensorSpec

T = TypeVar("T")
BATCH = 256
Build = Callable[[], Any]


class LoadedModel(ABC):
    """A model in memory. Satisfies `edgekit.core.records.source.LoadedSource`.

    `sizes` has a size for each symbolic dimension that is not the batch.
    """

    kind: str

    def __init__(self, model: Any, signature: Signature) -> None:
        self.model = model
        self.signature = signature
        self.sizes: Mapping[str, int] = {}
        self._made: dict[Hashable, Any] = {}  # copies under other signatures share it

    def at(self, signature: Signature, sizes: Mapping[str, int]) -> LoadedModel:
        """The same model under another signature: other dimensions fixed, other sizes for those that are not."""
        other = copy.copy(self)
        other.signature, other.sizes = signature, sizes
        return other

    def examples(self, batch: int) -> tuple[Array, ...]:
        """Zeros in the shapes of one call with that batch, in the signature's order."""
        return tuple(
            np.zeros([self._size(dim, index, batch) for index, dim in enumerate(spec.shape)], spec.dtype)
            for spec in self.signature.inputs
        )

    def _size(self, dim: int | str, index: int, batch: int) -> int:
        if isinstance(dim, int):
            return dim
        if index == 0 and dim == self.signature.batch:
            return batch
        if dim not in self.sizes:
            raise InputError(f"the size of the dimension {dim} is not known; give --dim {dim}=SIZE")
        return self.sizes[dim]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name, shape (N, ...), in inference mode, in batches.

        Raises StepFailed when the model returns another number of outputs than its signature says.
        """
        chunks = [self._run(call) for call in batching.iter_batches(self.signature, inputs, BATCH)]
        if any(len(chunk) != len(self.signature.outputs) for chunk in chunks):
            raise StepFailed(
                f"the {self.kind} model returns {len(chunks[0])} outputs, not {len(self.signature.outputs)}"
            )
        return batching.concat_outputs(self.signature, inputs, chunks)

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What every layer computes, in the order of computation, by name, shape (N, 1, ...): one call a sample.

        Raises InputError where the kind does not show its inside.
        """
        return batching.stack_traces(self._trace(call) for call in batching.iter_batches(self.signature, inputs))

    def _trace(self, inputs: list[Array]) -> dict[str, Array]:
        """The floating-point results of every layer in one call."""
        raise InputError(f"{self.kind} models do not show what they compute inside")

    def run_float64(self, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What `run` computes, with float64 in place of float32 all the way: the mark that rounding is measured from.

        None where the kind, or this model's own code, does not take float64.
        """
        try:
            wide = self._wide()
            if wide is None:
                return None
            floats = {name: array.dtype.kind == "f" for name, array in inputs.items()}
            doubled = {name: array.astype(np.float64) if floats[name] else array for name, array in inputs.items()}
            return type(self)(wide, self.signature).at(self.signature, self.sizes).run(doubled)
        except Exception:  # noqa: BLE001 - a user's code may name float32, an operator may have no kernel for float64
            return None

    def with_layout(self, orders: Mapping[str, Permutation], signature: Signature) -> LoadedModel:
        """A model with that signature, whose tensors named in `orders` have their dimensions in another order.

        `orders` gives, for each dimension of the new tensor, the old one that it was.
        """
        ins = [
            inverse_permutation(orders[spec.name]) if spec.name in orders else None for spec in self.signature.inputs
        ]
        outs = [orders.get(spec.name) for spec in self.signature.outputs]
        return type(self)(self._permuted(ins, outs), signature).at(signature, self.sizes)

    def call(self, *tensors: Any) -> list[Any]:
        """The outputs in order for the framework's own tensors in order, as a converter traces it."""
        raise NotImplementedError(f"{self.kind} models are not traced")

    def cached(self, what: str, make: Callable[[], T]) -> T:
        """What `make` returns, made once for this model under this signature, and kept for as long as the model is."""
        key = (what, self.signature, tuple(sorted(self.sizes.items())))
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    @abstractmethod
    def _run(self, inputs: list[Array]) -> list[Array]:
        """One call: inputs and outputs in the signature's order."""

    def _wide(self) -> Any:
        """The model with weights and arithmetic in float64, or None where the kind has none."""
        return None

    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """Every weight by name, trainable or not, in a stable order."""

    @abstractmethod
    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        """The model with its inputs permuted before it, and its outputs behind it; None leaves one as it is."""


@dataclass(frozen=True)
class UserModel:
    """A model that a user points at: a file or folder, or the code that builds it, with its weights.

    `inputs` are those that the user declared, in order; `examples` real inputs by name (shape (N, ...)), where there
    are any; a kind whose files tell their inputs takes theirs.
    """

    path: Path | None
    build: Build | None = None
    weights: Path | None = None
    inputs: tuple[TensorSpec, ...] = ()
    examples: Mapping[str, Array] | None = None


class SourceKind(ABC):
    """A kind of source model. `variables` is the environment that its worker is started with.

    `suffixes` is how the files end that a user can point at (none: they are made by code, or are folders).
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]]
    layout: ClassVar[str]
    """Where channels stand: `last` or `first`."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    exposes_intermediates: ClassVar[bool] = True
    """Whether it can be told what its layers compute, by the kind or by a runtime that takes its files."""

    def recognizes(self, path: Path) -> bool:
        """Whether a file or folder looks like one of this kind, without its framework."""
        return path.is_file() and path.suffix.lower() in self.suffixes

    @abstractmethod
    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedModel:
        """The model in the file; `build` makes the network around bare weights.

        Raises InputError when the file is empty, truncated or something else, or does not fit the code.
        """

    @abstractmethod
    def import_model(self, given: UserModel, folder: Path) -> tuple[str, Signature]:
        """Puts a user's model into the folder: the name of the file (or folder) there, and its signature.

        Outputs whose shape only a run can tell have the shape (). Raises InputError as `load` does, and when the
        inputs are neither in the file nor declared.
        """


def declared_inputs(given: UserModel) -> tuple[TensorSpec, ...]:
    """The inputs of a model that cannot tell them itself: those declared, else those of the examples.

    The first dimension of an example is the batch. Raises InputError when there is neither.
    """
    if given.inputs:
        return given.inputs
    if given.examples:
        return tuple(
            TensorSpec(name, ("batch", *array.shape[1:]), str(array.dtype)) for name, array in given.examples.items()
        )
    raise InputError(
        "this model does not tell its inputs; declare them with --input NAME:SHAPE:DTYPE (such as"
        " image:1x3x224x224:float32), or give real ones with --sample FILE.npz"
    )


def unknown_outputs(names: list[str]) -> tuple[TensorSpec, ...]:
    """Outputs of which nothing is known but their names."""
    return tuple(TensorSpec(name, (), "") for name in names)


def reconcile_signature(found: Signature, given: UserModel, what: str) -> Signature:
    """The signature that a file tells, with the dimensions that the user declared in place of symbolic ones.

    Raises InputError when the user declared other inputs than the file has.
    """
    sizes: dict[str, int] = {}
    known = {spec.name: spec for spec in found.inputs}
    for wanted in given.inputs:
        spec = known.get(wanted.name)
        if spec is None:
            raise InputError(f"{what} has no input {wanted.name}; its inputs: {'; '.join(map(str, found.inputs))}")
        if wanted.dtype != spec.dtype or not _fits(wanted.shape, spec.shape):
            raise InputError(f"{what} takes {spec}; --input says {wanted}")
        pairs = zip(spec.shape, wanted.shape, strict=True)
        sizes |= {dim: size for dim, size in pairs if isinstance(dim, str) and isinstance(size, int)}
    return found.sized(sizes)


def _fits(wanted: tuple[int | str, ...], found: tuple[int | str, ...]) -> bool:
    return len(wanted) == len(found) and all(
        isinstance(have, str) or want == have for want, have in zip(wanted, found, strict=True)
    )


def with_layouts(signature: Signature, layout: str) -> Signature:
    """The signature whose tensors of four dimensions are images of the kind's layout."""
    name = "NHWC" if layout == "last" else "NCHW"

    def image(spec: TensorSpec) -> TensorSpec:
        return replace(spec, layout=name) if len(spec.shape) == 4 and spec.layout is None else spec

    return Signature(tuple(map(image, signature.inputs)), tuple(map(image, signature.outputs)))


SOURCES: PluginKind[SourceKind] = PluginKind("edgekit.sources", "SOURCE", SourceKind)  # type: ignore[type-abstract]

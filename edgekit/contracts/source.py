"""The contract of a source kind: the base class checks inputs and outputs, the subclass runs the framework."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.numerics import batching
from edgekit.core.numerics.channel_scales import ChannelGroups
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.norm_matching import NormGradient
from edgekit.core.numerics.tensor_layout import Permutation, inverse_permutation
from edgekit.core.values.fixed_inputs import FixedInput, Number, fix_inputs, without_fixed
from edgekit.core.values.preprocessing import Preprocessing, with_raw
from edgekit.core.values.specs import Signature, TensorSpec

T = TypeVar("T")
# Samples per call of the framework: large enough to hide the call's overhead, small enough that the activations of a
# large network fit into memory.
BATCH = 256
Build = Callable[[], Any]


class LoadedModel(ABC):
    """A model in memory; it satisfies `edgekit.core.records.source.LoadedSource`.

    Attributes:
        kind: The name of the source kind, such as `keras`.
        model: The framework's own model object.
        signature: The inputs and outputs in the order of a call.
        sizes: A size for each symbolic dimension that is not the batch.
        notes: What loading changed about the model, for the user.
        one_by_one: Whether `run` makes a call for each sample, as an artifact is judged: set where the outputs of a
            sample depend on the others of its call, or where the model keeps state.
    """

    kind: str
    notes: tuple[str, ...] = ()
    one_by_one: bool = False

    def __init__(self, model: Any, signature: Signature) -> None:
        self.model = model
        self.signature = signature
        self.sizes: Mapping[str, int] = {}
        self._examples: Mapping[str, Array] | None = None
        # Copies made by `at` share this dictionary: the signature and the sizes are part of every key.
        self._cache: dict[Hashable, Any] = {}
        # What a call changes in the model, with its initial values; shared by copies too.
        self._initial_state: dict[str, Array] = {}

    def at(self, signature: Signature, sizes: Mapping[str, int]) -> LoadedModel:
        """Return a copy with another signature that shares the framework's model.

        Args:
            signature: The new signature; it may fix other dimensions than the old one.
            sizes: A size for each symbolic dimension of the signature that is not the batch.

        Returns:
            A shallow copy: the weights are not copied.
        """
        model = copy.copy(self)
        model.signature, model.sizes = signature, sizes
        return model

    def with_examples(self, inputs: Mapping[str, Array]) -> LoadedModel:
        """Return a copy that knows real inputs, from which converters trace it.

        Args:
            inputs: Arrays of shape (N, ...) by input name.

        Returns:
            A shallow copy: the weights are not copied.
        """
        model = copy.copy(self)
        model._examples = inputs
        return model

    def examples(self, batch: int) -> tuple[Array, ...]:
        """Return the inputs of one call: real ones if the model knows any, else zeros.

        Args:
            batch: The number of samples in the call.

        Returns:
            One array of shape (batch, ...) per input, in the signature's order.

        Raises:
            InputError: The size of a symbolic dimension is unknown.
        """
        return tuple(self._example(spec, batch) for spec in self.signature.inputs)

    def _example(self, spec: TensorSpec, batch: int) -> Array:
        shape = [self._size(dim, index, batch) for index, dim in enumerate(spec.shape)]
        real = None if self._examples is None else self._examples.get(spec.name)
        if real is not None and not shape:
            return np.asarray(real[0], spec.dtype)
        if real is None or real.ndim != len(shape) or not real.size:
            return np.zeros(shape, spec.dtype)
        # Repeated along each axis that is longer than in the samples, such as a batch of two of a single sample.
        indices = [np.arange(size) % length for size, length in zip(shape, real.shape, strict=True)]
        return np.ascontiguousarray(real[np.ix_(*indices)].astype(spec.dtype))

    def _size(self, dim: int | str, index: int, batch: int) -> int:
        if isinstance(dim, int):
            return dim
        if index == 0 and dim == self.signature.batch:
            return batch
        if index == 0 and dim not in self.sizes and {spec.shape[:1] for spec in self.signature.inputs} == {(dim,), ()}:
            return 1  # a scalar beside batched inputs is the scalar of one sample
        if dim not in self.sizes:
            raise InputError(f"the size of dimension {dim} is unknown; set it", parameters=("dims",))
        return self.sizes[dim]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model in inference mode, each call from the initial state.

        A call takes at most `BATCH` samples, or one where `one_by_one` is set.

        Args:
            inputs: Arrays of shape (N, ...) by input name.

        Returns:
            Arrays of shape (N, ...) by output name.

        Raises:
            StepFailed: The number of outputs differs from the signature's.
        """
        return self._joined(inputs, 1 if self.one_by_one else BATCH, stream=False)

    def run_stream(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on one sample after another from the initial state, which the calls change.

        Args:
            inputs: Arrays of shape (N, ...) by input name, in the order of the stream.

        Returns:
            Arrays of shape (N, ...) by output name.

        Raises:
            StepFailed: The number of outputs differs from the signature's.
        """
        return self._joined(inputs, 1, stream=True)

    def _joined(self, inputs: Mapping[str, Array], batch: int, *, stream: bool) -> dict[str, Array]:
        chunks: list[list[Array]] = []
        for call in batching.iter_batches(self.signature, inputs, batch):
            if not chunks or not stream:
                self.reset()
            chunks.append(self._run(call))
        if any(len(chunk) != len(self.signature.outputs) for chunk in chunks):
            raise StepFailed(
                f"the {self.kind} model returns {len(chunks[0])} outputs; its signature has"
                f" {len(self.signature.outputs)}"
            )
        return batching.concat_outputs(self.signature, inputs, chunks)

    def keep_state(self, names: Sequence[str], values: Mapping[str, Array] | None = None) -> None:
        """Remember values of state, which `reset` restores.

        Args:
            names: Names of state that calls change; names that this model does not have are ignored.
            values: The values by name; None for the present ones.
        """
        state = self.state() if values is None and names else values or {}
        self._initial_state.clear()
        self._initial_state.update({name: np.array(state[name]) for name in names if name in state})

    def reset(self) -> None:
        """Return to the state that `keep_state` remembered; a model without state is left alone."""
        if self._initial_state:
            self._set_state(self._initial_state)

    def state(self) -> Mapping[str, Array]:
        """Return the values that a call might change, by name: buffers and variables that are not trained.

        Returns:
            By default nothing: kinds whose calls change nothing need no state. Seeds of random numbers are no state: an
            artifact does not draw the same numbers from the same seed.
        """
        return {}

    def _set_state(self, values: Mapping[str, Array]) -> None:
        """Set some of the values that `state` returns.

        Args:
            values: Arrays by name.
        """
        raise NotImplementedError(f"{self.kind} models have no state")

    def random_operators(self, inputs: Mapping[str, Array]) -> tuple[str, ...]:
        """Return the names of the operators that draw random numbers, with the line of the user's code where known.

        Args:
            inputs: A sample by input name, shape (1, ...).

        Returns:
            The names; empty where the kind cannot tell, which is the default.
        """
        return ()

    def trace(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the result of every layer, one call per sample.

        Args:
            inputs: Arrays of shape (N, ...) by input name.

        Returns:
            Arrays of shape (N, 1, ...) by layer name, in the order of computation.

        Raises:
            InputError: The kind does not expose intermediate results.
        """

        def results() -> Iterator[Mapping[str, Array]]:
            for call in batching.iter_batches(self.signature, inputs):
                self.reset()
                yield self._trace(call)

        return batching.stack_traces(results())

    def _trace(self, inputs: list[Array]) -> dict[str, Array]:
        """Compute the floating-point result of every layer in one call.

        Args:
            inputs: Arrays in the signature's order.

        Returns:
            Arrays by layer name, in the order of computation.

        Raises:
            InputError: The kind does not expose intermediate results, which is the default.
        """
        raise InputError(f"{self.kind} models do not expose intermediate results")

    def run_float64(self, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """Run the model in float64 throughout; the rounding of float32 is measured against this result.

        Args:
            inputs: Arrays of shape (N, ...) by input name; floating-point ones are converted to float64.

        Returns:
            Arrays of shape (N, ...) by output name, or None if the kind or this model does not support float64.
        """
        try:
            self.reset()  # the copy takes over the state
            wide = self._in_float64()
            if wide is None:
                return None
            floats = {name: array.dtype.kind == "f" for name, array in inputs.items()}
            doubles = {name: array.astype(np.float64) if floats[name] else array for name, array in inputs.items()}
            model = type(self)(wide, self.signature).at(self.signature, self.sizes)
            model.one_by_one = self.one_by_one
            model.keep_state(tuple(self._initial_state))
            return model.run(doubles)
        except Exception:  # noqa: BLE001 - a user's code may name float32, an operator may have no kernel for float64
            return None

    def with_fixed(self, fixed: Sequence[FixedInput]) -> LoadedModel:
        """Return a model in which some inputs are constants.

        Args:
            fixed: The inputs, by their positions in this model's signature.

        Returns:
            A model around the original one, under the signature without these inputs; the model itself if there are
            none.
        """
        if not fixed:
            return self
        by_position = {item.position: item for item in fixed}
        constants = [by_position.get(index) for index in range(len(self.signature.inputs))]
        signature = without_fixed(self.signature, fixed)
        return self._replaced(self._with_constants(constants), signature)

    def _replaced(self, model: Any, signature: Signature) -> LoadedModel:
        """Return another model of the framework in place of this one, with its sizes and notes."""
        replaced = type(self)(model, signature).at(signature, self.sizes)
        replaced.notes = self.notes
        return replaced

    def _with_constants(self, constants: Sequence[FixedInput | None]) -> Any:
        """Return the framework's model with constants in place of some inputs.

        Args:
            constants: For each input of the signature the constant, or None for an input that stays. A constant with a
                symbolic first dimension has as many rows as `batch_input` says.
        """
        raise InputError(f"{self.kind} models cannot have fixed inputs", parameters=("fixed",))

    def with_preprocessing(self, items: Sequence[Preprocessing]) -> LoadedModel:
        """Return a model that takes the application's images and applies the steps to its own inputs.

        Args:
            items: The steps, by the names of inputs of this model's signature.

        Returns:
            A model around the original one, under the signature with the images; the model itself if there are none.
        """
        if not items:
            return self
        by_name = {item.spec.name: item for item in items}
        steps = [by_name.get(spec.name) for spec in self.signature.inputs]
        signature = with_raw(self.signature, items)
        return self._replaced(self._with_steps(steps), signature)

    def _with_steps(self, steps: Sequence[Preprocessing | None]) -> Any:
        """Return the framework's model with steps in front of some inputs.

        Args:
            steps: For each input of the signature the steps, or None for an input that stays as it is.
        """
        raise InputError(f"{self.kind} models cannot have preprocessed inputs", parameters=("preprocess",))

    def batch_input(self, constants: Sequence[FixedInput | None]) -> int | None:
        """Return the position, among the inputs that stay, of the first one with a symbolic first dimension.

        Args:
            constants: For each input of the signature the constant, or None for an input that stays.
        """
        kept = [spec for spec, item in zip(self.signature.inputs, constants, strict=True) if item is None]
        symbolic = (index for index, spec in enumerate(kept) if spec.shape and isinstance(spec.shape[0], str))
        return next(symbolic, None)

    def with_layout(self, orders: Mapping[str, Permutation], signature: Signature) -> LoadedModel:
        """Return a model whose inputs and outputs have their dimensions in another order.

        Args:
            orders: By tensor name, the old dimension that each new dimension was; NHWC to NCHW is (0, 3, 1, 2).
            signature: The signature after the permutation.

        Returns:
            A model with transposes around the original one, under the new signature.
        """
        ins = [
            inverse_permutation(orders[spec.name]) if spec.name in orders else None for spec in self.signature.inputs
        ]
        outs = [orders.get(spec.name) for spec in self.signature.outputs]
        return type(self)(self._permuted(ins, outs), signature).at(signature, self.sizes)

    def call(self, *tensors: Any) -> list[Any]:
        """Compute the outputs for the framework's own tensors, as a converter traces it.

        Args:
            *tensors: One tensor of the framework per input, in the signature's order.

        Returns:
            The output tensors in the signature's order.

        Raises:
            NotImplementedError: Models of this kind cannot be traced.
        """
        raise NotImplementedError(f"{self.kind} models cannot be traced")

    def data_reads(self) -> tuple[str, ...]:
        """Return where the model's code reads values that depend on its inputs, which no trace can record.

        Returns:
            A description of each place, such as `a condition in net.py, line 4: if x.sum() > 0`; none by default.
        """
        return ()

    def cached(self, purpose: str, make: Callable[[], T]) -> T:
        """Return what `make` returns, computed once for this model and signature.

        Args:
            purpose: The name of the value; it is part of the key, beside the signature and the sizes.
            make: Computes the value on the first call.

        Returns:
            The value, which is kept as long as the model.
        """
        key = (purpose, self.signature, tuple(sorted(self.sizes.items())))
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def equalized(self, inputs: Mapping[str, Array], migration: float = 0.5) -> LoadedModel | None:
        """Return a model that computes the same with ranges of channels that suit integers better.

        Args:
            inputs: Real inputs that ranges are measured with, shape (N, ...) by input name.
            migration: How far differences of range move from activations into weights, from 0 to 1.

        Returns:
            A model with other values of parameters, or None if the kind does not support it or nothing can be moved.
        """
        measured = self._channel_ranges(inputs)
        if measured is None:
            return None
        groups, ranges = measured
        parameters = self.parameters()
        factors = groups.factors(ranges, parameters, migration)
        if not factors:
            return None
        return self._with_parameters(groups.scaled(factors, parameters)).at(self.signature, self.sizes)

    def _channel_ranges(self, inputs: Mapping[str, Array]) -> tuple[ChannelGroups, Mapping[str, Array]] | None:
        """Find the groups of channels that may be scaled together, and measure the ranges of their tensors.

        Args:
            inputs: Real inputs of shape (N, ...) by input name.

        Returns:
            The groups, and for each of their tensors the largest absolute value along the axis of the channels; None if
            the kind or this model does not support it, which is the default.
        """
        return None

    def norm_gradient(self, inputs: Mapping[str, Array]) -> NormGradient:
        """Compare what enters the model's batch norms with the statistics of its training.

        Args:
            inputs: Floating-point arrays of shape (N, ...) by input name; the statistics are those of all N samples.

        Returns:
            The distance and its gradient; without batch norms that keep statistics their number is 0.

        Raises:
            InputError: The kind does not support it.
        """
        specs = self.signature.inputs
        cast = {spec.name: inputs[spec.name].astype(spec.dtype) for spec in specs}
        self.reset()
        loss, norms, by_call = self._norm_gradient(list(batching.iter_batches(self.signature, cast, BATCH)))
        columns = zip(specs, zip(*by_call, strict=True), strict=True)
        gradients = {
            spec.name: (np.concatenate(column) if spec.shape else np.stack(column)).astype(inputs[spec.name].dtype)
            for spec, column in columns
        }
        return NormGradient(loss, norms, gradients)

    def _norm_gradient(self, calls: Sequence[list[Array]]) -> tuple[float, int, list[list[Array]]]:
        """Compute the loss that `NormGradient` defines, of all calls together.

        Args:
            calls: Floating-point inputs of each call, in the signature's order.

        Returns:
            The loss, the number of batch norms that keep statistics, and the gradient by each input of each call.

        Raises:
            InputError: The kind does not support it, which is the default.
        """
        raise InputError(
            f"samples cannot be synthesized from {self.kind} models; pass real inputs",
            parameters=("sample", "calibration"),
        )

    def _with_parameters(self, values: Mapping[str, Array]) -> LoadedModel:
        """Return a copy of the model with other values of some parameters; only if `_channel_ranges` is supported.

        Args:
            values: New values by the names of `parameters`.
        """
        raise NotImplementedError(f"{self.kind} models do not support other parameters")

    @abstractmethod
    def _run(self, inputs: list[Array]) -> list[Array]:
        """Run one call in inference mode.

        Args:
            inputs: Arrays of shape (batch, ...) in the signature's order.

        Returns:
            Arrays of shape (batch, ...) in the signature's order.
        """

    def _in_float64(self) -> Any:
        """Return the framework's model with weights and arithmetic in float64.

        Returns:
            A copy of the model, or None if the kind does not support float64, which is the default.
        """
        return None

    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """Return every weight by name, trainable or not, in an order that is the same in every run."""

    @abstractmethod
    def _permuted(self, inputs: list[Permutation | None], outputs: list[Permutation | None]) -> Any:
        """Return the framework's model with transposes around it.

        Args:
            inputs: The permutation to apply to each input before the model, in the signature's order; None for none.
            outputs: The permutation to apply to each output after the model, in the same form.

        Returns:
            A model of the same framework.
        """


@dataclass(frozen=True)
class UserModel:
    """A model of the user: a file or folder, or the code that builds the network, with its weights.

    Attributes:
        path: The file or folder; None if the model is built by code.
        build: Builds the network; None if the model is a file or folder.
        weights: The file of weights for the network that `build` returns; None for its initial weights.
        inputs: The inputs that the user declared, in order. Kinds whose files describe their inputs use the file's.
        examples: Real inputs of shape (N, ...) by name, if the user passed any.
        notes: Receives sentences for the user about what the import chose.
        signature: The name of the signature that the user chose; None for the kind's default.
        fixed: Values of inputs that the user fixed, by name.
        as_stored: Whether the model keeps the floating-point types of its file, as a comparison of two files needs;
            otherwise kinds that can rebuild it in float32 do so.
    """

    path: Path | None
    build: Build | None = None
    weights: Path | None = None
    inputs: tuple[TensorSpec, ...] = ()
    examples: Mapping[str, Array] | None = None
    notes: list[str] = field(default_factory=list)
    signature: str | None = None
    fixed: Mapping[str, Number] = field(default_factory=dict)
    as_stored: bool = False


class SourceKind(ABC):
    """A kind of source model.

    Attributes:
        name: The name of the kind; it equals the name of the plug-in's file.
        requires: The packages that the worker needs.
        variables: The environment variables that the worker is started with.
        confined: Whether the kernel may confine its workers: they write into their own folders only, use no network and
            start no programs. A plug-in that cannot work so sets False, and documents why.
        layout: The position of the channels, `last` or `first`.
        suffixes: The file suffixes of the kind; empty if its models are folders.
        exposes_intermediates: Whether the results of single layers can be read, by the kind itself or by a runtime
            that opens its files.
        has_signatures: Whether a file may hold several functions, of which the user chooses one by name.
        takes_numbers: Whether the code of models may take Python numbers among its inputs.
        synthesis_requires: The packages that `LoadedModel.norm_gradient` needs, beside `requires`.
        writes_fixed: Whether `import_model` writes the values of `UserModel.fixed` into the file, whose signature is
            then without these inputs; otherwise `LoadedModel.with_fixed` sets them whenever the model is loaded.
        intermediate: Whether a route from another source kind may pass through a file of this kind, if a target writes
            it.
        compared_by_runtime: Whether a file that is compared with another model is run as it is by the runtime of the
            target whose format it has, instead of as a source.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]]
    confined: ClassVar[bool] = True
    layout: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    exposes_intermediates: ClassVar[bool] = True
    has_signatures: ClassVar[bool] = False
    takes_numbers: ClassVar[bool] = False
    synthesis_requires: ClassVar[tuple[Requirement, ...]] = ()
    writes_fixed: ClassVar[bool] = False
    intermediate: ClassVar[bool] = True
    compared_by_runtime: ClassVar[bool] = False

    def recognizes(self, path: Path) -> bool:
        """Return whether a file or folder looks like one of this kind, without importing the framework.

        Args:
            path: The file or folder.

        Returns:
            By default, whether the path is a file with one of the kind's suffixes.
        """
        return path.is_file() and path.suffix.lower() in self.suffixes

    @abstractmethod
    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedModel:
        """Load a model from the file that `import_model` or a training wrote.

        Args:
            path: The model file or folder.
            signature: The inputs and outputs of the model.
            build: Builds the network for a file of bare weights; None for a file that holds the whole model.

        Returns:
            The model in inference mode.

        Raises:
            InputError: The file is empty, truncated, of another format, or does not fit the code.
        """

    @abstractmethod
    def import_model(self, user_model: UserModel, folder: Path) -> tuple[str, Signature]:
        """Copy a model of the user into the folder.

        Args:
            user_model: The file or code, with the declared inputs.
            folder: The existing folder to write to.

        Returns:
            The name of the file (or folder) within `folder`, and the signature. An output whose shape is known only
            after a run has the shape ().

        Raises:
            InputError: The file is damaged, or its inputs are neither described in the file nor declared.
        """


def declared_inputs(user_model: UserModel) -> tuple[TensorSpec, ...]:
    """Return the inputs of a model whose file does not describe them.

    Args:
        user_model: The model with declared inputs or examples.

    Returns:
        The declared inputs, else those of the examples, whose first dimension is the batch; then the fixed inputs among
        neither, which are numbers.

    Raises:
        InputError: There are neither declared inputs nor examples.
    """
    inputs = user_model.inputs or tuple(
        TensorSpec(name, ("batch", *array.shape[1:]), str(array.dtype))
        for name, array in (user_model.examples or {}).items()
    )
    if inputs:
        names = {spec.name for spec in inputs}
        numbers = [
            TensorSpec(name, (), _NUMBERS[type(value)]) for name, value in user_model.fixed.items() if name not in names
        ]
        return (*inputs, *numbers)
    raise InputError(
        "this model does not describe its inputs; declare each as NAME:SHAPE:DTYPE (for example"
        " image:1x3x224x224:float32), or pass a sample of real ones",
        parameters=("inputs", "sample"),
    )


def fixed_inputs(user_model: UserModel, signature: Signature, *, numbers: bool = False) -> tuple[FixedInput, ...]:
    """Return the inputs that the user fixed.

    Args:
        user_model: The model with the values.
        signature: All inputs of its file or code.
        numbers: Whether code receives a Python number for an input that is neither declared nor among the examples.

    Raises:
        InputError: The model has no such input, or the input cannot have the value.
    """
    fixed = fix_inputs(signature, user_model.fixed, str(user_model.path or "the model"))
    if not numbers or (user_model.path is not None and not user_model.path.is_dir()):
        return fixed
    declared = {spec.name for spec in user_model.inputs} or {*(user_model.examples or {})}
    return tuple(replace(item, as_number=item.spec.name not in declared) for item in fixed)


# The dtypes of numbers that code takes.
_NUMBERS = {bool: "bool", int: "int64", float: "float32"}


def unknown_outputs(names: list[str]) -> tuple[TensorSpec, ...]:
    """Return specs of outputs of which only the names are known.

    Args:
        names: The names of the outputs, in the order of a call.

    Returns:
        Specs with the shape () and an empty dtype; a run of the model fills them in.
    """
    return tuple(TensorSpec(name, (), "") for name in names)


def reconcile_signature(signature: Signature, user_model: UserModel, subject: str) -> Signature:
    """Return a file's signature with the declared sizes in place of symbolic dimensions.

    Args:
        signature: The signature that the file describes.
        user_model: The model with the inputs that the user declared.
        subject: How error messages name the model, such as its path.

    Returns:
        The signature with every declared size filled in.

    Raises:
        InputError: A declared input has another name, dtype or shape than the file's.
    """
    sizes: dict[str, int] = {}
    specs = {spec.name: spec for spec in signature.inputs}
    for declared in user_model.inputs:
        spec = specs.get(declared.name)
        if spec is None:
            raise InputError(
                f"{subject} has no input {declared.name}; its inputs: {'; '.join(map(str, signature.inputs))}"
            )
        if declared.dtype != spec.dtype or not _fits(declared.shape, spec.shape):
            raise InputError(f"{subject} takes {spec}, not {declared}")
        pairs = zip(spec.shape, declared.shape, strict=True)
        sizes |= {dim: size for dim, size in pairs if isinstance(dim, str) and isinstance(size, int)}
    return signature.sized(sizes)


def _fits(declared: tuple[int | str, ...], actual: tuple[int | str, ...]) -> bool:
    return len(declared) == len(actual) and all(
        isinstance(dim, str) or size == dim for size, dim in zip(declared, actual, strict=True)
    )


def with_layouts(signature: Signature, layout: str) -> Signature:
    """Return the signature with every four-dimensional tensor marked as an image.

    Args:
        signature: The signature; tensors that have a layout already keep it.
        layout: The position of the channels, `last` or `first`.

    Returns:
        The signature whose four-dimensional tensors have the layout `NHWC` or `NCHW`.
    """
    name = "NHWC" if layout == "last" else "NCHW"

    def as_image(spec: TensorSpec) -> TensorSpec:
        # Only rank 4 is unambiguous: (N, T, C) rows and (N, C, L) signals cannot be told apart by their rank.
        return replace(spec, layout=name) if len(spec.shape) == 4 and spec.layout is None else spec

    return Signature(tuple(map(as_image, signature.inputs)), tuple(map(as_image, signature.outputs)))


SOURCES: PluginKind[SourceKind] = PluginKind("edgekit.sources", "SOURCE", SourceKind)  # type: ignore[type-abstract]

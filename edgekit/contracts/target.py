"""The contract of a target: the base class checks the request and the result, the subclass converts."""

from __future__ import annotations

import contextlib
import difflib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement, require
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.memory_plan import TensorLifetime
from edgekit.core.records.operator_costs import Operator
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.deployment_presets import find_preset
from edgekit.core.values.precisions import PRECISIONS, Precision, add_precision_provider, register_precision
from edgekit.core.values.quantization_form import USUAL_FORM, QuantizationForm
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.core.values.specs import ModelDescription, Signature


@dataclass(frozen=True)
class ConversionRequest:
    """The parameters of one conversion.

    Attributes:
        precision: The precision of the model file, such as `int8`.
        folder: The folder that the model file is written into.
        calibration: Real inputs by name, shape (N, ...), for precisions that need them.
        options: Values of the target's own options, by the names in `Target.options`; the target chooses the others.
        recipe: Per-layer exceptions from the precision, and how ranges are taken from the calibration samples.
        form: Types of inputs and outputs, granularity and ranges, with what a preset requires.
        cache_folder: A folder for calibration ranges, shared by the conversions of one source.
    """

    precision: str
    folder: Path
    calibration: Mapping[str, Array] | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None
    cache_folder: Path | None = None
    form: QuantizationForm = USUAL_FORM


@dataclass(frozen=True)
class SupportedForms:
    """What can be chosen of the form of a file at one precision. The default supports the target's usual form only.

    Attributes:
        input_types: The types that floating-point inputs can have.
        output_types: The types that floating-point outputs can have.
        per_tensor: Whether weights can have one scale for each tensor.
        symmetric: Whether activations can be quantized symmetrically.
        ranges: Whether ranges of single tensors can be set.
    """

    input_types: tuple[str, ...] = ("float32",)
    output_types: tuple[str, ...] = ("float32",)
    per_tensor: bool = False
    symmetric: bool = False
    ranges: bool = False

    def unsupported(self, form: QuantizationForm) -> str | None:
        """Return what a form has that is not supported, as the end of a sentence, or None.

        Args:
            form: The form.
        """
        for side, wanted, types in (
            ("inputs", form.inference_input_type, self.input_types),
            ("outputs", form.inference_output_type, self.output_types),
        ):
            if wanted is not None and wanted not in types:
                return f"has no {wanted} {side}; it has: {', '.join(types)}"
        features = (
            (form.per_tensor, self.per_tensor, "no form with one scale per weight tensor"),
            (form.symmetric_activations, self.symmetric, "no form with symmetric activations"),
            (bool(form.ranges), self.ranges, "no form with ranges that are set"),
        )
        return next((f"has {text}" for wanted, supported, text in features if wanted and not supported), None)


@dataclass(frozen=True)
class QuantizableLayer:
    """An operator of a float file that a recipe can keep in float by name.

    Attributes:
        name: The name that identifies the operator in recipes.
        operator: The operator type, in the format's own spelling.
        title: A short name for display.
        inputs: The names of the activations that the operator reads; constants are left out.
        outputs: The names of the tensors that the operator writes.
        weights: The number of learned values.
        int16: Whether the operator supports int16 activations.
    """

    name: str
    operator: str
    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int
    int16: bool = False


@dataclass(frozen=True)
class ConversionResult:
    """The result of one conversion.

    Attributes:
        file: The name of the main model file, the one that runtimes open, in the folder of the request.
        signature: Inputs and outputs of the file.
        options: The converter options that were used, for the manifest.
        notes: Remarks for the user.
        not_reproducible_because: Why two conversions may differ in their bytes, or None if they never do.
        transposes: The number of operators that only move data, for formats where `describe` cannot see them.
        extra_files: The paths of further files that belong to the model, below the folder, with forward slashes.
    """

    file: str
    signature: Signature
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    not_reproducible_because: str | None = None
    transposes: int | None = None
    extra_files: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the model, the main one first."""
        return (self.file, *self.extra_files)


class Target(ABC):
    """A deployable format.

    Attributes:
        name: The name on the command line, which is also the name of the module.
        title: The name for display.
        suffixes: Endings of the format's files; the first one is used for new files.
        runtime: The runtime that executes the files on this host.
        routes: For each source kind that is converted directly, the precisions.
        requires: For each of these source kinds, the packages that the conversion needs.
        reads_with: The packages that `describe` needs.
        calibrated: The precisions that need real inputs.
        extra_precisions: Precisions that edgekit does not have; they are registered when the target is loaded.
        symbolic: Whether files keep symbolic dimensions; other targets receive sources with fixed dimensions.
        options: Names of numeric options that the user can set.
        describe_tells_precision: Whether `describe` reads the types of the weights; a delegate may hide them.
        selective: The precisions at which single layers can be kept in float.
        calibrations: The supported ways to take ranges at these precisions, the default first.
        forms: By precision, the forms of the file that can be chosen.
        confined: Whether the kernel may confine the workers of its conversions: they write into their own folders only,
            use no network and start no programs. A plug-in that cannot work so sets False, and documents why.
        only_named: Whether models are converted to it only where it is named: a format of servers is no part of "every
            format of devices".
        on_request: The precisions that are made only where they are named, such as `onnx:int4`: those that few networks
            profit from, or that take long.
        transposes: Names in `describe` of operators that only change the order of dimensions.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    runtime: ClassVar[str]
    routes: ClassVar[Mapping[str, tuple[str, ...]]]
    requires: ClassVar[Mapping[str, tuple[Requirement, ...]]]
    reads_with: ClassVar[tuple[Requirement, ...]]
    calibrated: ClassVar[frozenset[str]] = frozenset(row.name for row in PRECISIONS if row.needs_calibration)
    extra_precisions: ClassVar[tuple[Precision, ...]] = ()
    symbolic: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    describe_tells_precision: ClassVar[bool] = True
    selective: ClassVar[frozenset[str]] = frozenset()
    calibrations: ClassVar[tuple[Calibration, ...]] = ()
    forms: ClassVar[Mapping[str, SupportedForms]] = {}
    confined: ClassVar[bool] = True
    only_named: ClassVar[bool] = False
    on_request: ClassVar[frozenset[str]] = frozenset()
    transposes: ClassVar[tuple[str, ...]] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that at least one source kind converts to, in the order of the routes."""
        return tuple(dict.fromkeys(precision for route in self.routes.values() for precision in route))

    @property
    def default_precisions(self) -> tuple[str, ...]:
        """The precisions that are meant where the target is named without one, in the order of the routes."""
        return tuple(precision for precision in self.precisions if precision not in self.on_request)

    @property
    def file_name(self) -> str:
        """The name of the model file inside an artifact."""
        return f"model{self.suffixes[0]}"

    def programs(self) -> tuple[str, ...]:
        """Return the programs that a confined conversion may start, as absolute paths.

        Returns:
            By default none.
        """
        return ()

    def convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        """Write the model file into the folder of the request.

        Args:
            source: The loaded source model.
            job: The precision, the folder, calibration samples, options and recipe.

        Returns:
            The file's name and signature, and the options that were used.

        Raises:
            InputError: The source kind, the precision or the recipe is not supported, or calibration samples are
                missing.
            MissingDependency: A package that the route needs is not installed.
            StepFailed: The converter wrote no file, or one whose inputs or outputs differ from the source's.
        """
        if job.precision not in self.routes.get(source.kind, ()):
            raise InputError(f"{self.name} does not convert {source.kind} models to {job.precision}")
        require(self.requires[source.kind], f"{source.kind} -> {self.name}")
        if job.precision in self.calibrated and not job.calibration:
            raise InputError(f"{self.name}:{job.precision} needs calibration samples")
        self.check_form(job.precision, job.form)
        recipe = job.recipe if job.recipe is not None and job.recipe.selective else None
        converted = self._convert(source, job) if recipe is None else self._convert_by(recipe, source, job)
        self._ensure(source, [job.folder / file for file in converted.files], converted.signature)
        self._ensure_types(source, job.form, converted.signature)
        return converted

    def check_form(self, precision: str, form: QuantizationForm) -> None:
        """Check that files of a precision can have a form.

        Args:
            precision: The precision.
            form: The form.

        Raises:
            InputError: They cannot; the message says what is not supported.
        """
        resolved = form.resolved()
        if form.preset is not None and not find_preset(form.preset).runs(self.name, precision):
            listed = ", ".join(find_preset(form.preset).variants)
            raise InputError(f"{form.preset} does not run {self.name}:{precision}; it runs: {listed}")
        reason = self.forms.get(precision, SupportedForms()).unsupported(resolved)
        if reason is not None:
            raise InputError(f"{self.name}:{precision} {reason}")

    @abstractmethod
    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        """Convert a source to a uniform precision; source kind, precision, packages and samples have been checked.

        Args:
            source: The loaded source model.
            job: The precision, the folder, calibration samples and options.

        Returns:
            The names of the written files, the signature, and the options that were used.

        Raises:
            InputError: The model cannot be converted at this precision.
            StepFailed: The converter failed.
        """

    def _convert_by(self, recipe: Recipe, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        self._check_recipe(recipe)
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            base = self.float_base(source, replace(job, folder=Path(folder)))
            return self.select(base, source.signature, job)

    def _check_recipe(self, recipe: Recipe) -> None:
        if recipe.precision not in self.selective:
            takes = f"at {', '.join(sorted(self.selective))} only" if self.selective else "at no precision"
            raise InputError(f"{self.name}:{recipe.precision}: {self.name} keeps single layers in float {takes}")
        if recipe.calibration is not None and recipe.calibration not in self.calibrations:
            raise InputError(f"{self.name} takes ranges by {', '.join(self.calibrations)}, not by {recipe.calibration}")

    def float_base(self, source: LoadedSource, job: ConversionRequest) -> Path:
        """Write the float file that recipes start from into the folder of the request.

        Args:
            source: The loaded source model.
            job: The request; its precision is not used.

        Returns:
            The path of the float file.

        Raises:
            InputError: The target cannot keep single layers in float.
        """
        raise InputError(f"{self.name} keeps no single layers in float")

    def layers(self, base: Path) -> tuple[QuantizableLayer, ...]:
        """Return the operators of a float file that a recipe can name, in execution order.

        Args:
            base: A file that `float_base` wrote.

        Returns:
            One entry per operator.

        Raises:
            InputError: The target cannot keep single layers in float.
        """
        raise InputError(f"{self.name} keeps no single layers in float")

    def select(self, base: Path, signature: Signature, job: ConversionRequest) -> ConversionResult:
        """Write the model file that the recipe of the request describes.

        Args:
            base: A file that `float_base` wrote.
            signature: The signature of the source.
            job: The request, with a recipe.

        Returns:
            The file's name and signature, and the options that were used.

        Raises:
            InputError: The recipe names a layer that does not exist, or the target cannot keep single layers in float.
        """
        raise InputError(f"{self.name} keeps no single layers in float")

    def _ensure(self, source: LoadedSource, paths: Sequence[Path], signature: Signature) -> None:
        # Further files may be empty: a network without weights has no weights to keep beside the graph.
        if not all(path.is_file() for path in paths) or paths[0].stat().st_size == 0:
            raise StepFailed(f"the {self.name} converter wrote no file")
        for side in ("inputs", "outputs"):
            expected = [spec.name for spec in getattr(source.signature, side)]
            actual = [spec.name for spec in getattr(signature, side)]
            if expected != actual:
                raise StepFailed(f"the {self.name} file has the {side} {actual} where the source has {expected}")

    def _ensure_types(self, source: LoadedSource, form: QuantizationForm, signature: Signature) -> None:
        for side, wanted in (("inputs", form.inference_input_type), ("outputs", form.inference_output_type)):
            for before, after in zip(getattr(source.signature, side), getattr(signature, side), strict=True):
                if wanted is not None and before.dtype == "float32" and after.dtype != wanted:
                    raise StepFailed(f"the {self.name} file has {before.name} as {after.dtype} instead of {wanted}")

    def expose_intermediates(self, path: Path, folder: Path) -> Path:
        """Return a file whose runtime exposes every intermediate tensor.

        Args:
            path: The model file.
            folder: The folder for the new file.

        Returns:
            The new file, or `path` itself if the runtime exposes intermediate tensors of any file.
        """
        return path

    def tensor_lifetimes(self, path: Path) -> tuple[TensorLifetime, ...]:
        """Return the size and lifetime of each computed tensor, in execution order.

        Args:
            path: The model file.

        Returns:
            One entry per tensor; steps are indices of operators.

        Raises:
            InputError: Files of this format do not record tensor lifetimes.
        """
        raise InputError(f"{path}: {self.title} files do not record tensor lifetimes")

    @property
    def can_truncate(self) -> bool:
        """Whether files of this format can be truncated after an operator."""
        return type(self).truncate_after is not Target.truncate_after

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """Return the operators after which the file can be truncated, in execution order.

        Args:
            path: The model file.

        Returns:
            One entry per operator; `truncate_after` takes their indices.

        Raises:
            InputError: Files of this format cannot be truncated.
        """
        raise InputError(f"{path}: {self.title} files cannot be truncated after an operator")

    def truncate_after(self, path: Path, after: Sequence[int], folder: Path) -> tuple[Path, ...]:
        """Write one truncated file per operator; its inputs are the inputs of the whole model.

        Args:
            path: The model file.
            after: Indices into `operators(path)`; each file ends after one of them.
            folder: The folder for the new files.

        Returns:
            The paths of the files, in the order of `after`.

        Raises:
            InputError: Files of this format cannot be truncated.
        """
        raise InputError(f"{path}: {self.title} files cannot be truncated after an operator")

    @abstractmethod
    def describe(self, path: Path) -> ModelDescription:
        """Read the signature, operators, weights and multiply-accumulates of a file without running it.

        Args:
            path: The model file.

        Returns:
            The description of the file.

        Raises:
            InputError: The file is empty, truncated or of another format.
        """


def named_layers(layers: Iterable[QuantizableLayer], names: Iterable[str]) -> list[QuantizableLayer]:
    """Return the layers with the given names, in the order of `layers`.

    Args:
        layers: The layers of a model.
        names: The names to select.

    Returns:
        The selected layers.

    Raises:
        InputError: A name belongs to none of the layers.
    """
    layers_by_name = {layer.name: layer for layer in layers}
    selected = set(names)
    for name in sorted(selected - set(layers_by_name)):
        near = difflib.get_close_matches(name, layers_by_name, 3, 0.0)
        raise InputError(f"the recipe names a layer '{name}' that this model does not have; near: {', '.join(near)}")
    return [layer for name, layer in layers_by_name.items() if name in selected]


def malformed_file_error(path: Path, format_name: str, reason: str = "") -> InputError:
    """Return the error for a file that is damaged or of another format than its name says.

    Args:
        path: The model file.
        format_name: The name of the expected format.
        reason: Details for the message.

    Returns:
        The error to raise.
    """
    return InputError(
        f"{path}: this is not a model in the format {format_name}, or it is damaged"
        + (f" ({reason})" if reason else "")
    )


def _register_precisions(target: Target) -> None:
    """Add the target's own precisions to the table."""
    owner = f"the target '{target.name}'"
    for precision in target.extra_precisions:
        if precision.needs_calibration and precision.name not in target.calibrated:
            raise InputError(
                f"{owner} defines the precision '{precision.name}' with integer activations, which need real inputs;"
                " add it to `calibrated`"
            )
        register_precision(precision, owner)


TARGETS: PluginKind[Target] = PluginKind(
    "edgekit.targets",
    "TARGET",
    Target,  # type: ignore[type-abstract]
    on_load=_register_precisions,
)


def _load_third_party_targets() -> None:
    """Load the targets of other packages, so that they register their precisions."""
    for name in TARGETS.third_party_names():
        with contextlib.suppress(InputError):  # `edgekit doctor` reports a target that cannot be loaded
            TARGETS.load(name)


# The table of precisions belongs to the core, which does not import targets.
add_precision_provider(_load_third_party_targets)

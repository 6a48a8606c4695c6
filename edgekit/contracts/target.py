"""The contract of a target: requires -> convert -> ensures. The base checks, the subclass converts."""

from __future__ import annotations

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
from edgekit.core.values.quantization_recipe import Calibration, Recipe
from edgekit.core.values.specs import ModelDescription, Signature


@dataclass(frozen=True)
class ConversionRequest:
    """What a conversion is asked for. `calibration` holds real inputs by name, shape (N, ...), where needed.

    `options` are the target's own, by the names that its `options` list; what is not there is the target's choice.
    `recipe` says what is made otherwise than the precision says; `known` is a folder where ranges that were taken from
    the calibration samples may stay for the next conversion of the same source.
    """

    precision: str
    folder: Path
    calibration: Mapping[str, Array] | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None
    known: Path | None = None


@dataclass(frozen=True)
class QuantizableLayer:
    """An operator of a float file that can be kept in float by name. `title` is for people.

    `inputs` and `outputs` are the tensors between operators, `weights` how many numbers it has learned. `int16` says
    whether it can have int16 activations.
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
    """What a conversion made: the file, its signature, the options that were used, and what a reader should know."""

    file: str
    signature: Signature
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    not_reproducible_because: str | None = None
    transposes: int | None = None
    """Operators that only move data, where `describe` cannot see them."""


class Target(ABC):
    """A deployable format.

    `routes` says which source kinds it converts directly, and to which precisions; `calibrated` are the precisions that
    need real inputs; `runtime` is what runs its files on this host, `suffixes` is how its files end, its own first.
    `symbolic` says that its files keep symbolic dimensions; a source is handed to the others with fixed ones. `options`
    are the numbers that a user can choose.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    runtime: ClassVar[str]
    routes: ClassVar[Mapping[str, tuple[str, ...]]]
    requires: ClassVar[Mapping[str, tuple[Requirement, ...]]]
    reads_with: ClassVar[tuple[Requirement, ...]]
    calibrated: ClassVar[frozenset[str]] = frozenset({"int8", "int16x8"})
    symbolic: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    describe_tells_precision: ClassVar[bool] = True
    """Whether `describe` sees the weights' types: not where a delegate hides them."""
    selective: ClassVar[frozenset[str]] = frozenset()
    """The precisions at which it keeps single layers in float."""
    calibrations: ClassVar[tuple[Calibration, ...]] = ()
    """How it can take ranges at those, the usual way first."""
    transposes: ClassVar[tuple[str, ...]] = ()
    """What operators are called in `describe` that only move data from one order of dimensions to another."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Every precision that some source reaches, in the order of the first route."""
        return tuple(dict.fromkeys(precision for route in self.routes.values() for precision in route))

    @property
    def file_name(self) -> str:
        """The name of the model file in an artifact."""
        return f"model{self.suffixes[0]}"

    def convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        """Writes the model file into the job's folder.

        Raises InputError for a source kind or precision that it does not take, MissingDependency, and StepFailed when
        the converter wrote nothing, or a file with other inputs and outputs than the source has.
        """
        if job.precision not in self.routes.get(source.kind, ()):
            raise InputError(f"{self.name} does not take {source.kind} to {job.precision}")
        require(self.requires[source.kind], f"{source.kind} -> {self.name}")
        if job.precision in self.calibrated and not job.calibration:
            raise InputError(f"{self.name}:{job.precision} needs calibration samples")
        recipe = job.recipe if job.recipe is not None and job.recipe.selective else None
        converted = self._convert(source, job) if recipe is None else self._convert_by(recipe, source, job)
        self._ensure(source, job.folder / converted.file, converted.signature)
        return converted

    @abstractmethod
    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        """The conversion itself."""

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
        """Writes the float file that recipes start from into the job's folder."""
        raise InputError(f"{self.name} keeps no single layers in float")

    def layers(self, base: Path) -> tuple[QuantizableLayer, ...]:
        """The operators of a float file that a recipe can name, in the order of computation."""
        raise InputError(f"{self.name} keeps no single layers in float")

    def select(self, base: Path, signature: Signature, job: ConversionRequest) -> ConversionResult:
        """Writes the model file into the job's folder, from the float file, by the job's recipe.

        `signature` is the source's. Raises InputError when the recipe names a layer that is not there.
        """
        raise InputError(f"{self.name} keeps no single layers in float")

    def _ensure(self, source: LoadedSource, path: Path, signature: Signature) -> None:
        if not path.is_file() or path.stat().st_size == 0:
            raise StepFailed(f"the {self.name} converter wrote no file")
        for what in ("inputs", "outputs"):
            wanted = [spec.name for spec in getattr(source.signature, what)]
            got = [spec.name for spec in getattr(signature, what)]
            if wanted != got:
                raise StepFailed(f"the {self.name} file has the {what} {got} where the source has {wanted}")

    def expose_intermediates(self, path: Path, folder: Path) -> Path:
        """A file like this one whose runtime shows its inner tensors: itself, where the runtime does so anyway."""
        return path

    def tensor_lifetimes(self, path: Path) -> tuple[TensorLifetime, ...]:
        """Each computed tensor's size and life, in the order of computation. Raises InputError where it is not told."""
        raise InputError(f"{path}: {self.title} files do not tell how long their tensors live")

    @property
    def can_truncate(self) -> bool:
        """Whether its files can be cut off after an operator."""
        return type(self).truncate_after is not Target.truncate_after

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """The operators after which the file can be cut off, in the order of computation."""
        raise InputError(f"{path}: {self.title} files are not cut off after an operator")

    def truncate_after(self, path: Path, after: Sequence[int], folder: Path) -> tuple[Path, ...]:
        """Files in the folder that end after these operators (from 0), with the same inputs."""
        raise InputError(f"{path}: {self.title} files are not cut off after an operator")

    @abstractmethod
    def describe(self, path: Path) -> ModelDescription:
        """What is in a file of this format. Raises InputError when it is empty, truncated or something else."""


def named_layers(layers: Iterable[QuantizableLayer], names: Iterable[str]) -> list[QuantizableLayer]:
    """The layers of these names, in the order of computation. Raises InputError for a name that is none of theirs."""
    known = {layer.name: layer for layer in layers}
    wanted = set(names)
    for name in sorted(wanted - set(known)):
        near = difflib.get_close_matches(name, known, 3, 0.0)
        raise InputError(f"the recipe names a layer '{name}' that this model does not have; near: {', '.join(near)}")
    return [layer for name, layer in known.items() if name in wanted]


def malformed_file_error(path: Path, format_name: str, reason: str = "") -> InputError:
    """The error for a file that is not what its name promises."""
    return InputError(
        f"{path}: this is not a model in the format {format_name}, or it is damaged"
        + (f" ({reason})" if reason else "")
    )


TARGETS: PluginKind[Target] = PluginKind("edgekit.targets", "TARGET", Target)  # type: ignore[type-abstract]

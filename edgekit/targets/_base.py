"""The contract of a target: requires -> convert -> ensures. The base checks, the subclass converts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgekit.core.arena import Life
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.metrics import Array
from edgekit.core.requirements import Requirement, require
from edgekit.core.source import LoadedSource
from edgekit.core.specs import ModelDescription, Signature


@dataclass(frozen=True)
class Conversion:
    """What a conversion is asked for. `calibration` holds real inputs by name, shape (N, ...), where needed.

    `options` are the target's own, by the names that its `options` list; what is not there is the target's choice.
    """

    precision: str
    folder: Path
    calibration: Mapping[str, Array] | None = None
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Converted:
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

    def convert(self, source: LoadedSource, job: Conversion) -> Converted:
        """Writes the model file into the job's folder.

        Raises InputError for a source kind or precision that it does not take, MissingDependency, and StepFailed when
        the converter wrote nothing, or a file with other inputs and outputs than the source has.
        """
        if job.precision not in self.routes.get(source.kind, ()):
            raise InputError(f"{self.name} does not take {source.kind} to {job.precision}")
        require(self.requires[source.kind], f"{source.kind} -> {self.name}")
        if job.precision in self.calibrated and not job.calibration:
            raise InputError(f"{self.name}:{job.precision} needs calibration samples")
        converted = self._convert(source, job)
        self._ensure(source, job.folder / converted.file, converted.signature)
        return converted

    @abstractmethod
    def _convert(self, source: LoadedSource, job: Conversion) -> Converted:
        """The conversion itself."""

    def _ensure(self, source: LoadedSource, path: Path, signature: Signature) -> None:
        if not path.is_file() or path.stat().st_size == 0:
            raise StepFailed(f"the {self.name} converter wrote no file")
        for what in ("inputs", "outputs"):
            wanted = [spec.name for spec in getattr(source.signature, what)]
            got = [spec.name for spec in getattr(signature, what)]
            if wanted != got:
                raise StepFailed(f"the {self.name} file has the {what} {got} where the source has {wanted}")

    def exposed(self, path: Path, folder: Path) -> Path:
        """A file like this one whose runtime shows its inner tensors: itself, where the runtime does so anyway."""
        return path

    def lives(self, path: Path) -> tuple[Life, ...]:
        """Each computed tensor's size and life, in the order of computation. Raises InputError where it is not told."""
        raise InputError(f"{path}: {self.title} files do not tell how long their tensors live")

    @abstractmethod
    def describe(self, path: Path) -> ModelDescription:
        """What is in a file of this format. Raises InputError when it is empty, truncated or something else."""


def refuse(path: Path, format_name: str, reason: str = "") -> InputError:
    """The error for a file that is not what its name promises."""
    return InputError(
        f"{path}: this is not a model in the format {format_name}, or it is damaged"
        + (f" ({reason})" if reason else "")
    )

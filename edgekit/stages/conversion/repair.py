"""The choice of how a quantized file is made: as the target does by default, or with what makes it more accurate.

Candidates are converted one after the other and run on samples that none of them was calibrated with. Each step is kept
where it gains something there: channels whose ranges were evened out in the float network, which computes the same
before and after, then other ranges of activations.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import LoadedModel
from edgekit.contracts.target import ConversionRequest, ConversionResult, Target
from edgekit.core.errors import EdgekitError
from edgekit.core.numerics.applicable_tolerances import tolerances_for_precision
from edgekit.core.numerics.metrics import Array, sqnr_db
from edgekit.core.numerics.output_comparison import compare_outputs
from edgekit.core.values.quantization_recipe import EVEN_MIGRATION, Calibration, Recipe

_log = logging.getLogger(__name__)

# A file with this SQNR is not improved: an error of a fiftieth of the signal, which no task metric shows.
GOOD_ENOUGH_DB = 35.0
# What a step has to gain to be kept; less is within the differences between sets of samples.
_MIN_GAIN_DB = 1.0
# Ranges to try beside the target's default. Percentiles and entropy clip outliers, which `edgekit tune` tries.
_RANGES: tuple[Calibration, ...] = ("moving-average",)
# How far ranges move into weights: even shares, and more of them, for activations that dominate the error.
MIGRATIONS = (EVEN_MIGRATION, 0.75)


@dataclass(frozen=True)
class SelectionSamples:
    """The samples that ways to quantize are compared on.

    Attributes:
        inputs: Arrays of shape (N, ...) by input name.
        measured: Other samples, which ranges of channels are measured with.
        calibration: The calibration samples of candidates, if they are not those of the final file: where there are few
            samples, candidates are calibrated without those that they are compared on, and the final file with all.
    """

    inputs: Mapping[str, Array]
    measured: Mapping[str, Array]
    calibration: Mapping[str, Array] | None = None


@dataclass(frozen=True)
class _Candidate:
    """A converted file.

    Attributes:
        sqnr_db: The SQNR of its worst output; minus infinity where it cannot be run.
        converted: The result of the conversion.
        folder: The folder of its files.
        source: The source that it was converted from.
        ranges: How ranges were taken; None for the target's default.
        migration: How far ranges of channels were moved into weights; None for an unchanged network.
    """

    sqnr_db: float
    converted: ConversionResult
    folder: Path
    source: LoadedModel
    ranges: Calibration | None = None
    migration: float | None = None


def _folder_name(ranges: Calibration | None, migration: float | None) -> str:
    """Return the name of a candidate's folder, which says how it is made."""
    return "-".join(["candidate", *(str(value) for value in (ranges, migration) if value is not None)])


@dataclass
class _Comparison:
    """The conversions of one source to one variant.

    Attributes:
        target: The target.
        source: The source as it was loaded.
        fixed: The source with the dimensions that the target supports.
        job: The conversion.
        selection: The samples that candidates are compared on.
        expected: The float source's outputs for them.
    """

    target: Target
    source: LoadedModel
    fixed: LoadedModel
    job: ConversionRequest
    selection: SelectionSamples
    expected: Mapping[str, Array]

    def plain(self) -> _Candidate:
        return self._convert(self.job, "plain", self.fixed)

    def best(self, plain: _Candidate) -> _Candidate:
        """Return the best candidate, each step on top of those that gained something."""
        best = plain
        for migration in MIGRATIONS:
            equalized = None if best.sqnr_db >= GOOD_ENOUGH_DB else self._equalized(migration)
            if equalized is None:
                break
            best = self._better(best, equalized, migration=migration)
        for ranges in self._other_ranges():
            best = self._better(best, best.source, ranges=ranges, migration=best.migration)
        return best

    def final(self, best: _Candidate) -> ConversionResult:
        """Convert the best candidate with all calibration samples, if it was made with fewer."""
        if self.selection.calibration is None:
            return best.converted
        shutil.rmtree(best.folder)
        return self._convert(self._request(best.ranges, self.job), best.folder.name, best.source).converted

    def _other_ranges(self) -> tuple[Calibration, ...]:
        selective = self.job.precision in self.target.selective and self.job.precision in self.target.calibrated
        return tuple(ranges for ranges in _RANGES if selective and ranges in self.target.calibrations)

    def _request(self, ranges: Calibration | None, job: ConversionRequest) -> ConversionRequest:
        if ranges is None:
            return job
        return replace(job, recipe=Recipe(self.target.name, job.precision, calibration=ranges))

    def _better(
        self, best: _Candidate, source: LoadedModel, ranges: Calibration | None = None, migration: float | None = None
    ) -> _Candidate:
        """Convert another candidate; return it if it gains something, and the best one so far otherwise."""
        if best.sqnr_db >= GOOD_ENOUGH_DB:
            return best
        name = _folder_name(ranges, migration)
        fewer = self.selection.calibration
        job = self.job if fewer is None else replace(self.job, calibration=fewer)
        try:
            other = self._convert(self._request(ranges, job), name, source)
        except (EdgekitError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # The plain file is there; a network that only it can be made of is no error.
            _log.info("%s:%s, %s failed: %s", self.target.name, self.job.precision, name, error)
            return best
        _log.info("%s:%s, %s: %.1f dB", self.target.name, self.job.precision, name, other.sqnr_db)
        better = math.isfinite(other.sqnr_db) and other.sqnr_db >= best.sqnr_db + _MIN_GAIN_DB
        return replace(other, ranges=ranges, migration=migration) if better else best

    def _convert(self, job: ConversionRequest, name: str, source: LoadedModel) -> _Candidate:
        folder = self.job.folder / name
        folder.mkdir()
        converted = self.target.convert(source, replace(job, folder=folder))
        return _Candidate(self._sqnr_db(folder / converted.file, converted), converted, folder, source)

    def _sqnr_db(self, path: Path, converted: ConversionResult) -> float:
        """Return the SQNR of the worst output in dB."""
        try:
            session = RUNTIMES.load(self.target.runtime).open(path, threads=1, signature=converted.signature)
            outputs = session.infer(self.selection.inputs)
        except (EdgekitError, RuntimeError, ValueError) as error:  # validation reports what is wrong with the file
            _log.info("%s cannot be run: %s", path.name, error)
            return -math.inf
        values = []
        for name, expected in self.expected.items():
            actual = outputs.get(name)
            if actual is None or actual.shape != expected.shape or not np.isfinite(actual.astype(np.float64)).all():
                return -math.inf
            values.append(sqnr_db(expected, actual))
        return min(values)

    def _equalized(self, migration: float) -> LoadedModel | None:
        """Return the source with evened ranges, if there are any and its outputs stay within float32's tolerance."""
        equalized = self.source.equalized(self.selection.measured, migration)
        if equalized is None:
            return None
        limits = dict.fromkeys(self.expected, replace(tolerances_for_precision("float32"), min_top1_agreement=None))
        compared = compare_outputs(self.expected, equalized.run(self.selection.inputs), limits, classifier=False)
        failures = [failure for comparison in compared if comparison.evidence for failure in comparison.failures]
        if failures:
            _log.warning("the float network changed when its channels were scaled: %s", "; ".join(failures))
            return None
        return equalized.at(self.fixed.signature, self.fixed.sizes)


def convert_best(
    target: Target, source: LoadedModel, fixed: LoadedModel, job: ConversionRequest, selection: SelectionSamples
) -> ConversionResult:
    """Convert a source in several ways and keep the file that is closest to it on samples of their own.

    Args:
        target: The target.
        source: The source as it was loaded.
        fixed: The source with the dimensions that the target supports.
        job: The conversion, with calibration samples where the precision needs them, and without a recipe.
        selection: The samples that candidates are compared on.

    Returns:
        The result whose files are in the folder of the request. Its notes say what was chosen.

    Raises:
        InputError: The model cannot be converted at this precision.
        StepFailed: The conversion failed.
    """
    if not all(requirement.installed() for requirement in RUNTIMES.load(target.runtime).requires):
        return target.convert(fixed, job)
    comparison = _Comparison(target, source, fixed, job, selection, source.run(selection.inputs))
    plain = comparison.plain()
    best = comparison.best(plain)
    converted = plain.converted if best is plain else _described(comparison.final(best), best, plain)
    for file in converted.files:
        destination = job.folder / file
        destination.parent.mkdir(parents=True, exist_ok=True)
        (best.folder / file).replace(destination)
    for leftover in list(job.folder.iterdir()):
        if leftover.name == "plain" or leftover.name.startswith("candidate"):
            shutil.rmtree(leftover)
    return converted


def _described(converted: ConversionResult, best: _Candidate, plain: _Candidate) -> ConversionResult:
    """Return the result with an option and a note that say what was chosen and what it gains."""
    ranges = () if best.ranges is None else (f"ranges by {best.ranges.replace('-', ' ')}",)
    channels = () if best.migration is None else ("channels scaled in the float network, which computes the same",)
    gain = f"{best.sqnr_db:.1f} dB on samples of their own, {plain.sqnr_db:.1f} dB without"
    chosen = {"ranges": best.ranges, "migration": best.migration}
    repair = {key: value for key, value in chosen.items() if value is not None}
    note = f"{' and '.join((*ranges, *channels))}: {gain}"
    return replace(converted, options={**converted.options, "repair": repair}, notes=(*converted.notes, note))

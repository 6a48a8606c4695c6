"""What an export records of an artifact in its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.contracts.target import Target
from edgekit.core.environment.atomic_files import size_of
from edgekit.core.records import samples
from edgekit.core.records.artifact import (
    Manifest,
    describe_files,
    files_sha256,
)
from edgekit.core.records.source import SourceModel
from edgekit.core.values.file_names import GOLDEN_FILE
from edgekit.core.values.specs import Route
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.convert_job import ConvertAnswer
from edgekit.stages.conversion.export_plans import (
    ExportPlan,
    ExportSettings,
)


def samples_record(part: samples.Samples, *, synthetic: bool) -> dict[str, Any]:
    """Return what a manifest says of calibration or golden samples.

    Args:
        part: The samples.
        synthetic: Whether they were synthesized from the network.
    """
    return {"samples": part.count, "sha256": part.digest(), **({"synthetic": True} if synthetic else {})}


def manifest_of(
    export_plan: ExportPlan,
    route: Route,
    source: SourceModel,
    source_folder: Path,
    answer: ConvertAnswer,
    folder: Path,
    calibration_record: Mapping[str, Any] | None,
    settings: ExportSettings,
    notes: Sequence[str],
) -> Manifest:
    """Return the manifest of an artifact.

    Args:
        export_plan: The export.
        route: The route that was used.
        source: The source at the start of the route.
        source_folder: The model's source folder.
        answer: What the conversion answered.
        folder: The folder with the model files and the golden samples.
        calibration_record: What is recorded of the calibration samples; None without them.
        settings: The settings of the export.
        notes: Notes on the way to the artifact.
    """
    converted = answer.converted
    files = describe_files(folder, converted.files)
    golden = samples.load(folder / GOLDEN_FILE, "golden samples")
    return Manifest(
        model=export_plan.model,
        target=export_plan.variant.target,
        precision=export_plan.variant.precision,
        runtime=routes.load_target(export_plan.variant.target).runtime,
        file=converted.file,
        sha256=files_sha256(files),
        size_bytes=sum(file.size for file in files),
        signature=converted.signature,
        source=_source_record(source, source_folder),
        route=route.steps,
        options={**converted.options, **_setting_options(export_plan, settings, answer)},
        calibration=calibration_record,
        golden=samples_record(golden, synthetic=source.has_synthetic_golden),
        versions=answer.versions,
        notes=(*source.notes, *notes, *_layout_note(settings, answer), *converted.notes, *answer.findings),
        reproducible=converted.not_reproducible_because is None,
        not_reproducible_because=converted.not_reproducible_because,
        files=files,
    )


def requested_options(target: Target, settings: ExportSettings) -> dict[str, int]:
    """Return the user's values of the target's own options."""
    return {name: value for name, value in settings.options.items() if name in target.options}


def _setting_options(export_plan: ExportPlan, settings: ExportSettings, answer: ConvertAnswer) -> dict[str, Any]:
    """Return the user's settings as they are recorded in the manifest's options."""
    options: dict[str, Any] = {}
    # Targets record the values of the file, which may be defaults; these have to be passed to export it again.
    requested = requested_options(routes.load_target(export_plan.variant.target), settings)
    if requested:
        options["requested"] = requested
    if settings.sizes:
        options["dims"] = dict(settings.sizes)
    if settings.layout is not None:
        options |= {"layout": settings.layout, "transposes": answer.transposes}
    if settings.recipe is not None:
        options["recipe"] = settings.recipe.to_dict()
    if settings.form:
        options["form"] = settings.form.to_dict()
    return options


def _layout_note(settings: ExportSettings, answer: ConvertAnswer) -> tuple[str, ...]:
    if settings.layout is None:
        return ()
    added = answer.transposes - answer.transposes_unmoved
    return (
        f"layout {settings.layout}: {answer.transposes} transposes in the file, {added:+d} against the source's layout",
    )


def _source_record(source: SourceModel, folder: Path) -> dict[str, Any]:
    return {
        "notes": list(source.notes),
        "size_bytes": size_of(folder / source.file),
        "kind": source.kind,
        "sha256": source.sha256,
        "weights_sha256": source.training.get("weights_sha256"),
        "code_sha256": source.code_sha256,
        "task": source.task,
        "metric": source.metric,
        "metric_value": source.metric_value,
        "parameters": source.parameters,
        "data_sha256": source.data.get("sha256"),
        "split": source.data.get("split"),
        **({"state": list(source.state)} if source.state else {}),
        **({"one_by_one": True} if source.one_by_one else {}),
        "rounding": {name: asdict(rounding) for name, rounding in source.rounding.items()},
    }

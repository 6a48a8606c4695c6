"""The matrix: every source of a model to every variant, each cell exported, validated, or impossible for a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.records.artifact import Artifact
from edgekit.core.records.validation import Validation
from edgekit.core.values.specs import Variant
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, routes
from edgekit.stages.models.model_refs import ModelSelection
from edgekit.stages.validation.validate import validate


@dataclass(frozen=True)
class Cell:
    """One source to one variant. `state` is equal, unequal, failed (a step did not finish) or impossible.

    `detail` says why where it is not equal; the figures are None where there is no artifact.
    """

    model: str
    kind: str
    variant: Variant
    state: str
    route: tuple[str, ...] = ()
    size_bytes: int | None = None
    max_abs_error: float | None = None
    detail: str = ""


def _impossible(subjects: Sequence[ModelSelection]) -> list[Cell]:
    edges = routes.edges()
    return [
        Cell(model, kind, Variant(target.name, precision), "impossible", detail=reason)
        for group in subjects
        for model in group.models
        for kind in group.kinds
        for target in routes.targets().values()
        for precision in target.precisions
        if (reason := routes.why_unreachable(kind, target, precision, edges))
    ]


def _cell(item: export.ExportPlan, artifact: Artifact | None, validation: Validation | None, failure: str) -> Cell:
    if artifact is None or validation is None:
        return Cell(item.model, item.kind, item.variant, "failed", detail=failure)
    return Cell(
        item.model,
        item.kind,
        item.variant,
        "equal" if validation.passed else "unequal",
        artifact.manifest.route,
        artifact.manifest.size_bytes,
        validation.worst("max_abs_error"),
        "; ".join(validation.failures),
    )


def matrix(context: Context, subjects: Sequence[ModelSelection], settings: export.ExportSettings) -> tuple[Cell, ...]:
    """Exports and validates everything, training what is missing; a cell for each source and variant."""
    chosen = routes.parse_selection((), None)
    plans = [item for group in subjects for item in export.plan(group, chosen, targets_named=False)]
    artifacts = export.export(context, plans, settings)
    validations = validate(context, artifacts)
    by_key = {_key(artifact): artifact for artifact in artifacts}
    judged = {(item.model, item.kind, item.variant): item for item in validations}
    reasons = {error.step: str(error) for error in context.failures if hasattr(error, "step")}
    cells = []
    for item in plans:
        key = (item.model, item.kind, item.variant)
        steps = (item.step, item.step.replace("export", "validate", 1))
        failure = next((reasons[step] for step in steps if step in reasons), "a step before it failed")
        cells.append(_cell(item, by_key.get(key), judged.get(key), failure))
    models = dict.fromkeys(name for group in subjects for name in group.models)
    order = {name: index for index, name in enumerate(models)}
    return tuple(
        sorted([*cells, *_impossible(subjects)], key=lambda cell: (order[cell.model], str(cell.variant), cell.kind))
    )


def _key(artifact: Artifact) -> tuple[str, str, Variant]:
    return artifact.manifest.model, artifact.manifest.source["kind"], artifact.manifest.variant

"""The matrix stage: exports every source of a model to every variant and validates the artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.records.artifact import Artifact
from edgekit.core.records.validation import Validation
from edgekit.core.values.specs import Variant
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, export_plans, routes
from edgekit.stages.conversion.export_plans import ExportPlan, ExportSettings
from edgekit.stages.models.model_refs import ModelSelection
from edgekit.stages.validation.validate import validate


@dataclass(frozen=True)
class Cell:
    """The result for one source and one variant.

    Attributes:
        model: Name of the model.
        kind: The source kind.
        variant: The variant.
        state: `equal`, `unequal`, `failed` (a step did not finish) or `impossible` (there is no route).
        route: The route that was used.
        size_bytes: Size of the artifact in bytes, or None without an artifact.
        max_abs_error: Largest absolute error of an output, or None without a validation.
        detail: The reason for any state other than `equal`.
    """

    model: str
    kind: str
    variant: Variant
    state: str
    route: tuple[str, ...] = ()
    size_bytes: int | None = None
    max_abs_error: float | None = None
    detail: str = ""


def _impossible_cells(selections: Sequence[ModelSelection]) -> list[Cell]:
    edges = routes.edges()
    return [
        Cell(model, kind, Variant(target.name, precision), "impossible", detail=reason)
        for selection in selections
        for model in selection.models
        for kind in selection.kinds
        for target in routes.default_targets()
        for precision in target.default_precisions
        if (reason := routes.why_unreachable(kind, target, precision, edges))
    ]


def _cell(plan: ExportPlan, artifact: Artifact | None, validation: Validation | None, failure: str) -> Cell:
    if artifact is None or validation is None:
        return Cell(plan.model, plan.kind, plan.variant, "failed", detail=failure)
    return Cell(
        plan.model,
        plan.kind,
        plan.variant,
        "equal" if validation.passed else "unequal",
        artifact.manifest.route,
        artifact.manifest.size_bytes,
        validation.worst("max_abs_error"),
        "; ".join(validation.failures),
    )


def matrix(context: Context, selections: Sequence[ModelSelection], settings: ExportSettings) -> tuple[Cell, ...]:
    """Export models to every variant and validate the artifacts; missing sources are trained first.

    Args:
        context: The project and the workers; errors are added to its failures.
        selections: The models and their source kinds.
        settings: The settings of the exports.

    Returns:
        A cell for each source and variant, ordered by model, variant and source kind.

    Raises:
        InputError: The model.toml of a missing source is invalid.
    """
    targets = routes.parse_selection((), None)
    plans = [plan for selection in selections for plan in export_plans.plan(selection, targets, targets_named=False)]
    artifacts = {_key(artifact): artifact for artifact in export.export(context, plans, settings)}
    validations = {
        (validation.model, validation.kind, validation.variant): validation
        for validation in validate(context, tuple(artifacts.values()))
    }
    reasons = {error.step: str(error) for error in context.failures if hasattr(error, "step")}
    cells = []
    for plan in plans:
        key = (plan.model, plan.kind, plan.variant)
        steps = (plan.step, plan.step.replace("export", "validate", 1))
        failure = next((reasons[step] for step in steps if step in reasons), "an earlier step failed")
        cells.append(_cell(plan, artifacts.get(key), validations.get(key), failure))
    models = dict.fromkeys(name for selection in selections for name in selection.models)
    order = {name: index for index, name in enumerate(models)}
    cells += _impossible_cells(selections)
    return tuple(sorted(cells, key=lambda cell: (order[cell.model], str(cell.variant), cell.kind)))


def _key(artifact: Artifact) -> tuple[str, str, Variant]:
    return artifact.manifest.model, artifact.manifest.source["kind"], artifact.manifest.variant

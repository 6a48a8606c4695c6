"""What an export converts: the variants that were selected, the routes to them, and the settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgekit.contracts.target import Target
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.records.source import SourceModel
from edgekit.core.values.file_names import CALIBRATION_FILE
from edgekit.core.values.quantization_form import USUAL_FORM, QuantizationForm
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Route, Variant
from edgekit.stages.context import Context
from edgekit.stages.conversion import routes
from edgekit.stages.models.model_refs import ModelSelection
from edgekit.stages.models.train import TrainOptions, train


@dataclass(frozen=True)
class ExportSettings:
    """Settings of a conversion.

    Attributes:
        calibration_samples: Number of calibration samples; None for 200, or all of them if there are fewer.
        sizes: Sizes of symbolic dimensions that become fixed, by name.
        layout: Layout of images in the artifact, `NCHW` or `NHWC`; None keeps that of the source.
        options: Values of the targets' own options, by name.
        recipe: The recipe of plans from `with_recipe`.
        repair: Whether quantized files are made in the way that is most accurate on samples of their own; otherwise in
            the target's default way.
        form: The form of the files, beside their precision.
    """

    calibration_samples: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    layout: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe | None = None
    repair: bool = True
    form: QuantizationForm = USUAL_FORM


@dataclass(frozen=True)
class ExportPlan:
    """One export.

    Attributes:
        model: Name of the model.
        kind: The source kind.
        variant: The variant.
        routes: The routes to try, in order; the first one that works is used.
    """

    model: str
    kind: str
    variant: Variant
    routes: tuple[Route, ...]

    @property
    def step(self) -> str:
        """The step's name, such as `export simple_cnn/keras tflite:int8`."""
        return f"export {self.model}/{self.kind} {self.variant}"


def plan(
    selected: ModelSelection, selection: Sequence[tuple[Target, str | None]], *, targets_named: bool
) -> tuple[ExportPlan, ...]:
    """Plan the exports of models to targets.

    Args:
        selected: The models and their source kinds.
        selection: The targets, each with a precision or None for all.
        targets_named: Whether the user named the targets.

    Returns:
        The exports, ordered by source kind, bridge and model.

    Raises:
        InputError: No route leads to a target that the user named.
    """
    models, kinds = selected.models, selected.kinds
    variants = routes.select_variants(kinds, selection, kinds_named=selected.kinds_named, targets_named=targets_named)
    plans = [
        ExportPlan(model, kind, variant, variant_routes)
        for model in models
        for kind, variant, variant_routes in variants
    ]

    # Exports of one source kind follow each other, so that a worker keeps its framework and its loaded model.
    def order(export_plan: ExportPlan) -> tuple[int, tuple[tuple[str, str], ...], int]:
        return kinds.index(export_plan.kind), export_plan.routes[0].bridges, models.index(export_plan.model)

    return tuple(sorted(plans, key=order))


def feasible_plans(
    context: Context, plans: Sequence[ExportPlan], settings: ExportSettings, *, targets_named: bool
) -> tuple[ExportPlan, ...]:
    """Return the plans that can be executed with these settings.

    Args:
        context: The project; receives an event for the variants that are skipped.
        plans: The exports.
        settings: The settings.
        targets_named: Whether the user named the targets. Variants that were not named and need calibration samples
            that a model does not have are skipped.

    Raises:
        InputError: No target among the plans has an option, or a model lacks a dimension of `settings.sizes`.
    """
    for model, kind in dict.fromkeys((export_plan.model, export_plan.kind) for export_plan in plans):
        if settings.sizes and context.project.is_trained(model, kind):
            check_sizes(context.load_source(context.project.source_folder(model, kind)), settings.sizes)
    supported = {name for export_plan in plans for name in routes.load_target(export_plan.variant.target).options}
    for name in settings.options:
        if name not in supported:
            raise InputError(f"none of the selected targets has the option {name}", parameters=(name,))
    if targets_named:
        return tuple(plans)
    feasible = [export_plan for export_plan in plans if not _lacks_calibration(context, export_plan)]
    for model, kind in dict.fromkeys(
        (export_plan.model, export_plan.kind) for export_plan in plans if export_plan not in feasible
    ):
        skipped = ", ".join(
            str(export_plan.variant)
            for export_plan in plans
            if export_plan not in feasible and export_plan.model == model
        )
        detail = f"skipped {skipped}: no calibration samples"
        context.emit(NoteEvent(f"export {model}/{kind}", detail, warning=True, parameters=("calibration", "sample")))
    return tuple(feasible)


def _lacks_calibration(context: Context, export_plan: ExportPlan) -> bool:
    """Return whether the variant needs calibration samples and its source exists without any."""
    calibrated = export_plan.variant.precision in routes.load_target(export_plan.variant.target).calibrated
    source_exists = context.project.is_trained(export_plan.model, export_plan.kind)
    folder = context.project.source_folder(export_plan.model, export_plan.kind)
    return calibrated and source_exists and not (folder / CALIBRATION_FILE).is_file()


def train_missing(context: Context, plans: Sequence[ExportPlan]) -> tuple[ExportPlan, ...]:
    """Train each missing source.

    Args:
        context: The project and the workers; errors are added to its failures.
        plans: The exports.

    Returns:
        The plans whose source exists.

    Raises:
        InputError: The model.toml of a missing source is invalid.
    """
    for model, kind in dict.fromkeys((export_plan.model, export_plan.kind) for export_plan in plans):
        if not context.project.is_trained(model, kind):
            train(context, (model,), (kind,), TrainOptions())
    return tuple(
        export_plan for export_plan in plans if context.project.is_trained(export_plan.model, export_plan.kind)
    )


def pin_route(plans: Sequence[ExportPlan], steps: tuple[str, ...]) -> tuple[ExportPlan, ...]:
    """Return the plans that have a route, restricted to it.

    Args:
        plans: The exports.
        steps: The steps of the route.

    Raises:
        InputError: No plan has this route; the message lists all routes.
    """
    pinned = [
        replace(export_plan, routes=(route,))
        for export_plan in plans
        for route in export_plan.routes
        if route.steps == steps
    ]
    if not pinned:
        available = "; ".join(dict.fromkeys(str(route) for export_plan in plans for route in export_plan.routes))
        raise InputError(f"no export has the route {' -> '.join(steps)}; available: {available or 'none'}")
    return tuple(pinned)


def with_recipe(plans: Sequence[ExportPlan], recipe: Recipe) -> tuple[ExportPlan, ...]:
    """Return plans for the variant of a recipe, which has an artifact folder of its own.

    Args:
        plans: The exports of the variant without the recipe.
        recipe: The recipe.
    """
    return tuple(replace(export_plan, variant=recipe.variant) for export_plan in plans)


def with_form(
    context: Context, plans: Sequence[ExportPlan], form: QuantizationForm, named: Collection[tuple[str, str]]
) -> tuple[ExportPlan, ...]:
    """Return plans for the variants of a form, which have artifact folders of their own.

    Args:
        context: Receives an event for the variants that cannot have the form.
        plans: The exports of the variants without the form.
        form: The form.
        named: The (target, precision) pairs that the user named; others are left out if they cannot have the form.

    Raises:
        InputError: A named variant cannot have the form, or none can.
    """
    if not form:
        return tuple(plans)
    kept, refused = [], {}
    for export_plan in plans:
        variant = export_plan.variant
        try:
            routes.load_target(variant.target).check_form(variant.precision, form)
        except InputError as error:
            if (variant.target, variant.precision) in named:
                raise
            refused[str(variant)] = error
        else:
            tag = "-".join(filter(None, (form.tag, variant.tag)))
            kept.append(replace(export_plan, variant=replace(variant, tag=tag)))
    if refused and not kept:
        raise next(iter(refused.values()))
    for variant_name, reason in refused.items():
        context.emit(NoteEvent(f"export {variant_name}", f"skipped: {reason}", warning=True))
    return tuple(kept)


def check_sizes(source: SourceModel, sizes: Mapping[str, int]) -> None:
    """Refuse sizes that a model cannot be given.

    Args:
        source: The model.
        sizes: Sizes of symbolic dimensions by name.

    Raises:
        InputError: The model does not have such a dimension, or its samples have another size.
    """
    symbols = source.signature.symbols
    for name, size in sizes.items():
        if name not in symbols:
            listed = ", ".join(symbols) or "none"
            raise InputError(f"{source.name} has no symbolic dimension {name}; it has: {listed}")
        if source.sizes.get(name, size) != size:
            raise InputError(
                f"{name}={size}: the samples of {source.name} have {name}={source.sizes[name]};"
                " pass a sample of that size",
                parameters=("sample",),
            )

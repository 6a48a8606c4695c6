"""Requests for exports, from the command line or the Python API, and the exports that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.config.recipe import read_recipe
from edgekit.contracts.target import Target
from edgekit.core.errors import InputError
from edgekit.core.values.quantization_form import QuantizationForm
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.core.values.specs import Variant
from edgekit.stages.context import Context
from edgekit.stages.conversion import export_plans, routes
from edgekit.stages.conversion.export_plans import ExportPlan, ExportSettings
from edgekit.stages.models import model_refs
from edgekit.stages.models.model_refs import UserModelOptions

LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class ExportRequest:
    """A request to export models to variants.

    Attributes:
        models: Names of models, model files, or code as `FILE.py:FUNCTION`; empty for every reference model.
        framework: `keras`, `torch` or `both`; None for all.
        selection: The targets, each with a precision or None for all.
        targets_named: Whether the user named targets.
        model_options: Options for a model of the user's.
        settings: Settings of the conversion.
        repair: Whether to search for the most accurate way to quantize.
        route: Steps of the only route to use; None for the first one that works.
    """

    models: tuple[str, ...]
    framework: str | None
    selection: tuple[tuple[Target, str | None], ...]
    targets_named: bool
    model_options: UserModelOptions
    settings: ExportSettings
    route: tuple[str, ...] | None


def export_request(
    models: Sequence[str],
    *,
    framework: str | None = None,
    targets: Sequence[str] = (),
    precision: str | None = None,
    model_options: UserModelOptions | None = None,
    calibration_samples: int | None = None,
    layout: str | None = None,
    options: Mapping[str, int] | None = None,
    recipe: Path | None = None,
    repair: bool = True,
    route: str | None = None,
    form: QuantizationForm | None = None,
) -> ExportRequest:
    """Validate the options of an export; neither a project nor a worker is needed.

    Args:
        models: Names of models, model files, or code; empty for every reference model.
        framework: `keras`, `torch` or `both`; None for all.
        targets: Targets or variants, such as `tflite` or `tflite:int8`; empty for every target.
        precision: Precision of the targets that are named without one.
        model_options: Options for a model of the user's.
        calibration_samples: Number of calibration samples.
        layout: Layout of images in the artifact, `NCHW` or `NHWC`.
        options: Values of the targets' own options by name, such as `opset`.
        recipe: Recipe file; it determines target, precision and the number of calibration samples.
        route: Steps of a route, such as `keras,torch,tflite`.
        form: Form of the files beside their precision; None for the target's usual form.

    Returns:
        The request.

    Raises:
        InputError: A target or a precision is unknown, the recipe is invalid, or options contradict each other.
    """
    if layout not in (None, *LAYOUTS):
        raise InputError(f"layout must be {' or '.join(LAYOUTS)} (got {layout!r})")
    if calibration_samples is not None and calibration_samples < 1:
        raise InputError(f"calibration_samples must be at least 1 (got {calibration_samples})")
    loaded_recipe = None if recipe is None else _load_recipe(recipe, targets, precision, calibration_samples)
    if loaded_recipe is not None:
        targets = (str(Variant(loaded_recipe.target, loaded_recipe.precision)),)
    model_options = model_options or UserModelOptions()
    settings = ExportSettings(
        calibration_samples,
        model_options.sizes or {},
        layout,
        options or {},
        loaded_recipe,
        repair,
        form or QuantizationForm(),
    )
    selection = routes.parse_selection(targets, precision)
    steps = None if route is None else routes.parse_route(route)
    return ExportRequest(tuple(models), framework, selection, bool(targets), model_options, settings, steps)


def _load_recipe(path: Path, targets: Sequence[str], precision: str | None, samples: int | None) -> Recipe:
    if targets or precision or samples:
        raise InputError(
            "a recipe already sets the target, the precision and the number of calibration samples; pass none of them"
            " beside it",
            parameters=("target", "precision", "calibration_samples"),
        )
    return read_recipe(path)


def plan_exports(context: Context, request: ExportRequest) -> tuple[ExportPlan, ...]:
    """Plan the exports of a request; a model that is named by path or code is imported first.

    Args:
        context: The project and the workers.
        request: The request.

    Returns:
        The exports. Variants that were not named and lack calibration samples are skipped, with an event.

    Raises:
        InputError: A model is unknown, a target cannot be reached, or an option does not apply.
        MissingDependency: A package that the import needs is not installed.
        StepError: The model could not be imported.
    """
    plans = tuple(
        plan
        for selection in model_refs.resolve(context, request.models, request.framework, request.model_options)
        for plan in export_plans.plan(selection, request.selection, targets_named=request.targets_named)
    )
    plans = export_plans.feasible_plans(context, plans, request.settings, targets_named=request.targets_named)
    if request.settings.recipe is not None:
        plans = export_plans.with_recipe(plans, request.settings.recipe)
    named = {(target.name, precision) for target, precision in request.selection if precision is not None}
    plans = export_plans.with_form(context, plans, request.settings.form, named if request.targets_named else ())
    if request.route is not None:
        plans = export_plans.pin_route(plans, request.route)
    return plans

"""The tolerances that an artifact is validated with, and why they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgekit.core.numerics.applicable_tolerances import explain_limit, tolerances_for_precision
from edgekit.core.records.artifact import Artifact
from edgekit.core.values.tolerances import Tolerances
from edgekit.stages.context import Context


def tolerances_for(context: Context, artifact: Artifact) -> dict[str, Tolerances]:
    """Return the tolerances of each output of an artifact.

    They combine the model's own tolerances, the rounding error of the source and the defaults of the precision.

    Args:
        context: The project.
        artifact: The artifact.

    Raises:
        InputError: The model's model.toml is invalid.
    """
    manifest = artifact.manifest
    overrides = own_tolerances(context, manifest.model, manifest.precision)
    rounding = manifest.rounding
    return {
        spec.name: tolerances_for_precision(manifest.precision, overrides, rounding.get(spec.name))
        for spec in manifest.signature.outputs
    }


def reasons_for(context: Context, artifact: Artifact) -> dict[str, dict[str, str]]:
    """Explain the tolerances of each output of an artifact.

    Args:
        context: The project.
        artifact: The artifact.

    Returns:
        Output -> limit -> the reason for its value.

    Raises:
        InputError: The model's model.toml is invalid.
    """
    manifest = artifact.manifest
    overrides = own_tolerances(context, manifest.model, manifest.precision)
    rounding = manifest.rounding
    return {
        name: {
            limit: explain_limit(manifest.precision, limit, overrides, rounding.get(name))
            for limit in tolerances.limits()
        }
        for name, tolerances in tolerances_for(context, artifact).items()
    }


def own_tolerances(context: Context, model: str, precision: str) -> Tolerances | None:
    """Return the tolerances that a reference model's model.toml sets for a precision, or None.

    Args:
        context: The project.
        model: Name of the model.
        precision: Name of the precision.

    Raises:
        InputError: The model's model.toml is invalid.
    """
    if model not in context.project.models():
        return None
    return context.spec(model).own_tolerances(precision)


def without_agreement(tolerances: Mapping[str, Tolerances]) -> dict[str, Tolerances]:
    """Return tolerances without the agreement of classes, which needs more samples than the golden ones.

    One different sample of 64 is 1.6 percentage points.

    Args:
        tolerances: Tolerances by output.
    """
    return {name: replace(limits, min_top1_agreement=None) for name, limits in tolerances.items()}

"""Compares a converted file with the rules of what it is for."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.core.values.deployment_presets import DeploymentPreset
from edgekit.core.values.specs import ModelDescription, TensorSpec


def preset_findings(preset: DeploymentPreset, description: ModelDescription) -> tuple[str, ...]:
    """Return what of a file does not run where it is for.

    Args:
        preset: The rules.
        description: The file.

    Returns:
        One sentence for each rule that the file breaks, without a full stop.
    """
    return (*_operators(preset, description), *_ends(preset, description))


def _operators(preset: DeploymentPreset, description: ModelDescription) -> Iterator[str]:
    foreign = sorted({op.name for op in description.ops} - preset.operators) if preset.operators else []
    if foreign:
        verb = "does" if len(foreign) == 1 else "do"
        yield f"{', '.join(foreign)} {verb} not run on {preset.title}: {preset.otherwise}"


def _ends(preset: DeploymentPreset, description: ModelDescription) -> Iterator[str]:
    signature = description.signature
    for spec in (*signature.inputs, *signature.outputs):
        reason = _why_refused(preset, spec)
        if reason:
            yield f"this file would not run on {preset.title}: {spec.name} {reason}"


def _why_refused(preset: DeploymentPreset, spec: TensorSpec) -> str:
    if preset.tensor_types and spec.dtype not in preset.tensor_types:
        return f"is {spec.dtype} where it takes {', '.join(preset.tensor_types)}"
    symbols = [dim for dim in spec.shape if isinstance(dim, str)]
    return f"has the symbolic dimension {symbols[0]}" if preset.fixed_shapes and symbols else ""

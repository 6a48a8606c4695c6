"""From a source to the steps of each of its variants: export, validate, diff, emulate, bench, check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

from edgekit.config.device_profile import DeviceProfile
from edgekit.config.project import ModelEntry
from edgekit.config.toml_lines import Location
from edgekit.contracts.bridge import BRIDGES
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.contracts.source import SOURCES
from edgekit.core.build.graph import Step, StepInput, StepKind
from edgekit.core.environment import requirements
from edgekit.core.environment.requirements import Requirement
from edgekit.core.events import Noted
from edgekit.core.records.emulated_measurement import emulation_file
from edgekit.core.records.layer_errors import LAYERS_FILE
from edgekit.core.records.measurement import bench_file
from edgekit.core.records.validation import VALIDATION_FILE, validation_file
from edgekit.core.values.budgets import CHECK_FILE, Budget
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, SOURCE_FILE, TEST_FILE
from edgekit.core.values.specs import HOST, Route, Variant
from edgekit.devices.emulation import pins
from edgekit.stages.conversion import routes
from edgekit.stages.models.train import parse_frameworks
from edgekit.stages.pipeline.plan_builder import (
    PlanBuilder,
    PlannedSource,
    host_description,
    to_json_values,
    versions,
    with_location,
)

# What a training writes of its course differs from run to run, and no later step reads it.
_COURSE = ("history", "training.seconds")


def variants(
    builder: PlanBuilder, at: Location, entry: ModelEntry, source: PlannedSource
) -> Iterator[tuple[Variant, tuple[Route, ...]]]:
    """What the source is exported to, each with its routes. Raises InputError with the place in the file."""
    base = (*at, "variants") if entry.variants is not None else ("variants",)
    texts = builder.config.variants if entry.variants is None else entry.variants
    if not texts:
        raise builder.file.error(at, "there are no variants to export it to; set variants, here or for the whole file")
    found: dict[Variant, tuple[Route, ...]] = {}
    named = entry.framework not in (None, "both") or entry.path is not None
    for index, text in enumerate(texts):
        chosen = with_location(builder, (*base, index), routes.parse_selection, (text,), None)
        reached = _reached(builder, (*base, index), chosen, source, named)
        unfit = [item for item in reached if _lacks_calibration(entry, item)]
        if unfit and ":" in text:
            sentence = f"{text} of {source.model} takes its ranges from real inputs: set calibration or sample"
            raise builder.file.error((*base, index), sentence)
        if unfit:
            left = ", ".join(map(str, unfit))
            detail = f"left out {left}: no calibration samples; set calibration or sample"
            builder.notes.append(Noted(f"export {source.label}", detail, warning=True))
        found |= {item: ways for item, ways in reached.items() if item not in unfit}
    yield from found.items()


def _reached(
    builder: PlanBuilder, at: Location, chosen: Any, source: PlannedSource, named: bool
) -> dict[Variant, tuple[Route, ...]]:
    """Of reference models, a variant that only one twin reaches is no error while the twins are not named."""
    kinds = (source.kind,) if named else parse_frameworks(None)
    ways = with_location(
        builder, at, lambda: routes.select_variants(kinds, chosen, kinds_named=named, targets_named=True)
    )
    return {variant: found for kind, variant, found in ways if kind == source.kind}


def _lacks_calibration(entry: ModelEntry, variant: Variant) -> bool:
    own = entry.path is not None and not (entry.sample or entry.calibration)
    return own and variant.precision in routes.load_target(variant.target).calibrated


def artifact_steps(
    builder: PlanBuilder,
    source: PlannedSource,
    variant: Variant,
    found: tuple[Route, ...],
    where: tuple[Mapping[str, DeviceProfile | None], Mapping[str, DeviceProfile]],
) -> None:
    """The steps of one variant: export, validate here and on each emulated core, bench on each device, check.

    `where` are the devices of the bench, and those on whose emulated core it is validated.
    """
    devices, emulated = where
    folder = builder.relative(builder.project.artifact_folder(source.model, source.kind, variant.slug))
    export = _export(builder, source, variant, found, folder)
    identity = {"folder": folder, "variant": str(variant), "model": source.model, "kind": source.kind}
    validate = _validate(builder, source, variant, folder, identity)
    validated = {
        name: _validate_on(builder, validate, name)
        for name, profile in emulated.items()
        if _runs_emulated(builder, source, variant, name, profile)
    }
    benched = {name: profile for name, profile in devices.items() if _runs(builder, source, variant, name, profile)}
    counted = [name for name, profile in benched.items() if _counted(builder, variant, profile)]
    emulations = [_emulate(builder, variant, folder, name, identity) for name in counted]
    benches = [
        _bench(builder, variant, folder, name, profile, {**identity, "counted": name in counted})
        for name, profile in benched.items()
    ]
    diffs = [_diff(builder, source, variant, folder, identity)] if _followed(builder, source, variant) else []
    everywhere = {**identity, "devices": list(benched), "emulated": list(validated), "layers": bool(diffs)}
    check = _check(builder, source, variant, folder, everywhere)
    steps = (export, validate, *validated.values(), *diffs, *emulations, *benches, check)
    for step in steps:
        builder.add(source.at, step)
    builder.artifacts.append({**everywhere, "steps": [source.step, *(step.name for step in steps)]})


def _source_reads(builder: PlanBuilder, source: PlannedSource, *files: str) -> list[StepInput]:
    folder = builder.relative(builder.project.source_folder(source.model, source.kind))
    return [StepInput(f"{folder}/{SOURCE_FILE}", without=_COURSE), *(StepInput(f"{folder}/{file}") for file in files)]


def _told(builder: PlanBuilder, source: PlannedSource, part: str) -> list[StepInput]:
    """A part of a reference model's model.toml; a model of one's own has none."""
    if source.entry.path is not None:
        return []
    return [StepInput(builder.relative(builder.project.model_folder(source.model) / "model.toml"), only=(part,))]


def _export(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, found: tuple[Route, ...], folder: str
) -> Step:
    target = routes.load_target(variant.target)
    options = builder.config.export_options(source.model, str(variant))
    options = {
        key: value for key, value in options.items() if key not in ("opset", "ir_version") or key in target.options
    }
    calibrated = variant.precision in target.calibrated
    if not calibrated:
        options.pop("calibration_samples", None)
    needed: list[Requirement] = []
    for route in found:
        needed += target.requires[route.converter_kind]
        for kind in route.steps[:-1]:
            needed += SOURCES.load(kind).requires
        for edge in route.bridges:
            if edge in routes.bridges():
                needed += BRIDGES.load(routes.bridge_name(edge)).requires
    samples = (GOLDEN_FILE, *((CALIBRATION_FILE,) if calibrated else ()))
    return Step(
        f"export {source.label} {variant}",
        StepKind.EXPORT,
        f"{folder}/manifest.json",
        folder=folder,
        after=(source.step,),
        reads=(*_source_reads(builder, source, *samples), *source.code),
        values=to_json_values(
            {
                "options": {**options, "dims": source.entry.dims},
                "routes": [route.steps for route in found],
                "versions": versions(needed),
            }
        ),
        arguments={"model": source.model, "kind": source.kind, "variant": str(variant)},
    )


def _runtime(variant: Variant) -> Runtime:
    return RUNTIMES.load(routes.load_target(variant.target).runtime)


def _validate(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, folder: str, identity: Mapping[str, Any]
) -> Step:
    reads = [
        StepInput(f"{folder}/manifest.json"),
        StepInput(f"{folder}/{GOLDEN_FILE}"),
        *_source_reads(builder, source, TEST_FILE),
    ]
    reads += _told(builder, source, "tolerances")
    return Step(
        f"validate {source.label} {variant}",
        StepKind.VALIDATE,
        f"{folder}/{VALIDATION_FILE}",
        after=(f"export {source.label} {variant}",),
        reads=tuple(reads),
        values=to_json_values({"versions": versions((*_runtime(variant).requires, requirements.NUMPY))}),
        arguments=identity,
    )


def _validate_on(builder: PlanBuilder, validate: Step, device: str) -> Step:
    """The same on a device's emulated core."""
    file = builder.relative(builder.project.device_file(device))
    return replace(
        validate,
        name=f"{validate.name} on {device}",
        output=f"{validate.arguments['folder']}/{validation_file(device)}",
        reads=(*validate.reads, StepInput(file, without=("budgets", "provenance", "title"))),
        arguments={**validate.arguments, "device": device},
    )


def _followed(builder: PlanBuilder, source: PlannedSource, variant: Variant) -> bool:
    """Whether the error of the variant is asked for layer by layer, and can be told."""
    if not any(fnmatchcase(str(variant), pattern) for pattern in builder.config.layers):
        return False
    kind = SOURCES.load(source.kind)
    runtime = _runtime(variant)
    blind = [what.name for what in (kind, runtime) if not what.exposes_intermediates]
    if blind:
        detail = f"left out: {blind[0]} does not show what is computed inside"
        builder.notes.append(Noted(f"diff {source.label} {variant}", detail))
    return not blind


def _diff(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, folder: str, identity: Mapping[str, Any]
) -> Step:
    """The error of an artifact, layer by layer, against its source."""
    kind = SOURCES.load(source.kind)
    needed = (*kind.requires, *_runtime(variant).requires, *routes.load_target(variant.target).reads_with)
    reads = [
        StepInput(f"{folder}/manifest.json"),
        StepInput(f"{folder}/{GOLDEN_FILE}"),
        *_source_reads(builder, source),
    ]
    return Step(
        f"diff {source.label} {variant}",
        StepKind.DIFF,
        f"{folder}/{LAYERS_FILE}",
        after=(f"export {source.label} {variant}",),
        reads=(*reads, *source.code),
        values=to_json_values({"versions": versions((*needed, requirements.NUMPY))}),
        arguments=identity,
    )


def _runs_emulated(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, name: str, profile: DeviceProfile
) -> bool:
    refusal = profile.refuses(variant.target, variant.precision)
    if _runtime(variant).name not in pins.RUNTIMES:
        refusal = f"the emulated core does not run {_runtime(variant).name}"
    if refusal:
        builder.notes.append(Noted(f"validate {source.label} {variant} on {name}", f"left out: {refusal}"))
    return not refusal


def _runs(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, name: str, profile: DeviceProfile | None
) -> bool:
    refusal = profile.refuses(variant.target, variant.precision) if profile else None
    if refusal:
        builder.notes.append(Noted(f"bench {source.label} {variant} on {name}", f"left out: {name} {refusal}"))
    return refusal is None


def _counted(builder: PlanBuilder, variant: Variant, profile: DeviceProfile | None) -> bool:
    """Whether an inference on the device's emulated core is part of the bench."""
    asked = builder.config.bench is not None and "emulated" in builder.config.bench.tiers
    return asked and profile is not None and profile.emulation is not None and _runtime(variant).name in pins.RUNTIMES


def _device_reads(builder: PlanBuilder, folder: str, device: str) -> list[StepInput]:
    """What a figure of an artifact under a profile depends on."""
    reads = [StepInput(f"{folder}/manifest.json"), StepInput(f"{folder}/{GOLDEN_FILE}")]
    if device != HOST:
        file = builder.relative(builder.project.device_file(device))
        reads.append(StepInput(file, without=("budgets", "provenance", "title")))
    return reads


def _emulate(builder: PlanBuilder, variant: Variant, folder: str, device: str, identity: Mapping[str, Any]) -> Step:
    bench = builder.config.bench
    assert bench is not None  # it asks for the tier
    label = f"{identity['model']}/{identity['kind']}"
    emulation = {"wheels": pins.WHEELS[pins.wheel_set(_runtime(variant).name)], "layout": pins.LAYOUT}
    return Step(
        f"emulate {label} {variant} on {device}",
        StepKind.EMULATE,
        f"{folder}/{emulation_file(device)}",
        after=(f"export {label} {variant}",),
        reads=tuple(_device_reads(builder, folder, device)),
        values=to_json_values(
            {
                "options": {"threads": bench.threads, "per_op": bench.per_op},
                "emulation": emulation,
                "versions": versions(()),
            }
        ),
        arguments={**identity, "device": device},
    )


def _bench(
    builder: PlanBuilder,
    variant: Variant,
    folder: str,
    device: str,
    profile: DeviceProfile | None,
    identity: Mapping[str, Any],
) -> Step:
    bench = builder.config.bench
    assert bench is not None  # there are devices
    label = f"{identity['model']}/{identity['kind']}"
    reads, after = _device_reads(builder, folder, device), [f"export {label} {variant}"]
    if identity["counted"]:
        reads.append(StepInput(f"{folder}/{emulation_file(device)}"))
        after.append(f"emulate {label} {variant} on {device}")
    options = {"threads": bench.threads, "min_duration_s": bench.min_duration_s, "min_runs": bench.min_runs}
    options["emulated"] = "emulated" in bench.tiers and profile is not None and profile.emulation is not None
    options["per_op"] = bench.per_op
    needed = (*_runtime(variant).requires, *routes.load_target(variant.target).reads_with, requirements.NUMPY)
    if profile is not None and profile.model_flash is not None:  # whether it fits is a matter of its code, too
        arena_runtime = routes.arena_runtime_of(variant.target)
        needed += arena_runtime.code_size_requires if arena_runtime is not None else ()
    return Step(
        f"bench {label} {variant} on {device}",
        StepKind.BENCH,
        f"{folder}/{bench_file(device)}",
        after=tuple(after),
        reads=tuple(reads),
        values=to_json_values({"options": options, "host": host_description(), "versions": versions(needed)}),
        arguments={**identity, "device": device},
    )


def _budgets(builder: PlanBuilder, model: str) -> list[Budget]:
    return [
        budget
        for entry in builder.config.budgets
        if fnmatchcase(model, entry.model)
        for budget in entry.table().budgets(builder.file.path.name)
    ]


def _check(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, folder: str, identity: Mapping[str, Any]
) -> Step:
    validations = (VALIDATION_FILE, *map(validation_file, identity["emulated"]))
    reads = [StepInput(f"{folder}/manifest.json"), *(StepInput(f"{folder}/{file}") for file in validations)]
    for device in identity["devices"]:
        reads.append(StepInput(f"{folder}/{bench_file(device)}"))
        if device != HOST:
            reads.append(StepInput(builder.relative(builder.project.device_file(device)), only=("budgets",)))
    reads += _told(builder, source, "budgets")
    # Of a pattern that covers it, the key keeps that it does, and not how it is written.
    own = [replace(budget, variant="*") for budget in _budgets(builder, source.model) if budget.covers(str(variant))]
    return Step(
        f"check {source.label} {variant}",
        StepKind.CHECK,
        f"{folder}/{CHECK_FILE}",
        after=(f"validate {source.label} {variant}",),
        reads=tuple(reads),
        values=to_json_values({"budgets": [asdict(budget) for budget in own], "versions": versions(())}),
        arguments=identity,
    )

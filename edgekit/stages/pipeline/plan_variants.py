"""Plans the steps of each variant of a source: export, validate, diff, emulate, bench, check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

from edgekit.browser.packages import PACKAGES
from edgekit.config.device_profile import DeviceProfile
from edgekit.config.project import ModelEntry
from edgekit.config.toml_lines import Location
from edgekit.contracts.bridge import BRIDGES
from edgekit.contracts.executor import EXECUTORS, Place
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.contracts.source import SOURCES
from edgekit.core.build.graph import Step, StepInput, StepKind
from edgekit.core.environment import requirements
from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import InputError
from edgekit.core.events import NoteEvent
from edgekit.core.records.emulated_measurement import emulation_file
from edgekit.core.records.layer_errors import LAYERS_FILE
from edgekit.core.records.measurement import bench_file
from edgekit.core.records.validation import VALIDATION_FILE, validation_file
from edgekit.core.values.budgets import CHECK_FILE, Budget
from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE, SOURCE_FILE, TEST_FILE
from edgekit.core.values.precisions import find_precision
from edgekit.core.values.quantization_form import FORM_OPTIONS, QuantizationForm
from edgekit.core.values.specs import HOST, Route, Variant
from edgekit.devices.boards.places import measuring_executor, profile_file
from edgekit.devices.browsers.names import is_browser
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

# The training log differs between identical trainings, and no later step reads it.
_TRAINING_LOG_KEYS = ("history", "training.seconds")


def variants(
    builder: PlanBuilder, at: Location, entry: ModelEntry, source: PlannedSource
) -> Iterator[tuple[Variant, tuple[Route, ...]]]:
    """Select the variants that a source is exported to.

    Args:
        builder: The plan's builder, which receives a note for every variant that is left out.
        at: The position of the entry in the file.
        entry: The model's entry.
        source: The source.

    Yields:
        Each variant with its routes.

    Raises:
        InputError: With file and line: no variants, an invalid pattern, or a named variant that cannot be exported.
    """
    base = (*at, "variants") if entry.variants is not None else ("variants",)
    texts = builder.config.variants if entry.variants is None else entry.variants
    if not texts:
        raise builder.file.error(
            at, "no variants to export; set variants in this entry, or at the top of the file for all models"
        )
    selected: dict[Variant, tuple[Route, ...]] = {}
    kind_named = entry.framework not in (None, "both") or entry.path is not None
    for index, text in enumerate(texts):
        selection = with_location(builder, (*base, index), routes.parse_selection, (text,), None)
        reachable = _reachable_variants(builder, (*base, index), selection, source, kind_named)
        uncalibrated = [variant for variant in reachable if _lacks_calibration(entry, variant)]
        if uncalibrated and ":" in text:
            message = f"{text} of {source.model} needs calibration samples; set calibration or sample"
            raise builder.file.error((*base, index), message)
        if uncalibrated:
            names = ", ".join(map(str, uncalibrated))
            detail = f"skipped {names}: no calibration samples; set calibration or sample"
            builder.notes.append(NoteEvent(f"export {source.label}", detail, warning=True))
        selected |= {variant: ways for variant, ways in reachable.items() if variant not in uncalibrated}
    for variant, ways in selected.items():
        yield _with_form(builder, at, source, variant), ways


def _with_form(builder: PlanBuilder, at: Location, source: PlannedSource, variant: Variant) -> Variant:
    """Return the variant of the form that the export's options ask for."""
    form = _form(builder, source, variant)
    return replace(variant, tag=form.tag) if _applies(builder, at, form, variant) else variant


def _form(builder: PlanBuilder, source: PlannedSource, variant: Variant) -> QuantizationForm:
    options = builder.config.export_options(source.model, str(variant.untagged))
    return QuantizationForm(**{name: options[name] for name in FORM_OPTIONS if name in options})


def _applies(builder: PlanBuilder, at: Location, form: QuantizationForm, variant: Variant) -> bool:
    """Return whether a form applies to a variant: patterns may cover float variants, which it says nothing about."""
    try:
        routes.load_target(variant.target).check_form(variant.precision, form)
    except InputError as error:
        if find_precision(variant.precision).is_float:
            return False
        raise builder.file.error(at, str(error)) from error
    return True


def _reachable_variants(
    builder: PlanBuilder, at: Location, selection: Any, source: PlannedSource, kind_named: bool
) -> dict[Variant, tuple[Route, ...]]:
    """The selected variants of the source; if no framework is named, one framework that reaches a variant is enough."""
    kinds = (source.kind,) if kind_named else parse_frameworks(None)
    ways = with_location(
        builder, at, lambda: routes.select_variants(kinds, selection, kinds_named=kind_named, targets_named=True)
    )
    return {variant: variant_routes for kind, variant, variant_routes in ways if kind == source.kind}


def _lacks_calibration(entry: ModelEntry, variant: Variant) -> bool:
    without_samples = entry.path is not None and not (entry.sample or entry.calibration)
    return without_samples and variant.precision in routes.load_target(variant.target).calibrated


def artifact_steps(
    builder: PlanBuilder,
    source: PlannedSource,
    variant: Variant,
    variant_routes: tuple[Route, ...],
    profiles: tuple[Mapping[str, DeviceProfile | None], Mapping[str, DeviceProfile | None]],
) -> None:
    """Add the steps of one variant: export, validate, diff, emulate, bench and check.

    Args:
        builder: The plan's builder.
        source: The source.
        variant: The variant.
        variant_routes: The routes that lead from the source to the variant.
        profiles: The devices of the bench, and the boards and emulated devices that the variant is validated on.
    """
    devices, emulated = profiles
    folder = builder.relative(builder.project.artifact_folder(source.model, source.kind, variant.slug))
    export = _export(builder, source, variant, variant_routes, folder)
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
    diffs = [_diff(builder, source, variant, folder, identity)] if _has_layer_errors(builder, source, variant) else []
    artifact = {**identity, "devices": list(benched), "emulated": list(validated), "layers": bool(diffs)}
    check = _check(builder, source, variant, folder, artifact)
    steps = (export, validate, *validated.values(), *diffs, *emulations, *benches, check)
    for step in steps:
        builder.add(source.at, step)
    builder.artifacts.append({**artifact, "steps": [source.step, *(step.name for step in steps)]})


def _source_reads(builder: PlanBuilder, source: PlannedSource, *files: str) -> list[StepInput]:
    folder = builder.relative(builder.project.source_folder(source.model, source.kind))
    return [
        StepInput(f"{folder}/{SOURCE_FILE}", without=_TRAINING_LOG_KEYS),
        *(StepInput(f"{folder}/{file}") for file in files),
    ]


def _model_table(builder: PlanBuilder, source: PlannedSource, table: str) -> list[StepInput]:
    """A table of a reference model's model.toml; users' models have no such file."""
    if source.entry.path is not None:
        return []
    return [StepInput(builder.relative(builder.project.model_folder(source.model) / "model.toml"), only=(table,))]


def _export(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, variant_routes: tuple[Route, ...], folder: str
) -> Step:
    target = routes.load_target(variant.target)
    options = builder.config.export_options(source.model, str(variant.untagged))
    conditional = {"opset", "ir_version", *FORM_OPTIONS}
    applicable = {*target.options, *(FORM_OPTIONS if variant.tag else ())}
    options = {key: value for key, value in options.items() if key not in conditional or key in applicable}
    calibrated = variant.precision in target.calibrated
    if not calibrated:
        options.pop("calibration_samples", None)
    needed: list[Requirement] = []
    for route in variant_routes:
        needed += target.requires[route.converter_kind]
        for kind in route.steps[:-1]:
            needed += SOURCES.load(kind).requires
        for edge in route.bridges:
            if edge in routes.bridges():
                needed += BRIDGES.load(routes.bridge_name(edge)).requires
    # Every quantized file may be improved by what the samples show, where there are any.
    samples = (GOLDEN_FILE, *(() if find_precision(variant.precision).is_float else (CALIBRATION_FILE,)))
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
                "routes": [route.steps for route in variant_routes],
                "versions": versions(needed),
            }
        ),
        arguments={"model": source.model, "kind": source.kind, "variant": str(variant), **source.named_module},
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
    reads += _model_table(builder, source, "tolerances")
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
    """The same step on a board or a device's emulated core."""
    return replace(
        validate,
        name=f"{validate.name} on {device}",
        output=f"{validate.arguments['folder']}/{file_of_validation(device)}",
        reads=(*validate.reads, *_profile_reads(builder, device)),
        values={**validate.values, **_board_values(device)},
        arguments={**validate.arguments, "device": device},
    )


def file_of_validation(device: str) -> str:
    """Return the name of the file with the validation on a board, in a browser or on a device's emulated core."""
    return validation_file(device, executor=measuring_executor(device))


def _profile_reads(builder: PlanBuilder, device: str) -> list[StepInput]:
    """The profile of a device, without the keys that no measurement depends on; none for this host."""
    path = None if device == HOST else profile_file(builder.project, device)
    return [] if path is None else [StepInput(builder.relative(path), without=("budgets", "provenance", "title"))]


def _board_values(device: str) -> dict[str, Any]:
    """What identifies a board, a phone or a browser's runtimes: another one of the same name is measured anew."""
    if is_browser(device):
        return {"browser": [package.name for package in PACKAGES]}
    executor = measuring_executor(device)
    return {"board": EXECUTORS.load(executor).identity(Place(device))} if executor else {}


def _has_layer_errors(builder: PlanBuilder, source: PlannedSource, variant: Variant) -> bool:
    """Return whether the layer-wise diff of the variant is configured, and source and runtime support it."""
    names = (str(variant), str(variant.untagged))
    if not any(fnmatchcase(name, pattern) for name in names for pattern in builder.config.layers):
        return False
    kind = SOURCES.load(source.kind)
    runtime = _runtime(variant)
    unsupported = [plugin.name for plugin in (kind, runtime) if not plugin.exposes_intermediates]
    if unsupported:
        detail = f"skipped: {unsupported[0]} does not expose intermediate tensors"
        builder.notes.append(NoteEvent(f"diff {source.label} {variant}", detail))
    return not unsupported


def _diff(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, folder: str, identity: Mapping[str, Any]
) -> Step:
    """The layer-wise diff of an artifact against its source."""
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
        arguments={**identity, **source.named_module},
    )


def _runs_emulated(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, name: str, profile: DeviceProfile | None
) -> bool:
    refusal = profile.refusal(variant.target, variant.precision) if profile is not None else None
    if refusal:
        refusal = f"{name} {refusal}"
    executor = measuring_executor(name)
    if executor:
        refusal = EXECUTORS.load(executor).refusal(_runtime(variant).name, Place(name)) or refusal
    elif _runtime(variant).name not in pins.RUNTIMES:
        refusal = f"the emulated core does not run {_runtime(variant).name}"
    if refusal:
        builder.notes.append(NoteEvent(f"validate {source.label} {variant} on {name}", f"skipped: {refusal}"))
    return not refusal


def _runs(
    builder: PlanBuilder, source: PlannedSource, variant: Variant, name: str, profile: DeviceProfile | None
) -> bool:
    refusal = profile.refusal(variant.target, variant.precision) if profile else None
    if refusal:
        builder.notes.append(NoteEvent(f"bench {source.label} {variant} on {name}", f"skipped: {name} {refusal}"))
    return refusal is None


def _counted(builder: PlanBuilder, variant: Variant, profile: DeviceProfile | None) -> bool:
    """Return whether the bench includes a counted inference on the device's emulated core."""
    enabled = builder.config.bench is not None and "emulated" in builder.config.bench.tiers
    return enabled and profile is not None and profile.emulation is not None and _runtime(variant).name in pins.RUNTIMES


def _device_reads(builder: PlanBuilder, folder: str, device: str) -> list[StepInput]:
    """The files that a measurement of an artifact under a profile depends on."""
    reads = [StepInput(f"{folder}/manifest.json"), StepInput(f"{folder}/{GOLDEN_FILE}")]
    return [*reads, *_profile_reads(builder, device)]


def _emulate(builder: PlanBuilder, variant: Variant, folder: str, device: str, identity: Mapping[str, Any]) -> Step:
    bench = builder.config.bench
    assert bench is not None  # the tier is listed in [bench]
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
    assert bench is not None  # the devices are listed in [bench]
    label = f"{identity['model']}/{identity['kind']}"
    reads, after = _device_reads(builder, folder, device), [f"export {label} {variant}"]
    if identity["counted"]:
        reads.append(StepInput(f"{folder}/{emulation_file(device)}"))
        after.append(f"emulate {label} {variant} on {device}")
    options = {"threads": bench.threads, "min_duration_s": bench.min_duration_s, "min_runs": bench.min_runs}
    options["emulated"] = "emulated" in bench.tiers and profile is not None and profile.emulation is not None
    options["per_op"] = bench.per_op
    needed = (*_runtime(variant).requires, *routes.load_target(variant.target).reads_with, requirements.NUMPY)
    if profile is not None and profile.model_flash is not None:  # the device fit includes the size of the code
        arena_runtime = routes.arena_runtime_of(variant.target)
        needed += arena_runtime.code_size_requires if arena_runtime is not None else ()
    return Step(
        f"bench {label} {variant} on {device}",
        StepKind.BENCH,
        f"{folder}/{bench_file(device)}",
        after=tuple(after),
        reads=tuple(reads),
        values=to_json_values(
            {"options": options, "host": host_description(), "versions": versions(needed), **_board_values(device)}
        ),
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
    validations = (VALIDATION_FILE, *map(file_of_validation, identity["emulated"]))
    reads = [StepInput(f"{folder}/manifest.json"), *(StepInput(f"{folder}/{file}") for file in validations)]
    for device in identity["devices"]:
        reads.append(StepInput(f"{folder}/{bench_file(device)}"))
        path = None if device == HOST else profile_file(builder.project, device)
        if path is not None:
            reads.append(StepInput(builder.relative(path), only=("budgets",)))
    reads += _model_table(builder, source, "budgets")
    # The pattern itself is not part of the key: rewriting a pattern that still matches does not repeat the check.
    budgets = [
        replace(budget, variant="*") for budget in _budgets(builder, source.model) if budget.covers(str(variant))
    ]
    return Step(
        f"check {source.label} {variant}",
        StepKind.CHECK,
        f"{folder}/{CHECK_FILE}",
        after=(f"validate {source.label} {variant}",),
        reads=tuple(reads),
        values=to_json_values({"budgets": [asdict(budget) for budget in budgets], "versions": versions(())}),
        arguments=identity,
    )

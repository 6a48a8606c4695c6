"""Builds the step graph of `edgekit.toml`: resolves names, selects routes and lists the files that each step reads."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.config.device_profile import DeviceProfile
from edgekit.config.loader import SourceMapped
from edgekit.config.project import ProjectConfig
from edgekit.config.toml_lines import Location
from edgekit.contracts.report import REPORTS
from edgekit.core.build.graph import Graph, Step, StepInput, StepKind, build_graph
from edgekit.core.build.plan_cache import CachedPlan
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.records.layer_errors import LAYERS_FILE
from edgekit.core.records.measurement import bench_file
from edgekit.core.records.validation import VALIDATION_FILE
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import HOST
from edgekit.devices.boards.places import device_names, find_place, measuring_executor, user_file
from edgekit.devices.emulation import emulator
from edgekit.stages.pipeline.plan_builder import PlanBuilder, host_description, to_json_values, versions, with_location
from edgekit.stages.pipeline.plan_sources import sources
from edgekit.stages.pipeline.plan_variants import artifact_steps, file_of_validation, variants
from edgekit.stages.tracking.settings import tracking, tracking_step, without_password


def plan(project: Project, file: SourceMapped[ProjectConfig]) -> CachedPlan:
    """Build the step graph that the file describes.

    Variants that only a pattern selects and that cannot be exported are left out, with a note.

    Args:
        project: The project.
        file: Its `edgekit.toml`.

    Returns:
        The graph, the notes, and the files whose change makes the plan outdated.

    Raises:
        InputError: With file and line: an unknown name, a missing file, a variant that no route reaches, a report that
            cannot be written, or steps that depend on each other.
    """
    builder = PlanBuilder(project, file)
    devices, emulated = _bench_devices(builder), _emulated_devices(builder)
    for index, entry in enumerate(builder.config.models):
        at: Location = ("models", index)
        for source in sources(builder, at, entry):
            for variant, variant_routes in variants(builder, at, entry, source):
                artifact_steps(builder, source, variant, variant_routes, (devices, emulated))
    _reports(builder)
    _tracking(builder)
    graph = build_graph(builder.steps, builder.where)
    _check_files(builder, graph)
    return CachedPlan(graph, tuple(builder.notes), _plan_inputs(builder, graph))


def _plan_inputs(builder: PlanBuilder, graph: Graph) -> tuple[str, ...]:
    """The files whose content or presence the plan depends on.

    They are the inputs that no step writes, and files that would shadow a model, device or data set of edgekit.
    """
    root, models = builder.project.root, builder.config.models
    paths = [read.path for step in graph.steps for read in step.reads if graph.writer(read.path) is None]
    paths += [f"models/{entry.name}/model.toml" for entry in models if entry.path is None]
    paths += [f"device_profiles/{name}.toml" for name in (builder.config.bench.devices if builder.config.bench else ())]
    named = (*(builder.config.bench.devices if builder.config.bench else ()), *builder.config.validate_on)
    paths += [str(file) for name in named if (file := user_file(name)) is not None]
    paths += [entry.training.data for entry in models if entry.training is not None and entry.training.data]
    return tuple(
        dict.fromkeys((builder.relative(builder.file.path), *(builder.relative(root / path) for path in paths)))
    )


def _bench_devices(builder: PlanBuilder) -> dict[str, DeviceProfile | None]:
    """The profiles of the bench's devices by name; None for this host without a profile."""
    bench = builder.config.bench
    available = device_names(builder.project)
    profiles: dict[str, DeviceProfile | None] = {}
    for index, name in enumerate(bench.devices if bench else ()):
        at: Location = ("bench", "devices", index)
        if name != HOST and name not in available:
            raise builder.file.error(at, str(unknown_name("device", name, [*available, HOST])))
        place = None if name == HOST else with_location(builder, at, find_place, builder.project, name)
        profiles[name] = None if place is None else place.profile
    if bench and "emulated" in bench.tiers and not any(profile and profile.emulation for profile in profiles.values()):
        raise builder.file.error(
            ("bench", "tiers"), "none of these devices can be emulated; to list those that can, run: edgekit devices"
        )
    return profiles


def _emulated_devices(builder: PlanBuilder) -> dict[str, DeviceProfile | None]:
    """The profiles, by name, of the boards and the like, and of the devices whose emulated core validates artifacts."""
    available = device_names(builder.project)
    profiles: dict[str, DeviceProfile | None] = {}
    for index, name in enumerate(builder.config.validate_on):
        at: Location = ("validate_on", index)
        if name not in available:
            raise builder.file.error(at, str(unknown_name("device", name, list(available))))
        place = with_location(builder, at, find_place, builder.project, name)
        profiles[name] = place.profile
        if not measuring_executor(name):
            with_location(builder, at, emulator.emulation_spec_of, name, place.profile)
    return profiles


def _reports(builder: PlanBuilder) -> None:
    available = REPORTS.names()
    for index, entry in enumerate(builder.config.reports):
        at: Location = ("reports", index)
        if entry.format not in available:
            raise builder.file.error((*at, "format"), str(unknown_name("report format", entry.format, available)))
        path = builder.resolve(entry.path)
        problem = _overwrite_problem(builder, path) or _write_problem(path)
        if problem:
            raise builder.file.error((*at, "path"), f"cannot write {path}: {problem}")
        where = f"{builder.file.where((*at, 'path'))}: reports.{index}.path"
        builder.add((*at, "path"), _report_step(builder, entry.format, builder.relative(path), where))


def _overwrite_problem(builder: PlanBuilder, path: Path) -> str:
    """Explain why a report at this path would overwrite another file; empty if it would not."""
    if path == builder.file.path:
        return "it is the project file itself"
    folder = next((step.folder for step in builder.steps if step.folder and step.writes(builder.relative(path))), "")
    return f"{folder} is the folder of a step" if folder else ""


def _write_problem(path: Path) -> str:
    """Explain why a file cannot be written, as far as that is known before writing; empty if it can."""
    if path.is_dir():
        return "it is a folder"
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        return f"{folder} is not a folder"
    writable = os.access(path if path.exists() else folder, os.W_OK)
    return "" if writable else "permission denied"


def _report_step(builder: PlanBuilder, format_name: str, path: str, where: str) -> Step:
    files = ["manifest.json", VALIDATION_FILE, CHECK_FILE]
    reads: list[StepInput] = []
    for artifact in builder.artifacts:
        device_files = [
            *(file_of_validation(name) for name in artifact["emulated"]),
            *map(bench_file, artifact["devices"]),
        ]
        layers = [LAYERS_FILE] if artifact["layers"] else []
        reads += [StepInput(f"{artifact['folder']}/{file}") for file in (*files, *device_files, *layers)]
        reads.append(StepInput(f"{Path(artifact['folder']).parent}/source/{SOURCE_FILE}"))
    return Step(
        f"report {format_name} {path}",
        StepKind.REPORT,
        path,
        after=tuple(step.name for step in builder.steps if not step.kind.runs_last),
        reads=tuple(dict.fromkeys(reads)),
        values=to_json_values({"format": format_name, "host": host_description(), "versions": versions(())}),
        arguments={"artifacts": list(builder.artifacts), "where": where},
    )


def _tracking(builder: PlanBuilder) -> None:
    entry, root = builder.config.mlflow, builder.project.root
    if entry is None:
        return
    try:
        settings = tracking(entry.uri, entry.experiment, root, root, model_files=entry.model_files)
    except InputError as error:
        raise builder.file.error(("mlflow", "uri"), str(error)) from None
    if without_password(entry.uri) != entry.uri:  # the step's record in build/ would contain it as well
        advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or pass the URI with --mlflow"
        raise builder.file.error(("mlflow", "uri"), f"do not store a password in this file; {advice}")
    builder.add(("mlflow",), tracking_step(builder.steps, settings))


def _check_files(builder: PlanBuilder, graph: Graph) -> None:
    """Raise InputError for a file that an import step reads, that does not exist and that no step writes."""
    for step in graph.steps:
        if step.kind is not StepKind.IMPORT:
            continue
        for read in step.reads:
            if not (builder.project.root / read.path).exists() and graph.writer(read.path) is None:
                raise InputError(f"{builder.where(step.name)}: {read.path}: no such file or folder")

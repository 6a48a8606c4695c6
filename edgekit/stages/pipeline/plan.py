"""From `edgekit.toml` to the step graph: every name looked up, every route found, every file that is read named."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.config.device_profile import DeviceProfile, load_profile
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
from edgekit.core.records.validation import VALIDATION_FILE, validation_file
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.specs import HOST
from edgekit.devices.emulation import emulator
from edgekit.stages.pipeline.plan_builder import PlanBuilder, host_description, to_json_values, versions, with_location
from edgekit.stages.pipeline.plan_sources import sources
from edgekit.stages.pipeline.plan_variants import artifact_steps, variants
from edgekit.stages.tracking.settings import tracking, tracking_step, without_password


def plan(project: Project, file: SourceMapped[ProjectConfig]) -> CachedPlan:
    """The graph that the file describes. What it does not name and cannot be made is noted and left out.

    Raises InputError, with file and line, for a name that is none, a file that is not there, a variant that no route
    reaches, a report that cannot be written, and steps that would wait for one another.
    """
    builder = PlanBuilder(project, file)
    devices, emulated = _devices(builder), _emulated(builder)
    for index, entry in enumerate(builder.config.models):
        at: Location = ("models", index)
        for source in sources(builder, at, entry):
            for variant, found in variants(builder, at, entry, source):
                artifact_steps(builder, source, variant, found, (devices, emulated))
    _reports(builder)
    _tracking(builder)
    graph = build_graph(builder.steps, builder.where)
    _check_files(builder, graph)
    return CachedPlan(graph, tuple(builder.notes), _looked_at(builder, graph))


def _looked_at(builder: PlanBuilder, graph: Graph) -> tuple[str, ...]:
    """Files whose content or presence the plan depends on: what no step writes, and what would come before a model or
    device that edgekit ships, or would take a data set's name."""
    root, models = builder.project.root, builder.config.models
    found = [read.path for step in graph.steps for read in step.reads if graph.writer(read.path) is None]
    found += [f"models/{entry.name}/model.toml" for entry in models if entry.path is None]
    found += [f"device_profiles/{name}.toml" for name in (builder.config.bench.devices if builder.config.bench else ())]
    found += [entry.training.data for entry in models if entry.training is not None and entry.training.data]
    return tuple(
        dict.fromkeys((builder.relative(builder.file.path), *(builder.relative(root / path) for path in found)))
    )


def _devices(builder: PlanBuilder) -> dict[str, DeviceProfile | None]:
    """The devices of the bench by name; None for this host as it is."""
    bench = builder.config.bench
    known = builder.project.device_files()
    found: dict[str, DeviceProfile | None] = {}
    for index, name in enumerate(bench.devices if bench else ()):
        if name != HOST and name not in known:
            raise builder.file.error(("bench", "devices", index), str(unknown_name("device", name, [*known, HOST])))
        found[name] = None if name == HOST else load_profile(known[name])
    if bench and "emulated" in bench.tiers and not any(item and item.emulation for item in found.values()):
        raise builder.file.error(("bench", "tiers"), "none of these devices can be emulated; see: edgekit devices")
    return found


def _emulated(builder: PlanBuilder) -> dict[str, DeviceProfile]:
    """The devices on whose emulated core artifacts are validated, by name."""
    known = builder.project.device_files()
    found: dict[str, DeviceProfile] = {}
    for index, name in enumerate(builder.config.validate_on):
        at: Location = ("validate_on", index)
        if name not in known:
            raise builder.file.error(at, str(unknown_name("device", name, list(known))))
        found[name] = load_profile(known[name])
        with_location(builder, at, emulator.emulation_spec_of, name, found[name])
    return found


def _reports(builder: PlanBuilder) -> None:
    known = REPORTS.names()
    for index, entry in enumerate(builder.config.reports):
        at: Location = ("reports", index)
        if entry.format not in known:
            raise builder.file.error((*at, "format"), str(unknown_name("report format", entry.format, known)))
        path = builder.given(entry.path)
        problem = _taken(builder, path) or _unwritable(path)
        if problem:
            raise builder.file.error((*at, "path"), f"cannot write {path}: {problem}")
        where = f"{builder.file.where((*at, 'path'))}: reports.{index}.path"
        builder.add((*at, "path"), _report(builder, entry.format, builder.relative(path), where))


def _taken(builder: PlanBuilder, path: Path) -> str:
    """Why a report would overwrite something else."""
    if path == builder.file.path:
        return "this file is what the report is made by"
    inside = next((step.folder for step in builder.steps if step.folder and step.writes(builder.relative(path))), "")
    return f"{inside} is the folder of a step" if inside else ""


def _unwritable(path: Path) -> str:
    """Why a file cannot be written there, as far as that can be seen beforehand."""
    if path.is_dir():
        return "it is a folder"
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        return f"{folder} is not a folder"
    writable = os.access(path if path.exists() else folder, os.W_OK)
    return "" if writable else "permission denied"


def _report(builder: PlanBuilder, format_name: str, path: str, where: str) -> Step:
    files = ["manifest.json", VALIDATION_FILE, CHECK_FILE]
    reads: list[StepInput] = []
    for item in builder.artifacts:
        of_devices = [*map(validation_file, item["emulated"]), *map(bench_file, item["devices"])]
        layers = [LAYERS_FILE] if item["layers"] else []
        reads += [StepInput(f"{item['folder']}/{file}") for file in (*files, *of_devices, *layers)]
        reads.append(StepInput(f"{Path(item['folder']).parent}/source/{SOURCE_FILE}"))
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
        chosen = tracking(entry.uri, entry.experiment, root, root, model_files=entry.model_files)
    except InputError as error:
        raise builder.file.error(("mlflow", "uri"), str(error)) from None
    if without_password(entry.uri) != entry.uri:  # build/ would keep it too
        advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or give the URI to --mlflow"
        raise builder.file.error(("mlflow", "uri"), f"a password does not belong into this file: {advice}")
    builder.add(("mlflow",), tracking_step(builder.steps, chosen))


def _check_files(builder: PlanBuilder, graph: Graph) -> None:
    """Raises InputError for a file that the user named, that is not there, and that no step writes."""
    for step in graph.steps:
        if step.kind is not StepKind.IMPORT:
            continue
        for read in step.reads:
            if not (builder.project.root / read.path).exists() and graph.writer(read.path) is None:
                raise InputError(f"{builder.where(step.name)}: {read.path}: no such file or folder")

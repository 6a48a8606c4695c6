"""From `edgekit.toml` to the step graph: every name looked up, every route found, every file that is read named."""

from __future__ import annotations

import os
from pathlib import Path

from edgekit.config.loader import Located
from edgekit.config.project import HOST, ProjectConfig
from edgekit.config.toml_lines import Location
from edgekit.core.build.graph import Graph, Read, Step, assemble
from edgekit.core.build.plan_cache import Planned
from edgekit.core.environment import plugin_registry
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.records.layer_errors import LAYERS_FILE
from edgekit.core.records.measurement import bench_file
from edgekit.core.records.validation import VALIDATION_FILE, validation_file
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.devices.emulation import emulator
from edgekit.devices.profile import DeviceProfile, load_profile
from edgekit.stages.pipeline.plan_builder import Draft, host_description, placed, plain, versions
from edgekit.stages.pipeline.plan_sources import sources
from edgekit.stages.pipeline.plan_variants import artifact_steps, variants
from edgekit.stages.tracking.settings import no_secret, tracking, tracking_step


def plan(project: Project, file: Located[ProjectConfig]) -> Planned:
    """The graph that the file describes. What it does not name and cannot be made is noted and left out.

    Raises InputError, with file and line, for a name that is none, a file that is not there, a variant that no route
    reaches, a report that cannot be written, and steps that would wait for one another.
    """
    made = Draft(project, file)
    devices, emulated = _devices(made), _emulated(made)
    for index, entry in enumerate(made.config.models):
        at: Location = ("models", index)
        for source in sources(made, at, entry):
            for variant, found in variants(made, at, entry, source):
                artifact_steps(made, source, variant, found, (devices, emulated))
    _reports(made)
    _tracking(made)
    graph = assemble(made.steps, made.where)
    _check_files(made, graph)
    return Planned(graph, tuple(made.notes), _looked_at(made, graph))


def _looked_at(made: Draft, graph: Graph) -> tuple[str, ...]:
    """Files whose content or presence the plan depends on: what no step writes, and what would come before a model or
    device that edgekit ships, or would take a data set's name."""
    root, models = made.project.root, made.config.models
    found = [read.path for step in graph.steps for read in step.reads if graph.writer(read.path) is None]
    found += [f"models/{entry.name}/model.toml" for entry in models if entry.path is None]
    found += [f"device_profiles/{name}.toml" for name in (made.config.bench.devices if made.config.bench else ())]
    found += [entry.training.data for entry in models if entry.training is not None and entry.training.data]
    return tuple(dict.fromkeys((made.relative(made.file.path), *(made.relative(root / path) for path in found))))


def _devices(made: Draft) -> dict[str, DeviceProfile | None]:
    """The devices of the bench by name; None for this host as it is."""
    bench = made.config.bench
    known = made.project.device_files()
    found: dict[str, DeviceProfile | None] = {}
    for index, name in enumerate(bench.devices if bench else ()):
        if name != HOST and name not in known:
            raise made.file.error(("bench", "devices", index), str(unknown_name("device", name, [*known, HOST])))
        found[name] = None if name == HOST else load_profile(known[name])
    if bench and "emulated" in bench.tiers and not any(item and item.emulation for item in found.values()):
        raise made.file.error(("bench", "tiers"), "none of these devices can be emulated; see: edgekit devices")
    return found


def _emulated(made: Draft) -> dict[str, DeviceProfile]:
    """The devices on whose emulated core artifacts are validated, by name."""
    known = made.project.device_files()
    found: dict[str, DeviceProfile] = {}
    for index, name in enumerate(made.config.validate_on):
        at: Location = ("validate_on", index)
        if name not in known:
            raise made.file.error(at, str(unknown_name("device", name, list(known))))
        found[name] = load_profile(known[name])
        placed(made, at, emulator.emulation_of, name, found[name])
    return found


def _reports(made: Draft) -> None:
    known = plugin_registry.names("edgekit.reports")
    for index, entry in enumerate(made.config.reports):
        at: Location = ("reports", index)
        if entry.format not in known:
            raise made.file.error((*at, "format"), str(unknown_name("report format", entry.format, known)))
        path = made.given(entry.path)
        problem = _taken(made, path) or _unwritable(path)
        if problem:
            raise made.file.error((*at, "path"), f"cannot write {path}: {problem}")
        where = f"{made.file.where((*at, 'path'))}: reports.{index}.path"
        made.add((*at, "path"), _report(made, entry.format, made.relative(path), where))


def _taken(made: Draft, path: Path) -> str:
    """Why a report would overwrite something else."""
    if path == made.file.path:
        return "this file is what the report is made by"
    inside = next((step.folder for step in made.steps if step.folder and step.writes(made.relative(path))), "")
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


def _report(made: Draft, format_name: str, path: str, where: str) -> Step:
    files = ["manifest.json", VALIDATION_FILE, CHECK_FILE]
    reads: list[Read] = []
    for item in made.artifacts:
        of_devices = [*map(validation_file, item["emulated"]), *map(bench_file, item["devices"])]
        layers = [LAYERS_FILE] if item["layers"] else []
        reads += [Read(f"{item['folder']}/{file}") for file in (*files, *of_devices, *layers)]
        reads.append(Read(f"{Path(item['folder']).parent}/source/{SOURCE_FILE}"))
    return Step(
        f"report {format_name} {path}",
        "report",
        path,
        after=tuple(step.name for step in made.steps if not step.last),
        reads=tuple(dict.fromkeys(reads)),
        values=plain({"format": format_name, "host": host_description(), "versions": versions(())}),
        arguments={"artifacts": list(made.artifacts), "where": where},
    )


def _tracking(made: Draft) -> None:
    entry, root = made.config.mlflow, made.project.root
    if entry is None:
        return
    try:
        chosen = tracking(entry.uri, entry.experiment, root, root, model_files=entry.model_files)
    except InputError as error:
        raise made.file.error(("mlflow", "uri"), str(error)) from None
    if no_secret(entry.uri) != entry.uri:  # build/ would keep it too
        advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or give the URI to --mlflow"
        raise made.file.error(("mlflow", "uri"), f"a password does not belong into this file: {advice}")
    made.add(("mlflow",), tracking_step(made.steps, chosen))


def _check_files(made: Draft, graph: Graph) -> None:
    """Raises InputError for a file that the user named, that is not there, and that no step writes."""
    for step in graph.steps:
        if step.kind != "take in":
            continue
        for read in step.reads:
            if not (made.project.root / read.path).exists() and graph.writer(read.path) is None:
                raise InputError(f"{made.where(step.name)}: {read.path}: no such file or folder")

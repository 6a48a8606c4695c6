"""From `edgekit.toml` to the step graph: every name looked up, every route found, every file that is read named."""

from __future__ import annotations

import json
import mmap
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.config.door import Located
from edgekit.config.project import HOST, ModelEntry, ProjectConfig, is_code
from edgekit.core import imports, plugins, requirements
from edgekit.core.budgets import Budget
from edgekit.core.code import Factory
from edgekit.core.emulated import emulation_file
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.events import Noted
from edgekit.core.layers import LAYERS_FILE
from edgekit.core.measurement import bench_file
from edgekit.core.pipeline import Graph, Read, Step, assemble
from edgekit.core.planned import Planned
from edgekit.core.project import Project
from edgekit.core.requirements import ONNX, SAFETENSORS, Requirement
from edgekit.core.source import CALIBRATION_FILE, GOLDEN_FILE, SOURCE_FILE, TEST_FILE
from edgekit.core.specs import Route, Variant
from edgekit.core.toml_lines import Location
from edgekit.core.tracking import no_secret, tracking, tracking_step
from edgekit.core.validation import VALIDATION_FILE, validation_file
from edgekit.devices import host
from edgekit.devices.emulation import pins
from edgekit.devices.profile import DeviceProfile, load_profile
from edgekit.runtimes._base import Runtime
from edgekit.sources._base import SourceKind
from edgekit.stages import emulate, routes, subjects
from edgekit.stages.train import parse_frameworks
from edgekit.training._base import Trainer

CHECK_FILE = "check.json"
_TRAINED_FROM = ("task", "metric", "input", "output", "data", "training")
# What a training writes of its course differs from run to run, and no later step reads it.
_COURSE = ("history", "training.seconds")
_EXTERNAL = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)


@dataclass(frozen=True)
class _Source:
    """A source that exports start from, and the step that makes it. `code` are the files that build it."""

    model: str
    kind: str
    step: str
    entry: ModelEntry
    at: Location
    code: tuple[Read, ...]

    @property
    def label(self) -> str:
        return f"{self.model}/{self.kind}"


@dataclass
class _Plan:
    """The steps as they are found, and where in the file each comes from."""

    project: Project
    file: Located[ProjectConfig]
    steps: list[Step] = field(default_factory=list)
    origins: dict[str, Location] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Noted] = field(default_factory=list)

    @property
    def config(self) -> ProjectConfig:
        return self.file.value

    def relative(self, path: Path) -> str:
        """From the project's root, or absolute outside it."""
        return str(path.relative_to(self.project.root)) if path.is_relative_to(self.project.root) else str(path)

    def given(self, text: str) -> Path:
        """A path of the file."""
        return Path(os.path.normpath(self.project.root / Path(text).expanduser()))

    def where(self, step: str) -> str:
        return self.file.where(self.origins.get(step, ()))

    def add(self, at: Location, step: Step) -> None:
        if step.name in self.origins:
            raise self.file.error(at, f"{step.name} is in this file twice; give the model another name")
        self.origins[step.name] = at
        self.steps.append(step)


def plan(project: Project, file: Located[ProjectConfig]) -> Planned:
    """The graph that the file describes. What it does not name and cannot be made is noted and left out.

    Raises InputError, with file and line, for a name that is none, a file that is not there, a variant that no route
    reaches, a report that cannot be written, and steps that would wait for one another.
    """
    made = _Plan(project, file)
    devices, emulated = _devices(made), _emulated(made)
    for index, entry in enumerate(made.config.models):
        at: Location = ("models", index)
        for source in _sources(made, at, entry):
            for variant, found in _variants(made, at, entry, source):
                _artifact(made, source, variant, found, (devices, emulated))
    _reports(made)
    _tracking(made)
    graph = assemble(made.steps, made.where)
    _check_files(made, graph)
    return Planned(graph, tuple(made.notes), _looked_at(made, graph))


def _looked_at(made: _Plan, graph: Graph) -> tuple[str, ...]:
    """Files whose content or presence the plan depends on: what no step writes, and what would come before a model or
    device that edgekit ships, or would take a data set's name."""
    root, models = made.project.root, made.config.models
    found = [read.path for step in graph.steps for read in step.reads if graph.writer(read.path) is None]
    found += [f"models/{entry.name}/model.toml" for entry in models if entry.path is None]
    found += [f"device_profiles/{name}.toml" for name in (made.config.bench.devices if made.config.bench else ())]
    found += [entry.training.data for entry in models if entry.training is not None and entry.training.data]
    return tuple(dict.fromkeys((made.relative(made.file.path), *(made.relative(root / path) for path in found))))


def _plain(values: Mapping[str, Any]) -> Any:
    """As it comes back from JSON: so that a value and its record are equal when they are the same."""
    return json.loads(json.dumps(values))


@cache
def _version(requirement: Requirement) -> str | None:
    return requirement.version()


def _versions(needed: Iterable[Requirement]) -> dict[str, str]:
    """edgekit's own version, Python's, and those of the packages that are installed."""
    own = {"edgekit": __version__, "python": platform.python_version()}
    found = {item.distribution: _version(item) for item in dict.fromkeys(needed)}
    return own | {name: version for name, version in sorted(found.items()) if version is not None}


def _devices(made: _Plan) -> dict[str, DeviceProfile | None]:
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


def _emulated(made: _Plan) -> dict[str, DeviceProfile]:
    """The devices on whose emulated core artifacts are validated, by name."""
    known = made.project.device_files()
    found: dict[str, DeviceProfile] = {}
    for index, name in enumerate(made.config.validate_on):
        at: Location = ("validate_on", index)
        if name not in known:
            raise made.file.error(at, str(unknown_name("device", name, list(known))))
        found[name] = load_profile(known[name])
        _at(made, at, emulate.emulation_of, name, found[name])
    return found


def _sources(made: _Plan, at: Location, entry: ModelEntry) -> Iterator[_Source]:
    if entry.path is not None:
        yield _taken_in(made, at, entry, entry.path)
        return
    name, known = str(entry.name), made.project.models()
    if name not in known:
        sentence = f"{unknown_name('model', name, list(known))}; a model of your own has a path"
        raise made.file.error((*at, "name"), sentence)
    for kind in parse_frameworks(entry.framework):
        yield _trained(made, at, entry, known[name], kind)


def _trained(made: _Plan, at: Location, entry: ModelEntry, folder: Path, kind: str) -> _Source:
    trainer: Trainer = plugins.load("edgekit.training", kind, "TRAINER")
    chosen = entry.training
    options = {} if chosen is None else {key: value for key, value in asdict(chosen).items() if value is not None}
    if options.get("qat") and trainer.no_qat:
        raise made.file.error((*at, "training", "qat"), trainer.no_qat)
    model = folder.name
    code = _files(made, folder / trainer.code, folder)
    reads = [Read(made.relative(folder / "model.toml"), only=_TRAINED_FROM), *_files(made, folder / "data.py", folder)]
    reads += [Read(made.relative(path)) for path in sorted(folder.iterdir()) if _may_be_data(path)]
    if "data" in options and made.given(options["data"]).exists():
        reads.append(Read(made.relative(made.given(options["data"]))))
    needed = (*trainer.requires, *(trainer.qat_requires if options.get("qat") else ()))
    source = made.relative(made.project.source_folder(model, kind))
    step = Step(
        f"train {model}/{kind}",
        "train",
        f"{source}/{SOURCE_FILE}",
        folder=source,
        reads=tuple(dict.fromkeys((*reads, *code))),
        values=_plain({"options": options, "versions": _versions(needed)}),
        arguments={"model": model, "kind": kind},
    )
    made.add(at, step)
    return _Source(model, kind, step.name, entry, at, code)


def _may_be_data(path: Path) -> bool:
    """Whether a model's data.py may read it: what is in the folder beside code, description and words."""
    return path.name != "__pycache__" and path.suffix not in (".py", ".toml", ".md") and path.name[0] != "."


def _files(made: _Plan, path: Path, top: Path) -> tuple[Read, ...]:
    """A Python file and what it imports from beside it."""
    return tuple(Read(made.relative(item)) for item in imports.files_of(path, top)) or (Read(made.relative(path)),)


def _taken_in(made: _Plan, at: Location, entry: ModelEntry, path: str) -> _Source:
    name = entry.name or subjects.default_name(path)
    if name in made.project.models():
        raise made.file.error(at, f"{name} is the name of a reference model; give yours another name")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise made.file.error((*at, "name"), f"'{name}': a name has letters, digits, '_', '-' and '.'")
    for index, text in enumerate(entry.inputs):
        _at(made, (*at, "inputs", index), subjects.parse_input, text)
    kind = str(entry.framework) if entry.is_code else _kind(made, at, path)
    source_kind: SourceKind = plugins.load("edgekit.sources", kind, "SOURCE")
    code = _code(made, path) if entry.is_code else ()
    reads = [*code, *_model_files(made, entry, path)]
    named = [text for text in (entry.weights, entry.sample, *entry.reads) if text]
    reads += [Read(made.relative(made.given(text))) for text in named]
    if entry.calibration:
        reads += _code(made, entry.calibration) if is_code(entry.calibration) else [
            Read(made.relative(made.given(entry.calibration)))
        ]  # fmt: skip
    given = ("inputs", "dims", "image_range", "path", "weights", "sample", "calibration")
    source = made.relative(made.project.source_folder(name, kind))
    step = Step(
        f"take in {name}/{kind}",
        "take in",
        f"{source}/{SOURCE_FILE}",
        folder=source,
        reads=tuple(dict.fromkeys(reads)),
        values=_plain(
            {
                "options": {key: value for key in given if (value := getattr(entry, key)) is not None},
                "versions": _versions((*source_kind.requires, ONNX, SAFETENSORS)),
            }
        ),
        arguments={"model": name, "kind": kind, "framework": entry.framework},
    )
    made.add(at, step)
    return _Source(name, kind, step.name, entry, at, code)


def _at(made: _Plan, at: Location, check: Any, *arguments: Any) -> Any:
    """What `check` returns; its InputError gets the place in the file."""
    try:
        return check(*arguments)
    except InputError as error:
        raise made.file.error(at, str(error)) from None


def _kind(made: _Plan, at: Location, path: str) -> str:
    """The kind of a model file; of one that another step is still to write, by how its name ends."""
    where = made.given(path)
    if where.exists():
        kind: str = _at(made, (*at, "path"), subjects.kind_of, where)
        return kind
    kinds: list[SourceKind] = [
        plugins.load("edgekit.sources", name, "SOURCE") for name in plugins.names("edgekit.sources")
    ]
    fitting = [kind.name for kind in kinds if where.suffix.lower() in kind.suffixes]
    if not fitting or not where.is_relative_to(made.project.build):
        raise made.file.error((*at, "path"), f"{path}: no such file or folder")
    return fitting[0]


def _code(made: _Plan, text: str) -> tuple[Read, ...]:
    """The files behind `file.py:function` or `package.module:function`."""
    factory = Factory.parse(text)
    root = made.project.root
    if factory.where.endswith(".py"):
        path = made.given(factory.where)
        return _files(made, path, path.parent)
    path_of_module = imports.module_file(factory.where, root)
    if path_of_module is not None:
        inside = [imports.module_file(part, root) for part in _packages(factory.where)]
        files = [read for path in (*inside, path_of_module) if path for read in _files(made, path, root)]
        return tuple(dict.fromkeys(files))
    spec = find_spec(factory.where.partition(".")[0])
    if spec is None or spec.origin is None:
        return ()  # taking it in will say that there is no such module
    origin = Path(spec.origin)
    return (Read(str(origin.parent if origin.name == "__init__.py" else origin)),)


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _model_files(made: _Plan, entry: ModelEntry, path: str) -> list[Read]:
    """The model's file, and the files that an ONNX model keeps its weights in."""
    if entry.is_code:
        return []
    where = made.given(path)
    beside = [where.parent / name for name in _external_files(where)] if where.suffix.lower() == ".onnx" else []
    return [Read(made.relative(item)) for item in (where, *beside)]


def _external_files(path: Path) -> tuple[str, ...]:
    """The names of external data in an ONNX file: entries `location` of its tensors, found without parsing it."""
    if not path.is_file() or path.stat().st_size == 0:
        return ()
    names: dict[str, None] = {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in _EXTERNAL.finditer(content):
            name = content[match.end() : match.end() + match[1][0]].decode("utf-8", "replace")
            names[name] = None
    return tuple(name for name in names if name.isprintable() and not Path(name).is_absolute())


def _variants(
    made: _Plan, at: Location, entry: ModelEntry, source: _Source
) -> Iterator[tuple[Variant, tuple[Route, ...]]]:
    base = (*at, "variants") if entry.variants is not None else ("variants",)
    texts = made.config.variants if entry.variants is None else entry.variants
    if not texts:
        raise made.file.error(at, "there are no variants to export it to; set variants, here or for the whole file")
    found: dict[Variant, tuple[Route, ...]] = {}
    named = entry.framework not in (None, "both") or entry.path is not None
    for index, text in enumerate(texts):
        chosen = _at(made, (*base, index), routes.parse_selection, (text,), None)
        reached = _reached(made, (*base, index), chosen, source, named)
        unfit = [item for item in reached if _lacks_calibration(entry, item)]
        if unfit and ":" in text:
            sentence = f"{text} of {source.model} takes its ranges from real inputs: set calibration or sample"
            raise made.file.error((*base, index), sentence)
        if unfit:
            left = ", ".join(map(str, unfit))
            detail = f"left out {left}: no calibration samples; set calibration or sample"
            made.notes.append(Noted(f"export {source.label}", detail, warning=True))
        found |= {item: ways for item, ways in reached.items() if item not in unfit}
    yield from found.items()


def _reached(made: _Plan, at: Location, chosen: Any, source: _Source, named: bool) -> dict[Variant, tuple[Route, ...]]:
    """Of reference models, a variant that only one twin reaches is no error while the twins are not named."""
    kinds = (source.kind,) if named else parse_frameworks(None)
    ways = _at(made, at, lambda: routes.select(kinds, chosen, kinds_named=named, targets_named=True))
    return {variant: found for kind, variant, found in ways if kind == source.kind}


def _lacks_calibration(entry: ModelEntry, variant: Variant) -> bool:
    own = entry.path is not None and not (entry.sample or entry.calibration)
    return own and variant.precision in routes.load_target(variant.target).calibrated


def _artifact(
    made: _Plan,
    source: _Source,
    variant: Variant,
    found: tuple[Route, ...],
    where: tuple[Mapping[str, DeviceProfile | None], Mapping[str, DeviceProfile]],
) -> None:
    """The steps of one variant: export, validate here and on each emulated core, bench on each device, check.

    `where` are the devices of the bench, and those on whose emulated core it is validated.
    """
    devices, emulated = where
    folder = made.relative(made.project.artifact_folder(source.model, source.kind, variant.slug))
    export = _export(made, source, variant, found, folder)
    identity = {"folder": folder, "variant": str(variant), "model": source.model, "kind": source.kind}
    validate = _validate(made, source, variant, folder, identity)
    validated = {
        name: _validate_on(made, validate, name)
        for name, profile in emulated.items()
        if _runs_emulated(made, source, variant, name, profile)
    }
    benched = {name: profile for name, profile in devices.items() if _runs(made, source, variant, name, profile)}
    counted = [name for name, profile in benched.items() if _counted(made, variant, profile)]
    emulations = [_emulate(made, variant, folder, name, identity) for name in counted]
    benches = [
        _bench(made, variant, folder, name, profile, {**identity, "counted": name in counted})
        for name, profile in benched.items()
    ]
    diffs = [_diff(made, source, variant, folder, identity)] if _followed(made, source, variant) else []
    everywhere = {**identity, "devices": list(benched), "emulated": list(validated), "layers": bool(diffs)}
    check = _check(made, source, variant, folder, everywhere)
    steps = (export, validate, *validated.values(), *diffs, *emulations, *benches, check)
    for step in steps:
        made.add(source.at, step)
    made.artifacts.append({**everywhere, "steps": [source.step, *(step.name for step in steps)]})


def _source_reads(made: _Plan, source: _Source, *files: str) -> list[Read]:
    folder = made.relative(made.project.source_folder(source.model, source.kind))
    return [Read(f"{folder}/{SOURCE_FILE}", without=_COURSE), *(Read(f"{folder}/{file}") for file in files)]


def _export(made: _Plan, source: _Source, variant: Variant, found: tuple[Route, ...], folder: str) -> Step:
    target = routes.load_target(variant.target)
    options = made.config.export_options(source.model, str(variant))
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
            needed += plugins.load("edgekit.sources", kind, "SOURCE").requires
        for edge in route.bridges:
            if edge in routes.bridges():
                needed += plugins.load("edgekit.sources.bridges", routes.bridge_name(edge), "BRIDGE").requires
    samples = (GOLDEN_FILE, *((CALIBRATION_FILE,) if calibrated else ()))
    return Step(
        f"export {source.label} {variant}",
        "export",
        f"{folder}/manifest.json",
        folder=folder,
        after=(source.step,),
        reads=(*_source_reads(made, source, *samples), *source.code),
        values=_plain(
            {
                "options": {**options, "dims": source.entry.dims},
                "routes": [route.steps for route in found],
                "versions": _versions(needed),
            }
        ),
        arguments={"model": source.model, "kind": source.kind, "variant": str(variant)},
    )


@cache
def _host() -> str:
    return host.description()


def _runtime(variant: Variant) -> Runtime:
    runtime: Runtime = plugins.load("edgekit.runtimes", routes.load_target(variant.target).runtime, "RUNTIME")
    return runtime


def _validate(made: _Plan, source: _Source, variant: Variant, folder: str, identity: Mapping[str, Any]) -> Step:
    reads = [Read(f"{folder}/manifest.json"), Read(f"{folder}/{GOLDEN_FILE}"), *_source_reads(made, source, TEST_FILE)]
    if source.entry.path is None:
        spec = made.project.model_folder(source.model) / "model.toml"
        reads.append(Read(made.relative(spec), only=("tolerances",)))
    return Step(
        f"validate {source.label} {variant}",
        "validate",
        f"{folder}/{VALIDATION_FILE}",
        after=(f"export {source.label} {variant}",),
        reads=tuple(reads),
        values=_plain({"versions": _versions((*_runtime(variant).requires, requirements.NUMPY))}),
        arguments=identity,
    )


def _validate_on(made: _Plan, validate: Step, device: str) -> Step:
    """The same on a device's emulated core."""
    file = made.relative(made.project.device_file(device))
    return replace(
        validate,
        name=f"{validate.name} on {device}",
        output=f"{validate.arguments['folder']}/{validation_file(device)}",
        reads=(*validate.reads, Read(file, without=("budgets", "provenance", "title"))),
        arguments={**validate.arguments, "device": device},
    )


def _followed(made: _Plan, source: _Source, variant: Variant) -> bool:
    """Whether the error of the variant is asked for layer by layer, and can be told."""
    if not any(fnmatchcase(str(variant), pattern) for pattern in made.config.layers):
        return False
    kind: SourceKind = plugins.load("edgekit.sources", source.kind, "SOURCE")
    runtime = _runtime(variant)
    blind = [what.name for what in (kind, runtime) if not what.shows_inside]
    if blind:
        detail = f"left out: {blind[0]} does not show what is computed inside"
        made.notes.append(Noted(f"diff {source.label} {variant}", detail))
    return not blind


def _diff(made: _Plan, source: _Source, variant: Variant, folder: str, identity: Mapping[str, Any]) -> Step:
    """The error of an artifact, layer by layer, against its source."""
    kind: SourceKind = plugins.load("edgekit.sources", source.kind, "SOURCE")
    needed = (*kind.requires, *_runtime(variant).requires, *routes.load_target(variant.target).reads_with)
    reads = [Read(f"{folder}/manifest.json"), Read(f"{folder}/{GOLDEN_FILE}"), *_source_reads(made, source)]
    return Step(
        f"diff {source.label} {variant}",
        "diff",
        f"{folder}/{LAYERS_FILE}",
        after=(f"export {source.label} {variant}",),
        reads=(*reads, *source.code),
        values=_plain({"versions": _versions((*needed, requirements.NUMPY))}),
        arguments=identity,
    )


def _runs_emulated(made: _Plan, source: _Source, variant: Variant, name: str, profile: DeviceProfile) -> bool:
    refusal = profile.refuses(variant.target, variant.precision)
    if _runtime(variant).name not in pins.RUNTIMES:
        refusal = f"the emulated core does not run {_runtime(variant).name}"
    if refusal:
        made.notes.append(Noted(f"validate {source.label} {variant} on {name}", f"left out: {refusal}"))
    return not refusal


def _runs(made: _Plan, source: _Source, variant: Variant, name: str, profile: DeviceProfile | None) -> bool:
    refusal = profile.refuses(variant.target, variant.precision) if profile else None
    if refusal:
        made.notes.append(Noted(f"bench {source.label} {variant} on {name}", f"left out: {name} {refusal}"))
    return refusal is None


def _counted(made: _Plan, variant: Variant, profile: DeviceProfile | None) -> bool:
    """Whether an inference on the device's emulated core is part of the bench."""
    asked = made.config.bench is not None and "emulated" in made.config.bench.tiers
    return asked and profile is not None and profile.emulation is not None and _runtime(variant).name in pins.RUNTIMES


def _device_reads(made: _Plan, folder: str, device: str) -> list[Read]:
    """What a figure of an artifact under a profile depends on."""
    reads = [Read(f"{folder}/manifest.json"), Read(f"{folder}/{GOLDEN_FILE}")]
    if device != HOST:
        file = made.relative(made.project.device_file(device))
        reads.append(Read(file, without=("budgets", "provenance", "title")))
    return reads


def _emulate(made: _Plan, variant: Variant, folder: str, device: str, identity: Mapping[str, Any]) -> Step:
    bench = made.config.bench
    assert bench is not None  # it asks for the tier
    label = f"{identity['model']}/{identity['kind']}"
    emulation = {"wheels": pins.WHEELS[pins.wheel_set(_runtime(variant).name)], "layout": pins.LAYOUT}
    return Step(
        f"emulate {label} {variant} on {device}",
        "emulate",
        f"{folder}/{emulation_file(device)}",
        after=(f"export {label} {variant}",),
        reads=tuple(_device_reads(made, folder, device)),
        values=_plain(
            {
                "options": {"threads": bench.threads, "per_op": bench.per_op},
                "emulation": emulation,
                "versions": _versions(()),
            }
        ),
        arguments={**identity, "device": device},
    )


def _bench(
    made: _Plan,
    variant: Variant,
    folder: str,
    device: str,
    profile: DeviceProfile | None,
    identity: Mapping[str, Any],
) -> Step:
    bench = made.config.bench
    assert bench is not None  # there are devices
    label = f"{identity['model']}/{identity['kind']}"
    reads, after = _device_reads(made, folder, device), [f"export {label} {variant}"]
    if identity["counted"]:
        reads.append(Read(f"{folder}/{emulation_file(device)}"))
        after.append(f"emulate {label} {variant} on {device}")
    options = {"threads": bench.threads, "min_duration_s": bench.min_duration_s, "min_runs": bench.min_runs}
    options["emulated"] = "emulated" in bench.tiers and profile is not None and profile.emulation is not None
    options["per_op"] = bench.per_op
    needed = (*_runtime(variant).requires, *routes.load_target(variant.target).reads_with, requirements.NUMPY)
    return Step(
        f"bench {label} {variant} on {device}",
        "bench",
        f"{folder}/{bench_file(device)}",
        after=tuple(after),
        reads=tuple(reads),
        values=_plain({"options": options, "host": _host(), "versions": _versions(needed)}),
        arguments={**identity, "device": device},
    )


def _budgets(made: _Plan, model: str) -> list[Budget]:
    return [
        budget
        for entry in made.config.budgets
        if fnmatchcase(model, entry.model)
        for budget in entry.table().budgets(made.file.path.name)
    ]


def _check(made: _Plan, source: _Source, variant: Variant, folder: str, identity: Mapping[str, Any]) -> Step:
    validations = (VALIDATION_FILE, *map(validation_file, identity["emulated"]))
    reads = [Read(f"{folder}/manifest.json"), *(Read(f"{folder}/{file}") for file in validations)]
    for device in identity["devices"]:
        reads.append(Read(f"{folder}/{bench_file(device)}"))
        if device != HOST:
            reads.append(Read(made.relative(made.project.device_file(device)), only=("budgets",)))
    if source.entry.path is None:
        spec = made.project.model_folder(source.model) / "model.toml"
        reads.append(Read(made.relative(spec), only=("budgets",)))
    # Of a pattern that covers it, the key keeps that it does, and not how it is written.
    own = [replace(budget, variant="*") for budget in _budgets(made, source.model) if budget.covers(str(variant))]
    return Step(
        f"check {source.label} {variant}",
        "check",
        f"{folder}/{CHECK_FILE}",
        after=(f"validate {source.label} {variant}",),
        reads=tuple(reads),
        values=_plain({"budgets": [asdict(budget) for budget in own], "versions": _versions(())}),
        arguments=identity,
    )


def _reports(made: _Plan) -> None:
    known = plugins.names("edgekit.reports")
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


def _taken(made: _Plan, path: Path) -> str:
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


def _report(made: _Plan, format_name: str, path: str, where: str) -> Step:
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
        values=_plain({"format": format_name, "host": _host(), "versions": _versions(())}),
        arguments={"artifacts": list(made.artifacts), "where": where},
    )


def _tracking(made: _Plan) -> None:
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


def _check_files(made: _Plan, graph: Graph) -> None:
    """Raises InputError for a file that the user named, that is not there, and that no step writes."""
    for step in graph.steps:
        if step.kind != "take in":
            continue
        for read in step.reads:
            if not (made.project.root / read.path).exists() and graph.writer(read.path) is None:
                raise InputError(f"{made.where(step.name)}: {read.path}: no such file or folder")

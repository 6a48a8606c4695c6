"""From the models of `edgekit.toml` to the steps that make their sources: trained, or taken in."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from edgekit.config.project import ModelEntry, is_code_reference
from edgekit.config.toml_lines import Location
from edgekit.contracts.source import SOURCES, SourceKind
from edgekit.contracts.trainer import TRAINERS
from edgekit.core.build.graph import Step, StepInput, StepKind
from edgekit.core.environment import python_dependencies
from edgekit.core.environment.requirements import ONNX, SAFETENSORS
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import unknown_name
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.stages.models import model_refs
from edgekit.stages.models.train import parse_frameworks
from edgekit.stages.pipeline.plan_builder import (
    PlanBuilder,
    PlannedSource,
    code_files,
    to_json_values,
    versions,
    with_location,
)

_TRAINED_FROM = ("task", "metric", "input", "output", "data", "training")
_EXTERNAL = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)


def sources(builder: PlanBuilder, at: Location, entry: ModelEntry) -> Iterator[PlannedSource]:
    """An entry's sources, whose steps are added: one, or both twins of a reference model. Raises InputError with the
    place in the file."""
    if entry.path is not None:
        yield _taken_in(builder, at, entry, entry.path)
        return
    name, known = str(entry.name), builder.project.models()
    if name not in known:
        sentence = f"{unknown_name('model', name, list(known))}; a model of your own has a path"
        raise builder.file.error((*at, "name"), sentence)
    for kind in parse_frameworks(entry.framework):
        yield _trained(builder, at, entry, known[name], kind)


def _trained(builder: PlanBuilder, at: Location, entry: ModelEntry, folder: Path, kind: str) -> PlannedSource:
    trainer = TRAINERS.load(kind)
    chosen = entry.training
    options = {} if chosen is None else {key: value for key, value in asdict(chosen).items() if value is not None}
    if options.get("qat") and trainer.no_qat:
        raise builder.file.error((*at, "training", "qat"), trainer.no_qat)
    model = folder.name
    code = code_files(builder, folder / trainer.code, folder)
    reads = [
        StepInput(builder.relative(folder / "model.toml"), only=_TRAINED_FROM),
        *code_files(builder, folder / "data.py", folder),
    ]
    reads += [StepInput(builder.relative(path)) for path in sorted(folder.iterdir()) if _may_be_data(path)]
    if "data" in options and builder.given(options["data"]).exists():
        reads.append(StepInput(builder.relative(builder.given(options["data"]))))
    needed = (*trainer.requires, *(trainer.qat_requires if options.get("qat") else ()))
    source = builder.relative(builder.project.source_folder(model, kind))
    step = Step(
        f"train {model}/{kind}",
        StepKind.TRAIN,
        f"{source}/{SOURCE_FILE}",
        folder=source,
        reads=tuple(dict.fromkeys((*reads, *code))),
        values=to_json_values({"options": options, "versions": versions(needed)}),
        arguments={"model": model, "kind": kind},
    )
    builder.add(at, step)
    return PlannedSource(model, kind, step.name, entry, at, code)


def _may_be_data(path: Path) -> bool:
    """Whether a model's data.py may read it: what is in the folder beside code, description and words."""
    return path.name != "__pycache__" and path.suffix not in (".py", ".toml", ".md") and path.name[0] != "."


def _taken_in(builder: PlanBuilder, at: Location, entry: ModelEntry, path: str) -> PlannedSource:
    name = entry.name or model_refs.default_name(path)
    if name in builder.project.models():
        raise builder.file.error(at, f"{name} is the name of a reference model; give yours another name")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise builder.file.error((*at, "name"), f"'{name}': a name has letters, digits, '_', '-' and '.'")
    for index, text in enumerate(entry.inputs):
        with_location(builder, (*at, "inputs", index), model_refs.parse_input, text)
    kind = str(entry.framework) if entry.is_code else _kind(builder, at, path)
    source_kind = SOURCES.load(kind)
    code = _code(builder, path) if entry.is_code else ()
    reads = [*code, *_model_files(builder, entry, path)]
    named = [text for text in (entry.weights, entry.sample, *entry.reads) if text]
    reads += [StepInput(builder.relative(builder.given(text))) for text in named]
    if entry.calibration:
        reads += _code(builder, entry.calibration) if is_code_reference(entry.calibration) else [
            StepInput(builder.relative(builder.given(entry.calibration)))
        ]  # fmt: skip
    given = ("inputs", "dims", "image_range", "path", "weights", "sample", "calibration")
    source = builder.relative(builder.project.source_folder(name, kind))
    step = Step(
        f"import {name}/{kind}",
        StepKind.IMPORT,
        f"{source}/{SOURCE_FILE}",
        folder=source,
        reads=tuple(dict.fromkeys(reads)),
        values=to_json_values(
            {
                "options": {key: value for key in given if (value := getattr(entry, key)) is not None},
                "versions": versions((*source_kind.requires, ONNX, SAFETENSORS)),
            }
        ),
        arguments={"model": name, "kind": kind, "framework": entry.framework},
    )
    builder.add(at, step)
    return PlannedSource(name, kind, step.name, entry, at, code)


def _kind(builder: PlanBuilder, at: Location, path: str) -> str:
    """The kind of a model file; of one that another step is still to write, by how its name ends."""
    where = builder.given(path)
    if where.exists():
        kind: str = with_location(builder, (*at, "path"), model_refs.kind_of, where)
        return kind
    kinds: list[SourceKind] = [SOURCES.load(name) for name in SOURCES.names()]
    fitting = [kind.name for kind in kinds if where.suffix.lower() in kind.suffixes]
    if not fitting or not where.is_relative_to(builder.project.build):
        raise builder.file.error((*at, "path"), f"{path}: no such file or folder")
    return fitting[0]


def _code(builder: PlanBuilder, text: str) -> tuple[StepInput, ...]:
    """The files behind `file.py:function` or `package.module:function`."""
    factory = Factory.parse(text)
    root = builder.project.root
    if factory.where.endswith(".py"):
        path = builder.given(factory.where)
        return code_files(builder, path, path.parent)
    path_of_module = python_dependencies.module_file(factory.where, root)
    if path_of_module is not None:
        inside = [python_dependencies.module_file(part, root) for part in _packages(factory.where)]
        files = [read for path in (*inside, path_of_module) if path for read in code_files(builder, path, root)]
        return tuple(dict.fromkeys(files))
    spec = find_spec(factory.where.partition(".")[0])
    if spec is None or spec.origin is None:
        return ()  # taking it in will say that there is no such module
    origin = Path(spec.origin)
    return (StepInput(str(origin.parent if origin.name == "__init__.py" else origin)),)


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _model_files(builder: PlanBuilder, entry: ModelEntry, path: str) -> list[StepInput]:
    """The model's file, and the files that an ONNX model keeps its weights in."""
    if entry.is_code:
        return []
    where = builder.given(path)
    beside = [where.parent / name for name in _external_files(where)] if where.suffix.lower() == ".onnx" else []
    return [StepInput(builder.relative(item)) for item in (where, *beside)]


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

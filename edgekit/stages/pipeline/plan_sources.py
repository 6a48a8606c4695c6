"""Plans the steps that train or import the models of `edgekit.toml`."""

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
from edgekit.core.environment.requirements import ONNX, SAFETENSORS, TRANSFORMERS
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import unknown_name
from edgekit.core.values.file_names import SOURCE_FILE
from edgekit.core.values.preprocessing import parse_preprocess
from edgekit.core.values.synthetic_samples import SYNTHETIC
from edgekit.stages.models import model_refs
from edgekit.stages.models.import_job import import_step
from edgekit.stages.models.train import parse_frameworks
from edgekit.stages.pipeline.plan_builder import (
    PlanBuilder,
    PlannedSource,
    code_files,
    to_json_values,
    versions,
    with_location,
)

# The tables of a model.toml that a training depends on: a changed budget or tolerance does not retrain the model.
_TRAINED_FROM = ("task", "metric", "input", "output", "data", "training")
# A serialized StringStringEntryProto with the key `location` (onnx.proto: field 1, 8 bytes; then field 2, its length).
_EXTERNAL_LOCATION = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)


def sources(builder: PlanBuilder, at: Location, entry: ModelEntry) -> Iterator[PlannedSource]:
    """Add the train or import steps of an entry.

    Args:
        builder: The plan's builder.
        at: The position of the entry in the file.
        entry: The entry.

    Yields:
        The sources: one of a user's model, one per framework of a reference model.

    Raises:
        InputError: With file and line: an unknown model, a missing file or an invalid option.
    """
    if entry.path is not None:
        yield _import_source(builder, at, entry, entry.path)
        return
    name, folders = str(entry.name), builder.project.models()
    if name not in folders:
        message = f"{unknown_name('model', name, list(folders))}; for a model of your own, set path"
        raise builder.file.error((*at, "name"), message)
    for kind in parse_frameworks(entry.framework):
        yield _train_source(builder, at, entry, folders[name], kind)


def _train_source(builder: PlanBuilder, at: Location, entry: ModelEntry, folder: Path, kind: str) -> PlannedSource:
    trainer = TRAINERS.load(kind)
    training = entry.training
    options = {} if training is None else {key: value for key, value in asdict(training).items() if value is not None}
    if options.get("qat") and trainer.no_qat:
        raise builder.file.error((*at, "training", "qat"), trainer.no_qat)
    model = folder.name
    code = code_files(builder, folder / trainer.code, folder)
    reads = [
        StepInput(builder.relative(folder / "model.toml"), only=_TRAINED_FROM),
        *code_files(builder, folder / "data.py", folder),
    ]
    reads += [StepInput(builder.relative(path)) for path in sorted(folder.iterdir()) if _may_be_data(path)]
    if "data" in options and builder.resolve(options["data"]).exists():
        reads.append(StepInput(builder.relative(builder.resolve(options["data"]))))
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
    """Return whether a model's data.py may read the file: it is not code, configuration, documentation or hidden."""
    return path.name != "__pycache__" and path.suffix not in (".py", ".toml", ".md") and path.name[0] != "."


def _import_source(builder: PlanBuilder, at: Location, entry: ModelEntry, path: str) -> PlannedSource:
    name = entry.name or model_refs.default_name(path)
    if name in builder.project.models():
        raise builder.file.error(at, f"{name} is the name of a reference model; choose another name")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise builder.file.error((*at, "name"), f"'{name}': a name has letters, digits, '_', '-' and '.'")
    for index, text in enumerate(entry.inputs):
        with_location(builder, (*at, "inputs", index), model_refs.parse_input, text)
    for index, text in enumerate(entry.preprocess):
        with_location(builder, (*at, "preprocess", index), parse_preprocess, text)
    kind = str(entry.framework) if entry.is_code else _kind(builder, at, path)
    source_kind = SOURCES.load(kind)
    code = _code(builder, path) if entry.is_code else ()
    reads = [*code, *_model_files(builder, entry, path)]
    extra_files = [text for text in (entry.weights, entry.sample, *entry.reads) if text]
    reads += [StepInput(builder.relative(builder.resolve(text))) for text in extra_files]
    if entry.calibration and entry.calibration != SYNTHETIC:
        reads += _code(builder, entry.calibration) if is_code_reference(entry.calibration) else [
            StepInput(builder.relative(builder.resolve(entry.calibration)))
        ]  # fmt: skip
    packages = (*source_kind.requires, *(source_kind.synthesis_requires if entry.calibration == SYNTHETIC else ()))
    described = ("inputs", "dims", "fixed", "preprocess", "image_range", "signature")
    option_keys = (*described, "path", "weights", "sample", "calibration")
    source = builder.relative(builder.project.source_folder(name, kind))
    step = Step(
        import_step(name, kind),
        StepKind.IMPORT,
        f"{source}/{SOURCE_FILE}",
        folder=source,
        reads=tuple(dict.fromkeys(reads)),
        values=to_json_values(
            {
                "options": {key: value for key in option_keys if (value := getattr(entry, key)) is not None},
                "versions": versions((*packages, ONNX, SAFETENSORS, TRANSFORMERS)),
            }
        ),
        arguments={"model": name, "kind": kind, "framework": entry.framework},
    )
    builder.add(at, step)
    return PlannedSource(name, kind, step.name, entry, at, code)


def _kind(builder: PlanBuilder, at: Location, path: str) -> str:
    """The kind of a model file; if another step has yet to write the file, the kind is derived from its suffix."""
    file = builder.resolve(path)
    if file.exists():
        kind: str = with_location(builder, (*at, "path"), model_refs.kind_of, file)
        return kind
    kinds: list[SourceKind] = [SOURCES.load(name) for name in SOURCES.names()]
    matches = [kind.name for kind in kinds if file.suffix.lower() in kind.suffixes]
    if not matches or not file.is_relative_to(builder.project.build):
        raise builder.file.error((*at, "path"), f"{path}: no such file or folder")
    return matches[0]


def _code(builder: PlanBuilder, text: str) -> tuple[StepInput, ...]:
    """The files that `file.py:function` or `package.module:function` depends on."""
    factory = Factory.parse(text)
    root = builder.project.root
    if factory.where.endswith(".py"):
        path = builder.resolve(factory.where)
        return code_files(builder, path, path.parent)
    path_of_module = python_dependencies.module_file(factory.where, root)
    if path_of_module is not None:
        packages = [python_dependencies.module_file(part, root) for part in _packages(factory.where)]
        files = [read for path in (*packages, path_of_module) if path for read in code_files(builder, path, root)]
        return tuple(dict.fromkeys(files))
    spec = find_spec(factory.where.partition(".")[0])
    if spec is None or spec.origin is None:
        return ()  # the import step reports the missing module
    origin = Path(spec.origin)
    return (StepInput(str(origin.parent if origin.name == "__init__.py" else origin)),)


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _model_files(builder: PlanBuilder, entry: ModelEntry, path: str) -> list[StepInput]:
    """The model's file, and the external data files of an ONNX model."""
    if entry.is_code:
        return []
    file = builder.resolve(path)
    data_files = [file.parent / name for name in _external_files(file)] if file.suffix.lower() == ".onnx" else []
    return [StepInput(builder.relative(part)) for part in (file, *data_files)]


def _external_files(path: Path) -> tuple[str, ...]:
    """The external data files of an ONNX file: the `location` entries of its tensors, found without parsing it."""
    if not path.is_file() or path.stat().st_size == 0:
        return ()
    names: dict[str, None] = {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in _EXTERNAL_LOCATION.finditer(content):
            name = content[match.end() : match.end() + match[1][0]].decode("utf-8", "replace")
            names[name] = None
    return tuple(name for name in names if name.isprintable() and not Path(name).is_absolute())

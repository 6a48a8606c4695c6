"""Which source models a command is about: reference models by name, and the user's own by path, code or name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.contracts.source import SOURCES, SourceKind
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.events import Noted
from edgekit.core.records.source import SourceModel
from edgekit.core.values.specs import Dim, TensorSpec
from edgekit.stages.context import FRAMEWORKS, Context, source_environment
from edgekit.stages.models.import_job import FactoryRequest, ImportRequest, detect_framework, import_user_model
from edgekit.stages.models.train import parse_frameworks

_CODE = re.compile(r"(?:.*\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")


_CROSS = re.compile(r"(?<=\d)x(?=\w)|(?<=\w)x(?=\d)")  # an x beside a number; the one in `maxlen` is a letter
USUAL_FUNCTIONS = ("build", "build_model", "create", "create_model", "get_model", "make", "make_model", "model")


@dataclass(frozen=True)
class UserModelOptions:
    """What the user says of a model of their own: the texts of the options, as they were typed.

    `inputs` are `name:shape:dtype`, `calibration` a file, a folder of images or `file.py:generator`, `sizes` those of
    symbolic dimensions; pixels 0..255 of images become `image_range`.
    """

    name: str | None = None
    weights: Path | None = None
    inputs: tuple[str, ...] = ()
    sample: Path | None = None
    calibration: str | None = None
    sizes: dict[str, int] | None = None
    image_range: tuple[float, float] = (0.0, 1.0)

    @property
    def said(self) -> bool:
        """Whether anything was said that only a model of the user's own can take."""
        return bool(self.name or self.weights or self.inputs or self.sample or self.calibration)


@dataclass(frozen=True)
class ModelSelection:
    """Models and the kinds of their sources. `kinds_named` says that the user asked for these kinds by name."""

    models: tuple[str, ...]
    kinds: tuple[str, ...]
    kinds_named: bool = False


def resolve(
    context: Context, names: Sequence[str], framework: str | None, own: UserModelOptions
) -> tuple[ModelSelection, ...]:
    """The subjects that the names stand for; no name stands for every reference model.

    A model of the user's own that is named by path or code is taken in first, into build/<name>/<kind>/source. Raises
    InputError for a name that is none, and when what was said fits no such model, or several.
    """
    project = context.project
    given = [name for name in names if is_model_reference(context, name)]
    if own.said and len(given) != 1:
        raise InputError(
            "--weights, --input, --sample, --calibration and --name describe one model of your own: name its file,"
            " folder or code"
        )
    known = tuple(name for name in names if name in project.models()) if names else tuple(project.models())
    found: list[ModelSelection] = []
    if known:
        found.append(ModelSelection(known, parse_frameworks(framework), framework not in (None, "both")))
    for name in names:
        if name in given:
            source = import_model(context, name, framework, own)
            found.append(ModelSelection((source.name,), (source.kind,)))
        elif name not in known:
            found.append(ModelSelection((name,), _adopted(context, name, framework)))
    return tuple(found)


def _adopted(context: Context, name: str, framework: str | None) -> tuple[str, ...]:
    kinds = context.project.imported_models(name)
    if not kinds:
        raise unknown_name("model", name, list(context.project.models()))
    if framework in FRAMEWORKS:
        if framework not in kinds:
            raise InputError(f"{name} was not imported as a {framework} model, but as: {', '.join(kinds)}")
        return (str(framework),)
    return kinds


def is_model_reference(context: Context, text: str) -> bool:
    """Whether the text is a file, a folder or code, and not the name of a model that edgekit knows."""
    if text in context.project.models() or context.project.imported_models(text):
        return False
    return os.sep in text or bool(_CODE.fullmatch(text)) or Path(text).exists() or _has_suffix(text)


def _has_suffix(text: str) -> bool:
    suffix = Path(text).suffix.lower()
    return bool(suffix) and any(suffix in _kind(name).suffixes for name in SOURCES.names())


def _kind(name: str) -> SourceKind:
    return SOURCES.load(name)


def kind_of(path: Path) -> str:
    """The source kind of a file or folder. Raises InputError that says what edgekit takes."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    kinds = [_kind(name) for name in SOURCES.names()]
    for kind in kinds:
        if kind.recognizes(path):
            return kind.name
    if path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
        raise InputError(
            f"{path}: this is no TorchScript archive; bare weights need the code that builds the network:"
            f" edgekit export FILE.py:FUNCTION --weights {path.name}"
        )
    suffixes = sorted({suffix for kind in kinds for suffix in kind.suffixes})
    raise InputError(f"{path}: not a model that edgekit takes ({', '.join(suffixes)}, a SavedModel folder, or code)")


def parse_input(text: str) -> TensorSpec:
    """`name:shape:dtype`, such as `image:1x3x224x224:float32` or `ids:batch,seq:int64`; the dtype is float32 unless
    given.

    Raises InputError that says what is wrong.
    """
    parts = text.rsplit(":", 2)
    if len(parts) == 3 and not _is_dtype(parts[2]):
        raise InputError(
            f"--input {text}: unknown dtype '{parts[2]}'; known: float32, float16, int64, int32, uint8, bool …"
        )
    if len(parts) < 3:
        parts = [*text.rsplit(":", 1), "float32"]
    if len(parts) != 3 or not parts[0]:
        raise InputError(f"--input {text}: write NAME:SHAPE:DTYPE, such as image:1x3x224x224:float32")
    name, shape, dtype = parts
    dims = [] if shape in ("", "scalar") else re.split(_CROSS if "," not in shape else ",", shape)
    return TensorSpec(name, tuple(_dim(dim.strip(), text) for dim in dims), dtype)


def _is_dtype(text: str) -> bool:
    try:
        return np.dtype(text).kind in "fiub" and text == str(np.dtype(text))
    except TypeError:
        return False


def _dim(text: str, whole: str) -> Dim:
    if text.isdecimal() and text.isascii() and int(text) > 0:
        return int(text)
    if not text.isidentifier():
        raise InputError(f"--input {whole}: '{text}' is no dimension; write a positive number, or a name such as batch")
    return text


def parse_size(text: str) -> tuple[str, int]:
    """`batch=1` as name and size. Raises InputError."""
    name, equals, size = text.rpartition("=")
    if not equals or not name or not (size.isdecimal() and size.isascii()) or int(size) < 1:
        raise InputError(f"--dim {text}: write NAME=SIZE, such as batch=1")
    return name, int(size)


def default_name(text: str) -> str:
    """What a model is called that nobody gave a name: after its file, or the code that builds it."""
    stem = Path(text).resolve().stem
    if _CODE.fullmatch(text):  # net.py:build is `net`, net.py:small is `net_small`
        factory = Factory.parse(text)
        where = Path(factory.where).stem if factory.where.endswith(".py") else factory.where.rpartition(".")[2]
        stem = where if factory.name in USUAL_FUNCTIONS else f"{where}_{factory.name}"
    return re.sub(r"[^\w.-]", "_", stem).strip(".") or "model"


def import_model(context: Context, text: str, framework: str | None, own: UserModelOptions) -> SourceModel:
    """Takes in a model of the user's: its source folder is like that of a trained model.

    Raises InputError (bad file, code, weights, inputs, samples), MissingDependency, StepError.
    """
    name = own.name or default_name(text)
    if name in context.project.models():
        raise InputError(f"{name} is the name of a reference model; give yours another with --name")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name {name}: a name has letters, digits, '_', '-' and '.'")
    request = _request(context, text, name, framework, own)
    with staged_folder(context.project.source_folder(name, request.kind)) as staging:
        source = context.pool.call(
            import_user_model,
            replace(request, folder=str(staging)),
            step=f"import {name}/{request.kind}",
            environment=source_environment(request.kind),
            listener=context.emit,
        )
    for note in source.notes:
        context.emit(Noted(f"import {name}/{request.kind}", note))
    return source


def _request(context: Context, text: str, name: str, framework: str | None, own: UserModelOptions) -> ImportRequest:
    common = {
        "name": name,
        "base": str(context.project.root),
        "weights": _existing(own.weights),
        "inputs": tuple(map(parse_input, own.inputs)),
        "sizes": own.sizes or {},
        "sample": _existing(own.sample),
        "calibration": from_here(own.calibration),
        "image_range": own.image_range,
    }
    if not _CODE.fullmatch(text):
        if own.weights is not None:
            raise InputError("--weights belongs to a model that code builds: name FILE.py:FUNCTION or MODULE:FUNCTION")
        path = Path(text)
        return ImportRequest(kind=kind_of(path), path=str(path.resolve()), **common)  # type: ignore[arg-type]
    code = from_here(text, context.project.root)
    kind = framework if framework in FRAMEWORKS else framework_of(context, str(code))
    return ImportRequest(kind=str(kind), code=code, **common)  # type: ignore[arg-type]


def _existing(path: Path | None) -> str | None:
    if path is not None and not path.exists():
        raise InputError(f"{path}: no such file")
    return None if path is None else str(path.resolve())


def from_here(text: str | None, base: Path | None = None) -> str | None:
    """A path, alone or before `:function`, as it stands from `base` (absolute outside it); a module stays a module."""
    if text is None:
        return None
    factory = Factory.parse(text) if _CODE.fullmatch(text) else None
    where = Path(factory.where if factory else text)
    if factory is not None and not factory.where.endswith(".py"):
        return text
    path = where.resolve()
    shown = path.relative_to(base) if base is not None and path.is_relative_to(base) else path
    return f"{shown}:{factory.name}" if factory else str(shown)


def framework_of(context: Context, code: str) -> str:
    """`keras` or `torch`: what the code builds. Raises InputError when it builds something else."""
    return context.pool.call(
        detect_framework,
        FactoryRequest(code, str(context.project.root)),
        step=f"build {code}",
        environment=source_environment("torch"),
        listener=context.emit,
    )


def names_of(subjects: Iterable[ModelSelection]) -> tuple[str, ...]:
    """Every model's name, each once."""
    return tuple(dict.fromkeys(name for item in subjects for name in item.models))

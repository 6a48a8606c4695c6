"""Source models that a command works on: reference models by name, the user's own models by path, code or name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.contracts.source import SOURCES, SourceKind
from edgekit.core.environment.atomic_files import staged_folder
from edgekit.core.environment.user_code import Factory
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.events import FinishEvent, NoteEvent, StartEvent
from edgekit.core.records.source import SourceModel
from edgekit.core.values.fixed_inputs import Number
from edgekit.core.values.preprocessing import parse_all
from edgekit.core.values.specs import Dim, TensorSpec
from edgekit.core.values.synthetic_samples import SYNTHETIC
from edgekit.stages.context import FRAMEWORKS, Context, source_environment
from edgekit.stages.models.import_job import (
    FactoryRequest,
    ImportRequest,
    detect_framework,
    import_step,
    import_user_model,
)
from edgekit.stages.models.mlflow_folder import model_inside
from edgekit.stages.models.train import parse_frameworks

# `FILE.py:FUNCTION` or `package.module:FUNCTION`.
_CODE = re.compile(r"(?:.*\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")
# The x of `1x3x224` and `NxT`: one beside a number or a capital. The x in a symbol such as `maxlen` is a letter.
_CROSS = re.compile(r"(?<=[\dA-Z])x(?=\w)|(?<=\w)x(?=[\dA-Z])")
# Names under which people define the function that builds a model; they do not become a part of the model's name.
USUAL_FUNCTIONS = ("build", "build_model", "create", "create_model", "get_model", "make", "make_model", "model")


@dataclass(frozen=True)
class UserModelOptions:
    """Options that describe one model of the user's, as they were typed.

    Attributes:
        name: Name of the model in build/.
        weights: Weights for code that builds the network.
        inputs: Inputs as `name:shape:dtype`.
        sample: File with real inputs by name, shape (N, ...), and optional `labels`.
        calibration: Calibration samples: a file, a folder of images, `file.py:generator`, or `synthetic`.
        sizes: Sizes of symbolic dimensions by name.
        image_range: The range that pixels 0..255 of images are scaled to.
        signature: Name of the signature of a SavedModel; None for `serving_default`, or the only one.
        fixed: Values of inputs that become constants, by name.
        preprocess: Steps in front of inputs, as `name:key=value,…`.
    """

    name: str | None = None
    weights: Path | None = None
    inputs: tuple[str, ...] = ()
    sample: Path | None = None
    calibration: str | None = None
    sizes: dict[str, int] | None = None
    image_range: tuple[float, float] = (0.0, 1.0)
    signature: str | None = None
    fixed: dict[str, Number] | None = None
    preprocess: tuple[str, ...] = ()

    @property
    def any_set(self) -> bool:
        """Whether an option is set that applies only to a model of the user's."""
        described = (self.weights, self.inputs, self.sample, self.calibration, self.fixed, self.preprocess)
        return any((self.name, self.signature, *described))


@dataclass(frozen=True)
class ModelSelection:
    """Models that share the kinds of their sources.

    Attributes:
        models: Names of the models.
        kinds: The source kinds.
        kinds_named: Whether the user named these kinds.
    """

    models: tuple[str, ...]
    kinds: tuple[str, ...]
    kinds_named: bool = False


def resolve(
    context: Context, names: Sequence[str], framework: str | None, options: UserModelOptions
) -> tuple[ModelSelection, ...]:
    """Return the models that the names of a command line stand for.

    A model that is named by path or code is first imported into build/<name>/<kind>/source.

    Args:
        context: The project and the workers.
        names: Names of models, paths or code; empty for every reference model.
        framework: `keras`, `torch` or `both`; None for all kinds.
        options: Options for a model that is named by path or code.

    Raises:
        InputError: A name is unknown, or `options` are set and the number of such models is not one.
        MissingDependency: A package that the import needs is not installed.
        StepError: The import failed.
    """
    project = context.project
    references = [name for name in names if is_model_reference(context, name)]
    if options.any_set and len(references) != 1:
        raise InputError(
            "weights, inputs, fixed inputs, preprocessing, sample, calibration, signature and name describe one model"
            " of your own: name its file, folder or code",
        )
    reference_models = tuple(name for name in names if name in project.models()) if names else tuple(project.models())
    selections: list[ModelSelection] = []
    if reference_models:
        kinds_named = framework not in (None, "both")
        selections.append(ModelSelection(reference_models, parse_frameworks(framework), kinds_named))
    for name in names:
        if name in references:
            source = _import_as_step(context, name, framework, options)
            selections.append(ModelSelection((source.name,), (source.kind,)))
        elif name not in reference_models:
            selections.append(ModelSelection((name,), _imported_kinds(context, name, framework)))
    return tuple(selections)


def _imported_kinds(context: Context, name: str, framework: str | None) -> tuple[str, ...]:
    kinds = context.project.imported_models(name)
    if not kinds:
        raise unknown_name("model", name, list(context.project.models()))
    if framework in FRAMEWORKS:
        if framework not in kinds:
            raise InputError(f"{name} is not imported as a {framework} model; imported as: {', '.join(kinds)}")
        return (str(framework),)
    return kinds


def is_model_reference(context: Context, text: str) -> bool:
    """Return whether the text is a file, a folder or code, and not the name of a reference or imported model.

    Args:
        context: The project.
        text: A word of the command line.
    """
    if text in context.project.models() or context.project.imported_models(text):
        return False
    return os.sep in text or bool(_CODE.fullmatch(text)) or Path(text).exists() or _has_suffix(text)


def _has_suffix(text: str) -> bool:
    suffix = Path(text).suffix.lower()
    return bool(suffix) and any(suffix in _kind(name).suffixes for name in SOURCES.names())


def _kind(name: str) -> SourceKind:
    return SOURCES.load(name)


def kind_of(path: Path) -> str:
    """Return the source kind of a file or folder.

    Args:
        path: The file or folder; of a folder of MLflow, the model in it counts.

    Raises:
        InputError: There is no such path, or it is not a model that edgekit imports.
        MissingDependency: The package that reads MLflow's YAML is not installed.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    path = model_inside(path)
    kinds = [_kind(name) for name in SOURCES.names()]
    for kind in kinds:
        if kind.recognizes(path):
            return kind.name
    if path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
        raise InputError(
            f"{path}: not a TorchScript archive; weights alone need the code that builds the network: name it as"
            f" FILE.py:FUNCTION, and pass {path.name} as its weights",
            parameters=("weights",),
        )
    suffixes = sorted({suffix for kind in kinds for suffix in kind.suffixes})
    accepted = ", ".join(suffixes)
    raise InputError(
        f"{path}: not a model that edgekit imports ({accepted}, a folder of a SavedModel, of transformers or of"
        " MLflow, or code)"
    )


def parse_input(text: str) -> TensorSpec:
    """Parse an input specification.

    Args:
        text: `name:shape:dtype`, such as `image:1x3x224x224:float32` or `ids:batch,seq:int64`. The dtype may be
            missing and is then float32.

    Raises:
        InputError: The text has another form, or the shape or the dtype is invalid.
    """
    parts = text.rsplit(":", 2)
    if len(parts) == 3 and not _is_dtype(parts[2]):
        raise InputError(
            f"input {text}: unknown dtype '{parts[2]}'; known: float32, float16, int64, int32, uint8, bool …"
        )
    if len(parts) < 3:
        parts = [*text.rsplit(":", 1), "float32"]
    if len(parts) != 3 or not parts[0]:
        raise InputError(f"input {text}: write NAME:SHAPE:DTYPE, such as image:1x3x224x224:float32")
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
        raise InputError(f"input {whole}: invalid dimension '{text}'; use a positive number, or a name such as batch")
    return text


def parse_size(text: str) -> tuple[str, int]:
    """Parse the size of a dimension, such as `batch=1`, into its name and size.

    Args:
        text: `NAME=SIZE`.

    Raises:
        InputError: The text has another form, or the size is not a positive number.
    """
    name, equals, size = text.rpartition("=")
    if not equals or not name or not (size.isdecimal() and size.isascii()) or int(size) < 1:
        raise InputError(f"--dim {text}: write NAME=SIZE, such as batch=1")
    return name, int(size)


def default_name(text: str) -> str:
    """Return the default name of a model, after its file or the code that builds it.

    Args:
        text: A path, or code as `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
    """
    stem = Path(text).resolve().stem
    if _CODE.fullmatch(text):  # net.py:build is `net`, net.py:small is `net_small`
        factory = Factory.parse(text)
        where = Path(factory.where).stem if factory.where.endswith(".py") else factory.where.rpartition(".")[2]
        stem = where if factory.name in USUAL_FUNCTIONS else f"{where}_{factory.name}"
    return re.sub(r"[^\w.-]", "_", stem).strip(".") or "model"


def import_model(context: Context, text: str, framework: str | None, options: UserModelOptions) -> SourceModel:
    """Import a model of the user's into a source folder of the same form as that of a trained model.

    Args:
        context: The project and the workers.
        text: A path, or code as `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
        framework: The framework of code; None detects it.
        options: The user's options.

    Returns:
        The description of the source.

    Raises:
        InputError: The file, code, weights, inputs or samples are invalid, or the name is.
        MissingDependency: The framework is not installed.
        StepError: Loading or running the model failed.
    """
    return _import(context, _checked_request(context, text, framework, options))


def _import_as_step(context: Context, text: str, framework: str | None, options: UserModelOptions) -> SourceModel:
    """Import a model and report when that starts and ends, as a pipeline does of its steps."""
    request = _checked_request(context, text, framework, options)
    step = import_step(request.name, request.kind)
    context.emit(StartEvent(step))
    source = _import(context, request)
    context.emit(FinishEvent(step, parameter_count(source)))
    return source


def parameter_count(source: SourceModel) -> str:
    """Return the result of an import in a few words."""
    return f"{source.parameters:,} parameters"


def _checked_request(context: Context, text: str, framework: str | None, options: UserModelOptions) -> ImportRequest:
    name = options.name or default_name(text)
    if name in context.project.models():
        raise InputError(f"{name} is the name of a reference model; choose another name", parameters=("name",))
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"name {name}: allowed are letters, digits, '_', '-' and '.', first a letter, digit or '_'")
    return _request(context, text, name, framework, options)


def _import(context: Context, request: ImportRequest) -> SourceModel:
    step = import_step(request.name, request.kind)
    with staged_folder(context.project.source_folder(request.name, request.kind)) as staging:
        # Calibration code that the user named runs in this worker too.
        code = request.code or (request.calibration if _CODE.fullmatch(request.calibration or "") else None)
        with context.worker_output(staging) as output:
            source = context.pool.call(
                import_user_model,
                replace(request, folder=str(output)),
                step=step,
                environment=source_environment(request.kind, code),
                listener=context.emit,
            )
    for note in source.notes:
        context.emit(NoteEvent(step, note))
    return source


def _request(context: Context, text: str, name: str, framework: str | None, options: UserModelOptions) -> ImportRequest:
    common = {
        "name": name,
        "base": str(context.project.root),
        "weights": _existing(options.weights),
        "inputs": tuple(map(parse_input, options.inputs)),
        "sizes": options.sizes or {},
        "sample": _existing(options.sample),
        "calibration": options.calibration if options.calibration == SYNTHETIC else from_here(options.calibration),
        "image_range": options.image_range,
        "signature": options.signature,
        "fixed": options.fixed or {},
        "preprocess": parse_all(options.preprocess),
    }
    if not _CODE.fullmatch(text):
        if options.weights is not None:
            raise InputError("weights require code that builds the model: FILE.py:FUNCTION or MODULE:FUNCTION")
        kind, path = kind_of(Path(text)), model_inside(Path(text))
        return ImportRequest(kind=kind, path=str(path.resolve()), **common)  # type: ignore[arg-type]
    code = from_here(text, context.project.root)
    context.named_code.add(str(code))
    built = framework if framework in FRAMEWORKS else framework_of(context, str(code))
    return ImportRequest(kind=str(built), code=code, **common)  # type: ignore[arg-type]


def _existing(path: Path | None) -> str | None:
    if path is not None and not path.exists():
        raise InputError(f"{path}: no such file")
    return None if path is None else str(path.resolve())


def from_here(text: str | None, base: Path | None = None) -> str | None:
    """Return a path or code with its file relative to a folder; the name of a module is returned as it is.

    Args:
        text: A path, or code as `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
        base: The folder; files outside it, and all files if it is None, become absolute.
    """
    if text is None:
        return None
    factory = Factory.parse(text) if _CODE.fullmatch(text) else None
    where = Path(factory.where if factory else text)
    if factory is not None and not factory.where.endswith(".py"):
        return text
    path = where.resolve()
    file = path.relative_to(base) if base is not None and path.is_relative_to(base) else path
    return f"{file}:{factory.name}" if factory else str(file)


def framework_of(context: Context, code: str) -> str:
    """Return the framework of the model that code builds, `keras` or `torch`.

    Args:
        context: The project and the workers.
        code: `FILE.py:FUNCTION` or `MODULE:FUNCTION`, relative to the project's root.

    Raises:
        InputError: The code cannot be executed, or builds something else.
    """
    return context.pool.call(
        detect_framework,
        FactoryRequest(code, str(context.project.root)),
        step=f"build {code}",
        environment=source_environment("torch", code),
        listener=context.emit,
    )

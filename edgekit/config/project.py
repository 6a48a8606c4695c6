"""The schema of `edgekit.toml`: models, variants, devices, budgets and reports of a project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from edgekit.config.loader import STRICT, SourceMapped, read_source_mapped
from edgekit.config.types import Budgets, NotNegative, Positive, PositiveInt
from edgekit.core.errors import InputError
from edgekit.core.values.quantization_form import FORM_OPTIONS, QuantizationForm

# Next to the folders `models`, `device_profiles` and `build`.
PROJECT_FILE = "edgekit.toml"

# `path/to/file.py:function` or `package.module:function`.
_CODE_REFERENCE = re.compile(r"(?:.*\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")

Variants = Annotated[
    tuple[str, ...],
    Field(
        description="Targets (all their precisions) or variants: 'tflite', 'tflite:int8'. See: edgekit targets",
        examples=[["tflite:int8", "onnx"]],
    ),
]
PathText = Annotated[str, Field(min_length=1)]
Glob = Annotated[str, Field(min_length=1, description="A name, or a pattern with * and ?.")]


@dataclass(frozen=True)
class TrainingEntry:
    """How a reference model is trained; each key that is set overrides the value of its `model.toml`."""

    data: Annotated[
        str | None, Field(description="Data set by name (mnist-5k, keras:cifar10 …), or a folder of idx files.")
    ] = None
    epochs: Annotated[int | None, Field(ge=0)] = None
    batch_size: PositiveInt | None = None
    learning_rate: Positive | None = None
    seed: Annotated[int | None, Field(ge=0)] = None
    schedule: Literal["constant", "cosine", "step"] | None = None
    early_stopping: Annotated[
        PositiveInt | None, Field(description="Epochs without a lower validation loss that end the training.")
    ] = None
    qat: Annotated[bool, Field(description="Fine-tune with int8 rounding in the forward pass.")] = False

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ModelEntry:
    """A reference model by its name, or a model of the user's by its path or code."""

    name: Annotated[
        str | None, Field(description="A reference model (see: edgekit models), or what to call your own.")
    ] = None
    path: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Your own model: a .keras, .h5, .onnx, .pt2, .tflite or TorchScript file, a folder of"
            " a SavedModel, of transformers or of MLflow, or the code that builds it, as FILE.py:FUNCTION"
            " or MODULE:FUNCTION.",
        ),
    ] = None
    framework: Annotated[
        Literal["keras", "torch", "both"] | None,
        Field(description="Of a reference model: the framework to train (default: both). Of code: what it builds."),
    ] = None
    variants: Annotated[Variants | None, Field(description="Overrides the `variants` of the file.")] = None
    training: Annotated[TrainingEntry | None, Field(description="Hyperparameters of a reference model.")] = None
    weights: Annotated[PathText | None, Field(description="For code: a state dict, safetensors, .h5.")] = None
    inputs: Annotated[
        tuple[str, ...], Field(description="Inputs as NAME:SHAPE:DTYPE, such as image:1x3x96x96:float32.")
    ] = ()
    sample: Annotated[
        PathText | None,
        Field(description="Real inputs by name (npz, npy); with an array `labels` the accuracy is compared too."),
    ] = None
    calibration: Annotated[
        PathText | None,
        Field(
            description="Inputs that int8 ranges are computed from: npz, npy, a folder of images, FILE.py:FUNCTION, or"
            " synthetic: made from the network's batch norms, without data."
        ),
    ] = None
    image_range: Annotated[
        tuple[float, float], Field(description="The range that pixels 0..255 of calibration images are scaled to.")
    ] = (0.0, 1.0)
    signature: Annotated[
        str | None, Field(description="Of a SavedModel: its signature (default: serving_default, or the only one).")
    ] = None
    dims: Annotated[dict[str, PositiveInt], Field(description="Sizes of symbolic dimensions, such as batch = 1.")] = (
        field(default_factory=dict)
    )
    fixed: Annotated[
        dict[str, bool | int | float], Field(description="Inputs that become constants, such as sr = 16000.")
    ] = field(default_factory=dict)
    preprocess: Annotated[
        tuple[str, ...],
        Field(
            description="Steps from the application's images to inputs as NAME:KEY=VALUE,…, such as"
            " image:size=480x640,scale=1/255."
        ),
    ] = ()
    reads: Annotated[
        tuple[PathText, ...],
        Field(
            description="Other files and folders that the model's code reads; a change in them imports the model again."
        ),
    ] = ()

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.path is None:
            self._check_reference()
        elif self.training is not None:
            raise ValueError("training is allowed only for a reference model, and this one has a path")
        elif self.is_code and self.framework not in ("keras", "torch"):
            raise ValueError('a model that code builds needs framework = "keras" or framework = "torch"')
        elif not self.is_code and (self.weights or self.framework or self.reads):
            raise ValueError("weights, framework and reads need a model built by code (path = 'FILE.py:FUNCTION')")

    def _check_reference(self) -> None:
        if self.name is None:
            raise ValueError("a model needs a name (a reference model) or a path (your own model)")
        path_only = ("weights", "inputs", "sample", "calibration", "signature", "dims", "fixed", "preprocess", "reads")
        for key in (key for key in path_only if getattr(self, key)):
            raise ValueError(f"{key} is allowed only for a model with a path")

    @property
    def is_code(self) -> bool:
        """Whether `path` is a reference to code."""
        return self.path is not None and is_code_reference(self.path)


def is_code_reference(text: str) -> bool:
    """Return whether a text has the form `file.py:function` or `package.module:function`."""
    return bool(_CODE_REFERENCE.fullmatch(text))


@dataclass(frozen=True)
class ExportEntry:
    """Options of the exports that match both patterns. If several entries set an option, the last one wins."""

    model: Glob = "*"
    variant: Glob = "*"
    calibration_samples: Annotated[
        PositiveInt | None,
        Field(description="The number of real samples that int8 and int16x8 ranges are computed from."),
    ] = None
    layout: Annotated[Literal["NCHW", "NHWC"] | None, Field(description="The layout of images in the artifact.")] = None
    opset: Annotated[PositiveInt | None, Field(description="The version of the ONNX operator set.")] = None
    ir_version: Annotated[PositiveInt | None, Field(description="The version of the ONNX file format.")] = None
    inference_input_type: Annotated[
        Literal["float32", "int8", "uint8", "int16"] | None,
        Field(description="The type of the inputs of quantized files."),
    ] = None
    inference_output_type: Annotated[
        Literal["float32", "int8", "uint8", "int16"] | None,
        Field(description="The type of the outputs of quantized files."),
    ] = None
    per_tensor: Annotated[
        bool | None, Field(description="Quantize weights with one scale per tensor instead of per channel.")
    ] = None
    symmetric_activations: Annotated[bool | None, Field(description="Quantize activations symmetrically.")] = None
    ranges: Annotated[
        dict[str, tuple[float, float]] | None,
        Field(description="Lowest and highest value of tensors, instead of what calibration samples show."),
    ] = None
    preset: Annotated[
        Literal["ethos-u", "litert-js", "onnxruntime-mobile"] | None,
        Field(description="Follow the rules of what the file is for; see: edgekit export --for."),
    ] = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        options = {name: value for name in FORM_OPTIONS if (value := getattr(self, name)) is not None}
        try:
            QuantizationForm(**options).resolved()
        except InputError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class BenchEntry:
    """The devices and tiers of a benchmark, and its duration."""

    devices: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="Device profiles, boards, phones and browsers (see edgekit devices); 'host' is this machine.",
            examples=[["raspberry-pi-4b", "host"]],
        ),
    ]
    tiers: Annotated[
        tuple[Literal["host", "emulated"], ...],
        Field(description="'emulated' adds the device's core under QEMU; see: edgekit devices setup --help"),
    ] = ("host",)
    threads: Annotated[
        PositiveInt | None, Field(description="The number of threads; overrides the device profile's.")
    ] = None
    min_duration_s: Annotated[
        NotNegative,
        Field(
            description="The minimum time to measure, in seconds; it is up to doubled while the median is uncertain."
        ),
    ] = 0.25
    min_runs: Annotated[PositiveInt, Field(description="The minimum number of inferences to measure.")] = 50
    per_op: Annotated[bool, Field(description="Measure each operator too, in the tiers that support it.")] = False

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class BudgetEntry(Budgets):
    """Limits of the artifacts that match both patterns. If several entries limit a value, the strictest one wins."""

    model: Glob = "*"

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.table().budgets(""):
            raise ValueError("this budget limits nothing; set size, peak_memory, drift, latency_ms or instructions")


@dataclass(frozen=True)
class ReportEntry:
    """A report that is written at the end of a run."""

    format: Annotated[str, Field(description="A report format.", examples=["console", "json", "markdown"])]
    path: Annotated[PathText, Field(description="The file to write.")]

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class MlflowEntry:
    """The MLflow tracking server that a run's metrics and files are logged to."""

    uri: Annotated[
        PathText,
        Field(
            description="A tracking server, a folder, a database, or databricks.",
            examples=["http://127.0.0.1:5000", "mlruns", "sqlite:///mlflow.db"],
        ),
    ]
    experiment: Annotated[
        str | None, Field(min_length=1, description="The experiment (default: the name of the project's folder).")
    ] = None
    model_files: Annotated[bool, Field(description="Log the model files, not only their metrics and metadata.")] = True

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ProjectConfig:
    """The content of `edgekit.toml`. Paths are relative to the folder of the file."""

    models: tuple[ModelEntry, ...]
    variants: Variants = ()
    export: tuple[ExportEntry, ...] = ()
    validate_on: Annotated[
        tuple[str, ...],
        Field(
            description="Boards, phones, browsers and emulated cores that artifacts are validated on too.",
            examples=[["raspberry-pi-4b"]],
        ),
    ] = ()
    layers: Annotated[
        tuple[Glob, ...],
        Field(
            description="Variants whose error is computed layer by layer for the reports: names or patterns.",
            examples=[["*:int8"]],
        ),
    ] = ()
    bench: BenchEntry | None = None
    budgets: tuple[BudgetEntry, ...] = ()
    reports: tuple[ReportEntry, ...] = ()
    mlflow: MlflowEntry | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models: name at least one model, under [[models]]")

    def export_options(self, model: str, variant: str) -> dict[str, Any]:
        """Return the options of one export.

        Args:
            model: The model's name.
            variant: The variant, such as `onnx:int8`.

        Returns:
            Option name -> value, without the options that no matching entry sets.
        """
        options: dict[str, Any] = {}
        for entry in self.export:
            if fnmatchcase(variant, entry.variant) and fnmatchcase(model, entry.model):
                names = ("calibration_samples", "layout", "opset", "ir_version", *FORM_OPTIONS)
                options |= {name: value for name in names if (value := getattr(entry, name)) is not None}
        return options


def load_project(root: Path) -> SourceMapped[ProjectConfig]:
    """Read the `edgekit.toml` of a project.

    Args:
        root: The project's folder.

    Returns:
        The validated content and its lines.

    Raises:
        InputError: The file is missing, or a key or value is wrong; names the file, the line and the key.
    """
    path = root / PROJECT_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; create one with: edgekit init")
    return read_source_mapped(path, ProjectConfig, "pipeline")


def schema() -> Mapping[str, Any]:
    """Return the JSON Schema of `edgekit.toml`, with which editors complete and check the file."""
    generated = TypeAdapter(ProjectConfig).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated, "title": "edgekit.toml"}

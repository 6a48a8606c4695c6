"""Generation of a first `edgekit.toml` for the models in a folder. The user's code is parsed, never executed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, MissingDependency
from edgekit.stages.models.model_refs import USUAL_FUNCTIONS, kind_of

# Names without suffix under which people store samples.
_SAMPLES = ("sample", "samples", "inputs")
# Folders that are outputs or configuration of edgekit or of a packager, and never a SavedModel.
_NOT_MODELS = ("build", "device_profiles", "models", "dist")
# Top-level package that code imports -> framework of the model that it builds.
_FRAMEWORKS = {"keras": "keras", "tensorflow": "keras", "torch": "torch"}

_HEAD = """\
# `edgekit run` exports each model to each variant, validates it against its source, benchmarks it, checks it against
# the budgets and writes the reports. A step runs again only if something that it reads has changed; `edgekit run
# --explain` prints the reason. All keys: edgekit run --schema

# Targets (`edgekit targets` lists them) or target:precision. int8 needs calibration samples.
variants = ["tflite:float32", "onnx:float32"]
# Devices on whose emulated cores the artifacts are validated too (`edgekit devices setup` installs the emulator).
# validate_on = ["raspberry-pi-4b"]
# Variants whose error is reported layer by layer.
# layers = ["*:int8"]
"""

_REFERENCE = """
# A model of your own has a `path`. This reference model comes with edgekit (`edgekit models` lists all) and is trained
# first.
[[models]]
name = "linear"
framework = "keras"
# training = { epochs = 3, seed = 1 }
"""

_TAIL = """
# Options for the exports that a pattern matches.
# [[export]]
# variant = "*:int8"
# calibration_samples = 100

# Benchmarks run last, one at a time. `edgekit devices` lists the device profiles; "host" is this machine.
# [bench]
# devices = ["raspberry-pi-4b"]

# `edgekit run` ends with exit code 1 if a limit is exceeded. If several limits apply to a value, the strictest counts.
# [[budgets]]
# model = "*"
# variant = "*:int8"
# size = "500 KB"
# drift = 0.01
# latency_ms = { host = 5.0 }

[[reports]]
format = "markdown"
path = "build/report.md"

# Log all metrics and files to MLflow too: a server, a folder or a database. Requires: pip install 'edgekit[mlflow]'
# [mlflow]
# uri = "http://127.0.0.1:5000"
# experiment = "edge"
"""


@dataclass(frozen=True)
class FoundModel:
    """A model in the project's folder.

    Attributes:
        path: The file, the folder, or code as `FILE.py:FUNCTION`.
        framework: The framework that the code imports; None for a file or a folder.
        weights: The weights file of the same name, for code.
        sample: The npz file that probably holds its samples.
    """

    path: str
    framework: str | None = None
    weights: str | None = None
    sample: str | None = None


def find_models(project: Project) -> tuple[FoundModel, ...]:
    """Return the models in the project's root folder: files, SavedModel folders, and code that builds a model.

    Args:
        project: The project.
    """
    root = project.root
    entries = sorted(path for path in root.iterdir() if not path.name.startswith(".") and path.name not in _NOT_MODELS)
    arrays = [path for path in entries if path.suffix == ".npz"]
    files = [FoundModel(path.name, sample=_sample(path, arrays)) for path in entries if _is_model(path)]
    return (*files, *(model for path in entries for model in _code_models(path, entries, arrays)))


def _is_model(path: Path) -> bool:
    try:
        return bool(kind_of(path))
    except (InputError, MissingDependency):
        return False


def _sample(path: Path, arrays: list[Path]) -> str | None:
    """Return the npz file named after the model or named as samples usually are, otherwise the only npz file."""
    for array in arrays:
        if array.stem == path.stem or array.stem.lower() in _SAMPLES:
            return array.name
    return arrays[0].name if len(arrays) == 1 else None


def _code_models(path: Path, entries: list[Path], arrays: list[Path]) -> Iterator[FoundModel]:
    """Yield the first function of a file that has a usual name, takes no arguments, and can build a model."""
    if path.suffix != ".py" or path.name.startswith("test_") or path.name == "conftest.py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    framework = _framework(tree)
    for node in tree.body if framework else ():
        if isinstance(node, ast.FunctionDef) and node.name in USUAL_FUNCTIONS and not _needs_arguments(node):
            weights = next((entry.name for entry in entries if entry.name == f"{path.stem}.safetensors"), None)
            yield FoundModel(f"{path.name}:{node.name}", framework, weights, _sample(path, arrays))
            return


def _framework(tree: ast.Module) -> str | None:
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    frameworks = {_FRAMEWORKS.get(module.partition(".")[0]) for module in modules} - {None}
    return next(iter(frameworks)) if len(frameworks) == 1 else None


def _needs_arguments(node: ast.FunctionDef) -> bool:
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def render_config(models: tuple[FoundModel, ...]) -> str:
    """Render the text of `edgekit.toml`.

    Args:
        models: The models; if there are none, the file names a reference model.
    """
    return _HEAD + ("".join(map(_model_table, models)) or _REFERENCE) + _TAIL


def _model_table(model: FoundModel) -> str:
    lines = ["", "[[models]]", f"path = {_toml_string(model.path)}"]
    if model.framework is not None:
        lines.append(f"framework = {_toml_string(model.framework)}")
        weights = model.weights or "weights.safetensors"
        prefix = "" if model.weights else "# "
        lines.append(f"{prefix}weights = {_toml_string(weights)}  # a state dict, or safetensors")
        lines.append("# reads = []  # other files that this code reads")
    if model.sample is None and model.framework is not None:
        lines.append('# inputs = ["image:batch,3,96,96:float32"]  # required if neither code nor sample defines them')
    file = _toml_string(model.sample or "inputs.npz")
    sample = f"sample = {file}  # real inputs by name; an array `labels` adds the accuracy"
    lines.append(sample if model.sample else f"# {sample}")
    lines.append('# calibration = "photos/"  # calibration samples for int8: npz, images, or FILE.py:FUNCTION')
    return "\n".join(lines) + "\n"


def _toml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)

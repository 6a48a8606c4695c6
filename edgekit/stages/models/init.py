"""A first `edgekit.toml` for the models that lie in a folder. Code is parsed, never executed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError
from edgekit.stages.models.model_refs import USUAL_FUNCTIONS, kind_of

_SAMPLES = ("sample", "samples", "inputs")
_NOT_MODELS = ("build", "device_profiles", "models", "dist")
_FRAMEWORKS = {"keras": "keras", "tensorflow": "keras", "torch": "torch"}

_HEAD = """\
# What `edgekit run` does: export each model to each variant, prove that it computes the same, measure, judge, report.
# Steps are done again only when something that they read has changed; `edgekit run --explain` says why.
# Every key: edgekit run --schema

# Targets (`edgekit targets` lists them) or target:precision. int8 needs calibration samples.
variants = ["tflite:float32", "onnx:float32"]
# Validated on the emulated core of these devices too (`edgekit devices setup`).
# validate_on = ["raspberry-pi-4b"]
# Reports show the error of these layer by layer.
# layers = ["*:int8"]
"""

_REFERENCE = """
# A model of your own has a path; this one comes with edgekit, and is trained first (`edgekit models` lists them).
[[models]]
name = "linear"
framework = "keras"
# training = { epochs = 3, seed = 1 }
"""

_TAIL = """
# Options of some exports, by patterns.
# [[export]]
# variant = "*:int8"
# calibration_samples = 100

# Measured after everything else, one at a time. `edgekit devices` lists the profiles; "host" is this machine as it is.
# [bench]
# devices = ["raspberry-pi-4b"]

# `edgekit run` ends with exit code 1 when a limit is broken. Of several limits on a figure the strictest wins.
# [[budgets]]
# model = "*"
# variant = "*:int8"
# size = "500 KB"
# drift = 0.01
# latency_ms = { host = 5.0 }

[[reports]]
format = "markdown"
path = "build/report.md"

# Every figure and file also into MLflow, once: a server, a folder, or a database. Needs: pip install 'edgekit[mlflow]'
# [mlflow]
# uri = "http://127.0.0.1:5000"
# experiment = "edge"
"""


@dataclass(frozen=True)
class FoundModel:
    """A model in the folder. `framework` is set for code; `sample` and `weights` lie beside it, as names tell."""

    path: str
    framework: str | None = None
    weights: str | None = None
    sample: str | None = None


def find_models(project: Project) -> tuple[FoundModel, ...]:
    """Every model that lies in the project's folder itself."""
    root = project.root
    entries = sorted(path for path in root.iterdir() if not path.name.startswith(".") and path.name not in _NOT_MODELS)
    arrays = [path for path in entries if path.suffix == ".npz"]
    files = [FoundModel(path.name, sample=_sample(path, arrays)) for path in entries if _is_model(path)]
    return (*files, *(item for path in entries for item in _code(path, entries, arrays)))


def _is_model(path: Path) -> bool:
    try:
        return bool(kind_of(path))
    except InputError:
        return False


def _sample(path: Path, arrays: list[Path]) -> str | None:
    """The npz file that is called like the model, or like samples; or the only one."""
    for item in arrays:
        if item.stem == path.stem or item.stem.lower() in _SAMPLES:
            return item.name
    return arrays[0].name if len(arrays) == 1 else None


def _code(path: Path, entries: list[Path], arrays: list[Path]) -> Iterator[FoundModel]:
    """The functions without arguments that are called as those that build models are, in a file with a framework."""
    if path.suffix != ".py" or path.name.startswith("test_") or path.name == "conftest.py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    framework = _framework(tree)
    for node in tree.body if framework else ():
        if isinstance(node, ast.FunctionDef) and node.name in USUAL_FUNCTIONS and not _needs_arguments(node):
            weights = next((item.name for item in entries if item.name == f"{path.stem}.safetensors"), None)
            yield FoundModel(f"{path.name}:{node.name}", framework, weights, _sample(path, arrays))
            return


def _framework(tree: ast.Module) -> str | None:
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    found = {_FRAMEWORKS.get(module.partition(".")[0]) for module in modules} - {None}
    return next(iter(found)) if len(found) == 1 else None


def _needs_arguments(node: ast.FunctionDef) -> bool:
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def render_config(found: tuple[FoundModel, ...]) -> str:
    """The text of the file."""
    return _HEAD + ("".join(map(_table, found)) or _REFERENCE) + _TAIL


def _table(item: FoundModel) -> str:
    lines = ["", "[[models]]", f"path = {_text(item.path)}"]
    if item.framework is not None:
        lines.append(f"framework = {_text(item.framework)}")
        weights = item.weights or "weights.safetensors"
        lines.append(f"{'' if item.weights else '# '}weights = {_text(weights)}  # a state dict, or safetensors")
        lines.append("# reads = []  # other files that this code reads")
    if item.sample is None and item.framework is not None:
        lines.append('# inputs = ["image:batch,3,96,96:float32"]  # needed where neither code nor sample tells')
    sample = f"sample = {_text(item.sample or 'inputs.npz')}  # real inputs by name; an array `labels` judges accuracy"
    lines.append(sample if item.sample else f"# {sample}")
    lines.append('# calibration = "photos/"  # where int8 takes its ranges from: npz, images, or FILE.py:FUNCTION')
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False)

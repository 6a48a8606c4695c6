"""Model folders of MLflow: an `MLmodel` file beside the model in the format of its framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.contracts.source import SOURCES
from edgekit.core.environment.contained_files import path_inside, read_plain_file
from edgekit.core.environment.requirements import YAML, require
from edgekit.core.errors import InputError

MAIN_FILE = "MLmodel"
# MLmodel files have some kilobytes; the signature of a model with thousands of columns has some hundred.
_MAX_BYTES = 1 << 22
# By flavor: the keys that name its data, and the names that MLflow gives the model inside of that, newest first. The
# empty name is the data itself.
_DATA: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "onnx": (("data",), ("", "model.onnx")),
    "keras": (("data",), ("model.keras", "model.h5", "model", "")),
    "tensorflow": (("saved_model_dir", "data"), ("", "model.keras", "model.h5", "model")),
    "pytorch": (("model_data",), ("model.pt2", "model.pth")),
    "transformers": (("model_binary",), ("",)),
}
# What MLflow gives to people who serve a model, whatever it was made with.
_GENERIC = "python_function"


def model_inside(path: Path) -> Path:
    """Return the model that a folder of MLflow holds.

    Args:
        path: A path of the user's.

    Returns:
        The file or folder of the first flavor that edgekit imports; the path itself if it is no folder of MLflow.

    Raises:
        InputError: The folder is damaged, or holds no model that edgekit imports.
        MissingDependency: The package that reads YAML is not installed.
    """
    if not (path / MAIN_FILE).is_file():
        return path
    flavors = _flavors(path / MAIN_FILE)
    pickled: Path | None = None
    for flavor, (keys, names) in _DATA.items():
        if flavor not in flavors:
            continue
        options = flavors[flavor] if isinstance(flavors[flavor], dict) else {}
        for candidate in _candidates(path, options, keys, names):
            if _is_model(candidate):
                return candidate
            pickled = pickled or (candidate if candidate.is_file() and candidate.suffix == ".pth" else None)
    if pickled is not None:
        raise InputError(
            f"{pickled}: MLflow has pickled this PyTorch module, and edgekit does not execute pickles; save the model"
            " with mlflow.pytorch.save_model(..., serialization_format='pt2', input_example=...), or name code that"
            " builds the network, FILE.py:FUNCTION, with its state_dict as weights"
        )
    known = [flavor for flavor in _DATA if flavor in flavors]
    if known:
        raise InputError(f"{path}: there is no model of the flavor {' or '.join(known)} that {MAIN_FILE} names")
    named = ", ".join(sorted(map(str, flavors.keys() - {_GENERIC}))) or _GENERIC
    raise InputError(
        f"{path}: a model of the flavor {named}, which edgekit does not import; it imports {', '.join(_DATA)}: convert"
        " the model to ONNX and save it with mlflow.onnx.save_model"
    )


def _flavors(path: Path) -> dict[str, Any]:
    require((YAML,), "reading a folder of MLflow")
    import yaml

    content = read_plain_file(path, _MAX_BYTES)
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not YAML") from error
    flavors = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavors, dict) or not flavors:
        raise InputError(f"{path}: it has no table 'flavors', as MLflow writes it")
    return flavors


def _candidates(path: Path, options: dict[str, Any], keys: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Path]:
    for key in keys:
        data = options.get(key)
        if isinstance(data, str) and data:
            folder = path_inside(path, data)
            yield from (folder / name if name else folder for name in names)


def _is_model(path: Path) -> bool:
    return path.exists() and any(SOURCES.load(name).recognizes(path) for name in SOURCES.names())

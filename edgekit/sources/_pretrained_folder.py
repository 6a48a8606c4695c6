"""Folders that `save_pretrained` of `transformers` writes: `config.json` beside weights in safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.environment.contained_files import copy_plain_file, read_plain_file
from edgekit.core.environment.requirements import SAFETENSORS, TRANSFORMERS, require
from edgekit.core.errors import InputError

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# Configurations of the largest models have some kilobytes, indices of hundreds of shards some megabytes.
_MAX_CONFIG_BYTES, _MAX_INDEX_BYTES = 1 << 20, 1 << 26
# At most so many of the missing weights are named in an error.
_NAMED = 3


def is_pretrained_folder(path: Path) -> bool:
    """Return whether a path is a folder of a model of `transformers`: a `config.json` that names a kind of model."""
    if not (path / _CONFIG).is_file():
        return False
    try:
        config = _json(path / _CONFIG, _MAX_CONFIG_BYTES)
    except InputError:
        return False
    return "model_type" in config or "architectures" in config


def copy_pretrained(path: Path, folder: Path) -> None:
    """Copy the configuration and the weights of a folder, and nothing else, such as code or optimizer states.

    Args:
        path: The folder.
        folder: The folder to write.

    Raises:
        InputError: The weights are missing, or not in safetensors.
    """
    names = [_CONFIG, *_weight_files(path)]
    for name in names:
        copy_plain_file(path / name, folder / name)


def load_pretrained(path: Path) -> Any:
    """Build the network that a folder's configuration names, with the folder's weights.

    No code of the folder is executed, and nothing is downloaded.

    Args:
        path: The folder.

    Returns:
        The module.

    Raises:
        InputError: The configuration names no class of `transformers`, or the weights do not fit it.
        MissingDependency: `transformers` is not installed.
    """
    require((TRANSFORMERS, SAFETENSORS), "loading a folder of transformers")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    network = _network_class(path, transformers)
    try:
        module, loading = network.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of configurations, files and packages that a model needs
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        raise InputError(f"{path}: transformers cannot load this {network.__name__}: {reason}") from error
    # It would fill them with random numbers.
    missing = sorted(map(str, loading.get("missing_keys") or ()))
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise InputError(
            f"{path}: the folder has no weights for {named}, which {network.__name__} has: it is not trained for that"
            " task; save the trained model with save_pretrained"
        )
    return module


def _network_class(path: Path, transformers: Any) -> Any:
    """Return the class of `transformers` that the configuration names."""
    config = _json(path / _CONFIG, _MAX_CONFIG_BYTES)
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise InputError(
            f"{path / _CONFIG}: 'architectures' must name one class of transformers, as save_pretrained writes it"
        )
    (name,) = names
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise InputError(
            f"{path / _CONFIG}: transformers {transformers.__version__} has no model {name}; if the folder has code of"
            " its own, name code that builds the model: FILE.py:FUNCTION"
        )
    return found


def _weight_files(path: Path) -> list[str]:
    """Return the names of the files with weights: one, or the shards and their index."""
    if (path / _WEIGHTS).is_file():
        return [_WEIGHTS]
    if not (path / _INDEX).is_file():
        pickled = (path / "pytorch_model.bin").is_file()
        raise InputError(
            f"{path}: there is no {_WEIGHTS}"
            + (
                "; a pytorch_model.bin is a pickle, which edgekit does not load: call save_pretrained of transformers 4"
                " or later on the model, which writes safetensors"
                if pickled
                else ""
            )
        )
    shards = _json(path / _INDEX, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(shards, dict) or not all(_is_file_name(name) for name in shards.values()):
        raise InputError(f"{path / _INDEX}: 'weight_map' must map names of weights to files of the folder")
    return [_INDEX, *sorted(set(shards.values()))]


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _json(path: Path, limit: int) -> Mapping[str, Any]:
    content = read_plain_file(path, limit)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not JSON") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: this is not a JSON object")
    return document

"""Reading weights from the files that PyTorch's training scripts write, without executing code from them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.environment.requirements import SAFETENSORS, require
from edgekit.core.errors import InputError

Weights = Mapping[str, Any]

# What torch.compile, FSDP and activation checkpointing put into the names of the modules that they wrap.
_WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
# Words in the names of averaged weights: exponential moving averages, and stochastic weight averaging.
_AVERAGES = {"ema", "swa", "averaged"}
# The usual names of the weights themselves: PyTorch's tutorials, Lightning, DataParallel, and common training scripts.
_USUAL = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params")
# How deep state dicts are nested in checkpoints.
_MAX_DEPTH = 3


@dataclass(frozen=True)
class StoredWeights:
    """Weights of a checkpoint whose names are those of the network, after a prefix.

    Attributes:
        place: The keys and the prefix that lead to them, joined by dots; empty for a bare state dict.
        weights: The weights by the network's own names.
        unused: The number of tensors beside them in the same state dict.
    """

    place: str
    weights: Weights
    unused: int

    @property
    def averaged(self) -> bool:
        """Whether the weights are a moving average."""
        return bool(_AVERAGES & set(re.split(r"[._]", self.place.lower())))

    @property
    def usual(self) -> bool:
        """Whether all keys on the way to the weights are usual names of a network's weights."""
        return all(part in _USUAL for part in self.place.split("."))


def read_weights(path: Path, expected: Mapping[str, Any]) -> tuple[Weights, str]:
    """Read the weights of a network.

    Args:
        path: A safetensors file, a state dict, or a checkpoint with one: of Lightning, under the keys of common
            training scripts, with prefixes such as `module.`, with averaged weights.
        expected: The network's own state dict.

    Returns:
        The weights by the network's names, and a note that says which were chosen, if there was a choice. If no weights
        in the file have the network's names, those that are stored, for PyTorch to name the difference.

    Raises:
        InputError: The file is missing, damaged or a pickled object, or several weights in it fit equally well.
    """
    checkpoint = _safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    if not expected and isinstance(checkpoint, Mapping) and not checkpoint:
        return {}, ""  # a network without weights
    found = [
        candidate for place, weights in _state_dicts(checkpoint, "", 0) for candidate in _fits(place, weights, expected)
    ]
    if not found:
        return _stored(path, checkpoint), ""
    chosen = _chosen(path, found)
    others = sorted({candidate.place for candidate in found} - {chosen.place})
    said = []
    if others:
        said.append(f"weights under {chosen.place} of {path.name}, which also has {', '.join(others)}")
    if chosen.unused and chosen.place:
        said.append(f"{chosen.unused} further tensors of {path.name} are not part of the network")
    return chosen.weights, "; ".join(said)


def _chosen(path: Path, found: list[StoredWeights]) -> StoredWeights:
    """Return the averaged weights, which training scripts evaluate and deploy, else those of a usual name."""
    for group in (
        [candidate for candidate in found if candidate.averaged],
        [candidate for candidate in found if candidate.usual],
        found,
    ):
        if len(group) == 1:
            return group[0]
        if group:
            break
    places = ", ".join(f"'{candidate.place}'" for candidate in group)
    raise InputError(
        f"{path}: this checkpoint has several weights that fit the network, under {places}; save those that you want"
        " as a state dict of their own"
    )


def _state_dicts(value: Any, place: str, depth: int) -> Iterator[tuple[str, Weights]]:
    """Yield the dicts in a checkpoint that contain tensors, with the keys that lead to them."""
    import torch

    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return
    tensors = {str(key): item for key, item in value.items() if isinstance(item, torch.Tensor)}
    if tensors:
        yield place, {_WRAPPED.sub("", key).removeprefix("."): item for key, item in tensors.items()}
    for key, item in value.items():
        yield from _state_dicts(item, f"{place}.{key}" if place else str(key), depth + 1)


def _fits(place: str, weights: Weights, expected: Mapping[str, Any]) -> Iterator[StoredWeights]:
    """Yield the weights for each prefix under which all the network's names are stored, in the network's shapes."""
    # Batch norms of before PyTorch 0.4.1 have no counter of batches.
    names = [name for name in expected if not name.endswith("num_batches_tracked")]
    if not names:
        return
    last = names[-1]
    prefixes = {key.removesuffix(last) for key in weights if key == last or key.endswith(f".{last}")}
    for prefix in sorted(prefixes):
        if all(_same_shape(weights.get(prefix + name), expected[name]) for name in names):
            inside = {key.removeprefix(prefix): item for key, item in weights.items() if key.startswith(prefix)}
            beyond = len(weights) - len(inside)
            if prefix:  # tensors beside the network's own, such as those of a loss, are under the same prefix at times
                yield StoredWeights(
                    f"{place}.{prefix}".strip("."), {k: v for k, v in inside.items() if k in expected}, beyond
                )
            else:
                yield StoredWeights(place, inside, beyond)


def _same_shape(weight: Any, expected: Any) -> bool:
    import torch

    if weight is None:
        return False
    lazy = isinstance(expected, torch.nn.parameter.UninitializedTensorMixin)
    return lazy or not isinstance(expected, torch.Tensor) or tuple(weight.shape) == tuple(expected.shape)


def _stored(path: Path, checkpoint: Any) -> Weights:
    """Return the state dict that a file contains under a usual key, or is."""
    is_dict = isinstance(checkpoint, Mapping)
    weights = next(
        (checkpoint[key] for key in _USUAL if is_dict and isinstance(checkpoint.get(key), Mapping)), checkpoint
    )
    if not isinstance(weights, Mapping) or not weights:
        raise InputError(f"{path}: this checkpoint contains a {type(weights).__name__}, not a state dict")
    return weights


def _safetensors(path: Path) -> Weights:
    require((SAFETENSORS,), "reading .safetensors files")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: this is not a safetensors file, or it is damaged ({error})") from error


class Ignored:
    """What stands for an object of a class that is not PyTorch's: it keeps nothing, and calls nothing."""

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _unpickled(path: Path) -> Any:
    """Return the content of a file that torch.save wrote; only tensors and plain containers are unpickled."""
    import torch

    if not path.is_file():
        raise InputError(f"{path}: no such file of weights")
    foreign = _foreign_classes(path)
    try:
        # Hyperparameters and callbacks beside the weights may be objects of any class: none of them is imported.
        with torch.serialization.safe_globals([(Ignored, name) for name in foreign]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and runtime errors of many types: all mean the same to the user
        raise InputError(
            f"{path}: this is not a PyTorch checkpoint of plain weights, or it is damaged; {_WAY_OUT}"
        ) from error
    if isinstance(content, Ignored):
        raise InputError(f"{path}: this is a whole pickled object ({foreign[0]}); {_WAY_OUT}")
    return content


_WAY_OUT = "edgekit does not unpickle whole modules: save module.state_dict(), and name the code that builds the module"


def _foreign_classes(path: Path) -> list[str]:
    """Return the classes and functions in a checkpoint that are not those of plain tensors, without importing them."""
    import torch

    try:
        names: list[str] = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 - a file of before PyTorch 1.6 is no zip archive; loading reports damaged ones
        return []
    return names

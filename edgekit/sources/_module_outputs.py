"""The tensors in what a PyTorch module returns, however they are nested, and their names."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterator, Mapping
from typing import Any


def outputs_of(result: Any) -> list[Any]:
    """Return the tensors in a module's result, in order.

    The name of this function becomes a node's name in traced graphs: do not rename it.

    Args:
        result: A tensor or number, or a tuple, list, dict (such as a ModelOutput of transformers) or dataclass of
            results; None stands for an output that is missing.

    Returns:
        The tensors; numbers become tensors.

    Raises:
        TypeError: The result contains an object of another type.
    """
    return [value for _, value in _named_values(result, ())]


def output_names_of(result: Any) -> list[str]:
    """Return a name for each tensor in a module's result.

    Args:
        result: As for `outputs_of`.

    Returns:
        The keys of dicts and fields of dataclasses and named tuples that lead to the tensor, joined by `_`; positions
        in tuples and lists as numbers. A name that would start with a number gets `output` in front.
    """
    paths = [path for path, _ in _named_values(result, ())]
    names: list[str] = []
    for path in paths:
        named = bool(path) and not path[0].isdecimal()
        name = "_".join(path if named else ("output", *path))
        names.append(name if name not in names else f"{name}_{len(names)}")
    # A module that returns one tensor in a tuple has one output, and nothing to number.
    return ["output"] if len(paths) == 1 and all(part.isdecimal() for part in paths[0]) else names


def is_flat(result: Any) -> bool:
    """Return whether a result is a tensor, or a tuple or list of tensors, as every converter takes it."""
    import torch

    values = result if isinstance(result, (tuple, list)) else [result]
    return all(isinstance(value, torch.Tensor) for value in values)


def _named_values(result: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    import torch

    if result is None:
        return
    if isinstance(result, numbers.Number):
        yield path, torch.tensor(result)
        return
    parts = _parts(result)
    if parts is None:
        yield path, result  # a tensor; while FX traces, a proxy of one
        return
    for name, value in parts:
        yield from _named_values(value, (*path, name))


def _parts(result: Any) -> list[tuple[str, Any]] | None:
    """Return the parts of a container by name, None for a tensor."""
    import torch

    if isinstance(result, Mapping):
        return [(str(key), value) for key, value in result.items()]
    if isinstance(result, (tuple, list)):
        names = getattr(result, "_fields", None) or range(len(result))
        return [(str(name), value) for name, value in zip(names, result, strict=True)]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    if not isinstance(result, (torch.Tensor, torch.fx.Proxy)):
        raise TypeError(
            f"the network returns an object of the type {type(result).__name__}; edgekit takes tensors and numbers, and"
            " tuples, lists, dicts and dataclasses of them"
        )
    return None

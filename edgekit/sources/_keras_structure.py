"""The structure in which a Keras model takes and returns its tensors, and the names of these tensors."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# The position of a tensor in a nested structure: keys of dicts and indices of sequences, from the outside in.
Path = tuple[Any, ...]
# How a model without a graph takes its inputs.
_CallForm = Callable[[Sequence[Any]], Any]

# The form that worked, by model: user code is not called in a wrong form at every trace.
_forms: weakref.WeakKeyDictionary[Any, _CallForm] = weakref.WeakKeyDictionary()


def structures(model: Any) -> tuple[Any, Any] | None:
    """Return the nested structures of a model's symbolic inputs and outputs.

    Args:
        model: The Keras model.

    Returns:
        The structures that the model was built with; None for a subclassed model, which has no graph.
    """
    import keras

    # A Sequential keeps its graph in an inner model, and raises for `output` until it is called itself.
    graph = model._functional if isinstance(model, keras.Sequential) else model
    if not getattr(graph, "inputs", None):
        return None
    return graph.input, graph.output


def flatten(structure: Any) -> list[tuple[Path, Any]]:
    """Return the tensors of a nested structure with their positions, in the order in which it was written.

    Keras's own `tree.flatten` sorts the keys of dicts.

    Args:
        structure: A tensor, or dicts, lists and tuples of tensors; None stands for no tensor.
    """
    return list(_leaves(structure, ()))


def _leaves(structure: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if structure is None:
        return
    if isinstance(structure, Mapping):
        for key, part in structure.items():
            yield from _leaves(part, (*path, key))
    elif hasattr(structure, "_fields"):  # a named tuple
        for key in structure._fields:
            yield from _leaves(getattr(structure, key), (*path, key))
    elif isinstance(structure, (list, tuple)):
        for index, part in enumerate(structure):
            yield from _leaves(part, (*path, index))
    else:
        yield path, structure


def _pack(structure: Any, tensors: Iterator[Any]) -> Any:
    """Return the structure with other tensors, in the order of `flatten`."""
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {key: _pack(part, tensors) for key, part in structure.items()}
    if hasattr(structure, "_fields"):
        return type(structure)(*(_pack(getattr(structure, key), tensors) for key in structure._fields))
    if isinstance(structure, (list, tuple)):
        parts = [_pack(part, tensors) for part in structure]
        return tuple(parts) if isinstance(structure, tuple) else parts
    return next(tensors)


def call(model: Any, inputs: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Call a Keras model in inference mode, whatever the structure of its inputs and outputs.

    Args:
        model: The Keras model.
        inputs: One tensor per input, in the signature's order.
        names: The names of the inputs, for a model without a graph, which may take a dict or several arguments.

    Returns:
        One tensor per output, in the signature's order.
    """
    return [tensor for _, tensor in flatten_outputs(model, call_structured(model, inputs, names))]


def call_structured(model: Any, inputs: Sequence[Any], names: Sequence[str]) -> Any:
    """Call a Keras model in inference mode and return its result as it is; see `call` for the arguments."""
    known = structures(model)
    if known is not None:
        return model(_pack(known[0], iter(inputs)), training=False)
    form = _forms.get(model)
    if form is not None:
        return form(inputs)
    first_error: Exception | None = None
    for form in _call_forms(model, names):
        try:
            result = form(inputs)
        except Exception as error:  # noqa: BLE001 - a user's code raises anything if it is called in a wrong form
            first_error = first_error or error
        else:
            _forms[model] = form
            return result
    assert first_error is not None  # there is at least one form
    raise first_error


def _call_forms(model: Any, names: Sequence[str]) -> Iterator[_CallForm]:
    """Yield the ways to call a subclassed model, the most likely first."""
    # The forms must not hold the model: they are values of a dictionary with weak keys.
    reference = weakref.ref(model)

    def with_arguments(arguments: Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]) -> _CallForm:
        def form(inputs: Sequence[Any]) -> Any:
            positional, named = arguments(inputs)
            return reference()(*positional, **named, training=False)  # type: ignore[misc]

        return form

    parameters = [
        parameter
        for parameter in inspect.signature(model.call).parameters.values()
        if parameter.name not in ("training", "mask")
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(names) == 1:
        yield with_arguments(lambda inputs: ((inputs[0],), {}))
    if len(names) > 1 and {parameter.name for parameter in parameters} >= set(names):
        first = parameters[0].name
        if first in names:  # Keras requires the first argument by position
            yield with_arguments(
                lambda inputs: (
                    (inputs[list(names).index(first)],),
                    {name: tensor for name, tensor in zip(names, inputs, strict=True) if name != first},
                )
            )
    if len(names) > 1 and len(parameters) >= len(names):
        yield with_arguments(lambda inputs: (tuple(inputs), {}))
    yield with_arguments(lambda inputs: ((dict(zip(names, inputs, strict=True)),), {}))
    yield with_arguments(lambda inputs: ((list(inputs),), {}))


def flatten_outputs(model: Any, result: Any) -> list[tuple[Path, Any]]:
    """Return the tensors of a model's result with their positions, in the signature's order.

    Args:
        model: The Keras model.
        result: What the model returned.
    """
    known = structures(model)
    leaves = flatten(result)
    if known is None:
        return leaves
    # Keras may return dicts with sorted keys, and a list of one tensor as that tensor.
    paths = [path for path, _ in flatten(known[1])]
    tensors = dict(leaves)
    return [(path, tensors[path]) for path in paths] if set(paths) == set(tensors) else leaves


def joined(path: Path) -> str:
    """Return a position as a name, such as `heads_0`."""
    return "_".join(map(str, path))


def names_of_result(model: Any, result: Any) -> list[str]:
    """Return the names of a subclassed model's outputs: keys of dicts, else `output` or `output_INDEX`.

    Args:
        model: The Keras model.
        result: What the model returned.
    """
    paths = [path for path, _ in flatten_outputs(model, result)]
    if len(paths) == 1 and not any(isinstance(key, str) for key in paths[0]):
        return ["output"]
    return [joined(path) if any(isinstance(key, str) for key in path) else f"output_{joined(path)}" for path in paths]


def unique(names: Sequence[str], used: Sequence[str] = ()) -> list[str]:
    """Return the names with `_1`, `_2` … behind those that occur before.

    Args:
        names: The names, in order.
        used: Names that are taken already.
    """
    taken = {*used}
    result: list[str] = []
    for index, name in enumerate(names):
        candidate, count = name, 0
        # A later name must not have to move because of an invented one.
        while candidate in taken or (count and candidate in names[index:]):
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        result.append(candidate)
    return result

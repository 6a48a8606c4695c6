"""The order of inputs and outputs in a TFLite file, which is not that of its signature.

The TFLite target puts the manifest into the order of the source.
"""

from __future__ import annotations

from collections.abc import Sequence


def names_by_position(entries: Sequence[tuple[str, int]], positions: Sequence[int]) -> list[str | None]:
    """Return the name of each input, or each output, in the order in which interpreters number them.

    Interpreters number tensors by the lists `inputs` and `outputs` of the subgraph. The entries of a signature are
    sorted by name, and the converter fills the lists in an order of its own.

    Args:
        entries: Name and tensor index of each entry of the signature. Two names may share a tensor.
        positions: The tensor indices in the list of the subgraph.

    Returns:
        A name per position; None where the signature has none.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in entries:
        names.setdefault(tensor, []).append(name)
    # An output that is returned twice is in the list twice: each place takes the next of its names.
    return [names[tensor].pop(0) if names.get(tensor) else None for tensor in positions]


def numbers_by_name(entries: Sequence[tuple[str, int]], positions: Sequence[int]) -> dict[str, int]:
    """Return the number of each input, or each output, in the order in which interpreters number them.

    Args:
        entries: As in `names_by_position`.
        positions: As in `names_by_position`.

    Returns:
        Name -> number. A second name of a tensor that is in the list once has the same number as the first.
    """
    own = {name: number for number, name in enumerate(names_by_position(entries, positions)) if name is not None}
    return {name: own.get(name, list(positions).index(tensor)) for name, tensor in entries if tensor in positions}

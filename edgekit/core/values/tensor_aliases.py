"""Names of tensors that every converter accepts, in place of those that a model has."""

from __future__ import annotations

import keyword
from collections.abc import Sequence

from edgekit.core.values.specs import TensorSpec


def aliases(specs: Sequence[TensorSpec]) -> dict[str, str]:
    """Return names by their aliases; a name that is a plain Python identifier is its own alias.

    Converters write names into Python code and replace what their own formats do not allow, by which different names
    become equal.

    Args:
        specs: The tensors of one side, inputs or outputs.

    Returns:
        Alias -> name, in the order of the tensors.
    """
    return {_alias(spec.name, index): spec.name for index, spec in enumerate(specs)}


def _alias(name: str, index: int) -> str:
    plain = name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
    return name if plain else f"tensor_{index}"

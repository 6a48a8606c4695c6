"""Reading recipe files, which `edgekit tune` writes and `edgekit export --recipe` applies."""

from __future__ import annotations

from pathlib import Path

from edgekit.config.loader import validate
from edgekit.core.environment.atomic_files import read_json
from edgekit.core.values.quantization_recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """Read a quantization recipe.

    Args:
        path: The JSON file.

    Returns:
        The recipe.

    Raises:
        InputError: The file is missing or not JSON, or a key or value is wrong; names the file and the key.
    """
    return validate(read_json(path, "recipe"), Recipe, str(path))

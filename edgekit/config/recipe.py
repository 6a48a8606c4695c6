"""A recipe file: what `edgekit tune` writes and `edgekit export --recipe` takes."""

from __future__ import annotations

from pathlib import Path

from edgekit.config.loader import validate
from edgekit.core.environment.atomic_files import read_json
from edgekit.core.values.quantization_recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """The recipe in the file. Raises InputError that names the file and the key."""
    return validate(read_json(path, "recipe"), Recipe, str(path))

"""Where things are: the project's root, its build folder, and the models and device profiles it can see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit.core.errors import InputError, unknown_name
from edgekit.core.values.file_names import MANIFEST_FILE, SOURCE_FILE

_PACKAGE = Path(__file__).parents[2]
SHIPPED = ("models", "device_profiles")
SHIPPED_PREFIX = "edgekit's "
"""Before the name of a file that came with edgekit."""


def shipped(name: str) -> Path:
    """The folder that came with edgekit: inside the package when installed, beside it in a checkout."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@cache
def portable_path(path: str) -> str:
    """A path as records name it: what came with edgekit without where edgekit is installed."""
    if not Path(path).is_absolute():
        return path
    for name in SHIPPED:
        folder = shipped(name)
        if Path(path).is_relative_to(folder):
            return f"{SHIPPED_PREFIX}{name}/{Path(path).relative_to(folder).as_posix()}"
    return path


@dataclass(frozen=True)
class Project:
    """A folder of the user's. Its own `models/` and `device_profiles/` come before those that edgekit ships."""

    root: Path

    @property
    def build(self) -> Path:
        """Where all stages write."""
        return self.root / "build"

    def _entries(self, folder: str, pattern: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for base in (shipped(folder), self.root / folder):
            found |= {path.parent.name if pattern.startswith("*/") else path.stem: path for path in base.glob(pattern)}
        return dict(sorted(found.items()))

    def models(self) -> dict[str, Path]:
        """Reference model name -> its folder."""
        return {name: path.parent for name, path in self._entries("models", "*/model.toml").items()}

    def model_folder(self, name: str) -> Path:
        """The model's folder. Raises InputError that lists the known models."""
        models = self.models()
        if name not in models:
            raise unknown_name("model", name, list(models))
        return models[name]

    def code_base(self, name: str) -> Path:
        """What the code of a model's source is relative to: the reference model's folder, or this project's."""
        return self.models().get(name, self.root)

    def imported_models(self, name: str) -> tuple[str, ...]:
        """The kinds of a model of the user's that was taken in before; none for a reference model."""
        if name in self.models() or not name or "/" in name:
            return ()
        return tuple(sorted(path.parent.parent.name for path in self.build.glob(f"{name}/*/source/{SOURCE_FILE}")))

    def device_files(self) -> dict[str, Path]:
        """Device name -> its TOML file."""
        return self._entries("device_profiles", "*.toml")

    def device_file(self, name: str) -> Path:
        """The profile's file. Raises InputError that lists the known devices."""
        files = self.device_files()
        if name not in files:
            raise unknown_name("device", name, list(files))
        return files[name]

    def source_folder(self, model: str, kind: str) -> Path:
        """build/<model>/<kind>/source"""
        return self.build / model / kind / "source"

    def checkpoint_folder(self, model: str, kind: str) -> Path:
        """build/<model>/<kind>/.checkpoint: there while a training is under way, or after it was cut short."""
        return self.build / model / kind / ".checkpoint"

    def tensorboard_folder(self, model: str, kind: str) -> Path:
        """build/<model>/<kind>/tensorboard"""
        return self.build / model / kind / "tensorboard"

    def is_trained(self, model: str, kind: str) -> bool:
        """Whether a trained source stands there."""
        return (self.source_folder(model, kind) / SOURCE_FILE).is_file()

    def artifact_folder(self, model: str, kind: str, slug: str) -> Path:
        """build/<model>/<kind>/<target>-<precision>"""
        return self.build / model / kind / slug

    def artifact_folders(self) -> Iterator[Path]:
        """Every artifact under build/, in order."""
        for manifest in sorted(self.build.glob(f"*/*/*/{MANIFEST_FILE}")):
            if not any(part.startswith(".") for part in manifest.relative_to(self.build).parts):
                yield manifest.parent


def open_project(root: Path) -> Project:
    """The project at `root`. Raises InputError when that is no folder."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    return Project(root.resolve())

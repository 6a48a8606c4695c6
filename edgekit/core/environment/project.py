"""The project folder: its build folder, models and device profiles, and those that edgekit ships."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit.core.environment.user_config import config_folder
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.values.budgets import CHECK_FILE
from edgekit.core.values.file_names import GOLDEN_FILE, MANIFEST_FILE, SOURCE_FILE

_PACKAGE = Path(__file__).parents[2]

# The folders that edgekit ships.
SHIPPED = ("models", "device_profiles")

# Precedes the name of a shipped file in records.
SHIPPED_PREFIX = "edgekit's "


def shipped(name: str) -> Path:
    """Return a folder that edgekit ships.

    Args:
        name: One of `SHIPPED`.

    Returns:
        The folder, which is inside the package when edgekit is installed and beside it in a checkout.
    """
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@cache
def portable_path(path: str) -> str:
    """Return a path in the form of records, which does not depend on where edgekit is installed.

    Args:
        path: A path.

    Returns:
        `edgekit's models/…` for a shipped file; any other path unchanged.
    """
    if not Path(path).is_absolute():
        return path
    for name in SHIPPED:
        folder = shipped(name)
        if Path(path).is_relative_to(folder):
            return f"{SHIPPED_PREFIX}{name}/{Path(path).relative_to(folder).as_posix()}"
    return path


def user_profiles_folder() -> Path:
    """Return the folder of device profiles in the user's configuration, which all projects share; it need not exist."""
    return config_folder() / "device_profiles"


def _named(base: Path, pattern: str) -> dict[str, Path]:
    return {path.parent.name if pattern.startswith("*/") else path.stem: path for path in base.glob(pattern)}


# The package does not change while it runs, and a report asks for each artifact and device.
@cache
def _shipped_entries(folder: str, pattern: str) -> dict[str, Path]:
    return _named(shipped(folder), pattern)


@dataclass(frozen=True)
class Project:
    """A project folder. Its own `models/` and `device_profiles/` take precedence over those that edgekit ships."""

    root: Path

    @property
    def build(self) -> Path:
        """The folder that all stages write to."""
        return self.root / "build"

    def _entries(self, folder: str, pattern: str) -> dict[str, Path]:
        # The project's own come second, so that they replace shipped ones of the same name.
        return dict(sorted({**_shipped_entries(folder, pattern), **_named(self.root / folder, pattern)}.items()))

    def models(self) -> dict[str, Path]:
        """Return the reference models: name -> folder, sorted by name."""
        return {name: path.parent for name, path in self._entries("models", "*/model.toml").items()}

    def model_folder(self, name: str) -> Path:
        """Return the folder of a reference model.

        Args:
            name: The model's name.

        Returns:
            The folder of its `model.toml`.

        Raises:
            InputError: There is no such model; lists the known ones.
        """
        models = self.models()
        if name not in models:
            raise unknown_name("model", name, list(models))
        return models[name]

    def code_base(self, name: str) -> Path:
        """Return the folder that code references of a model's source are relative to.

        Args:
            name: The model's name.

        Returns:
            The folder of a reference model; the root of the project for any other model.
        """
        return self.models().get(name, self.root)

    def imported_models(self, name: str) -> tuple[str, ...]:
        """Return the source kinds under which a model of the user's was imported.

        Args:
            name: The model's name.

        Returns:
            The kinds, sorted; none for a reference model.
        """
        if name in self.models() or not name or "/" in name:
            return ()
        return tuple(sorted(path.parent.parent.name for path in self.build.glob(f"{name}/*/source/{SOURCE_FILE}")))

    def device_files(self) -> dict[str, Path]:
        """Return the device profiles: device name -> TOML file, sorted by name.

        Those in the user's configuration replace shipped ones of the same name, and the project's replace both.
        """
        return dict(
            sorted(
                {
                    **_shipped_entries("device_profiles", "*.toml"),
                    **_named(user_profiles_folder(), "*.toml"),
                    **_named(self.root / "device_profiles", "*.toml"),
                }.items()
            )
        )

    def device_file(self, name: str) -> Path:
        """Return the file of a device profile.

        Args:
            name: The device's name.

        Returns:
            The TOML file.

        Raises:
            InputError: There is no such device; lists the known ones.
        """
        files = self.device_files()
        if name not in files:
            raise unknown_name("device", name, list(files))
        return files[name]

    def source_folder(self, model: str, kind: str) -> Path:
        """Return `build/<model>/<kind>/source`."""
        return self.build / model / kind / "source"

    def checkpoint_folder(self, model: str, kind: str) -> Path:
        """Return `build/<model>/<kind>/.checkpoint`, which exists during a training and after it was interrupted."""
        return self.build / model / kind / ".checkpoint"

    def tensorboard_folder(self, model: str, kind: str) -> Path:
        """Return `build/<model>/<kind>/tensorboard`."""
        return self.build / model / kind / "tensorboard"

    def is_trained(self, model: str, kind: str) -> bool:
        """Return whether a trained source model exists in the build folder."""
        return (self.source_folder(model, kind) / SOURCE_FILE).is_file()

    def artifact_folder(self, model: str, kind: str, slug: str) -> Path:
        """Return `build/<model>/<kind>/<slug>`, where the slug is a variant's `<target>-<precision>`."""
        return self.build / model / kind / slug

    def artifact_folders(self, model: str = "") -> Iterator[Path]:
        """Yield the folders of all artifacts in the build folder, sorted.

        A folder that cannot be read, and one that has the results of an artifact without its manifest, are yielded
        too: loading them reports what is wrong. Without them a gate would pass on what it has not seen.

        Args:
            model: The model whose artifacts are yielded; empty for all.
        """
        if not self.build.is_dir():
            return
        # Hidden folders are exports that have not finished.
        for model_folder in [self.build / model] if model else _subfolders(self.build):
            for kind_folder in _subfolders(model_folder):
                if not _can_list(kind_folder):
                    yield kind_folder
                    continue
                for folder in _subfolders(kind_folder, links=True):
                    if not _can_list(folder) or _holds_artifact(folder):
                        yield folder


# What only the folder of an artifact holds.
_ARTIFACT_FILES = frozenset((MANIFEST_FILE, GOLDEN_FILE, CHECK_FILE, "validation.json", "layers.json"))


def holds_artifact(names: Collection[str]) -> bool:
    """Return whether a folder with files of these names is that of an artifact, whose manifest may be missing.

    Args:
        names: The names of all files in the folder.
    """
    # A source has golden samples too.
    return MANIFEST_FILE in names if SOURCE_FILE in names else not _ARTIFACT_FILES.isdisjoint(names)


def _holds_artifact(folder: Path) -> bool:
    return folder.name != "source" and holds_artifact([path.name for path in folder.iterdir()])


def _can_list(folder: Path) -> bool:
    try:
        with os.scandir(folder):
            return True
    except OSError:
        return False


def _subfolders(folder: Path, *, links: bool = False) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted; with `links` also links that lead nowhere."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_folder(entry) or (links and _is_dangling(entry))]
    except OSError as error:
        raise InputError(f"{folder}: cannot read this folder: {(error.strerror or str(error)).lower()}") from None
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 - Path.exists raises for a loop of links


def open_project(root: Path) -> Project:
    """Open a project.

    Args:
        root: The project's folder.

    Returns:
        The project, with an absolute root.

    Raises:
        InputError: There is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    return Project(root.resolve())

"""The devices that a user has added: one TOML file each, in a folder of the user's configuration for each kind."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from edgekit.config.loader import read_toml, validate
from edgekit.core.environment.atomic_files import mapped_write_errors, write_text
from edgekit.core.environment.user_config import config_folder
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.values.specs import HOST

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)
else:
    Config = TypeVar("Config")

# A name of the first part of `bench-NAME.json`, which no shell and no option parser reads as anything else.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# Names that stand for something else where a device is named.
RESERVED = (HOST, "all", "chromium", "chromium-webgpu")
# Control characters cannot be quoted for every shell.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class UserDevices(Generic[Config]):
    """The devices of one kind in the user's configuration.

    Attributes:
        kind: What a device of this kind is called, such as `board`.
        folder_name: The folder in the configuration.
        config: The schema of the files, a frozen dataclass.
    """

    kind: str
    folder_name: str
    config: type[Config]

    @property
    def folder(self) -> Path:
        """The folder of the files, which need not exist."""
        return config_folder() / self.folder_name

    def files(self) -> dict[str, Path]:
        """Return what the user has added: name -> TOML file, sorted by name."""
        return {path.stem: path for path in sorted(self.folder.glob("*.toml")) if _NAME.fullmatch(path.stem)}

    def load(self, name: str) -> Config:
        """Read how a device is reached.

        Args:
            name: The device's name.

        Returns:
            Its configuration.

        Raises:
            InputError: There is no such device, or its file is invalid.
        """
        return read_toml(self._file(name), self.config, self.kind)

    def save(self, name: str, device: Config) -> Path:
        """Write how a device is reached.

        Args:
            name: The device's name.
            device: Its configuration.

        Returns:
            The file.

        Raises:
            InputError: The name is not allowed, or the file cannot be written.
        """
        self.check_name(name)
        path = self.folder / f"{name}.toml"
        # JSON's strings and integers are also TOML's.
        values = {key: value for key, value in asdict(device).items() if value is not None}
        write_text(path, "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()))
        return path

    def remove(self, name: str) -> Path:
        """Remove a device.

        Args:
            name: The device's name.

        Returns:
            The file that was removed.

        Raises:
            InputError: There is no such device, or its file cannot be removed.
        """
        path = self._file(name)
        with mapped_write_errors(path):
            path.unlink()
        return path

    def new(self, **values: object) -> Config:
        """Create a configuration from the values of options.

        Args:
            values: The fields of the schema; None for those that keep their default.

        Returns:
            The configuration.

        Raises:
            InputError: A value is not allowed.
        """
        given = {key: value for key, value in values.items() if value is not None}
        return validate(given, self.config, f"the {self.kind}")

    def check_name(self, name: str) -> None:
        """Check the name of a new device.

        Args:
            name: The name.

        Raises:
            InputError: The name is not allowed.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f"'{name}' cannot be a {self.kind}'s name; use lower-case letters, digits, '.', '_' and '-', and none"
                f" of {', '.join(RESERVED)}"
            )

    def _file(self, name: str) -> Path:
        files = self.files()
        if name not in files:
            raise unknown_name(self.kind, name, list(files))
        return files[name]


def is_plain_text(value: str) -> bool:
    """Return whether a text can be a word of a command: not empty, no option and without control characters."""
    return bool(value) and not value.startswith("-") and not _UNPRINTABLE.search(value)

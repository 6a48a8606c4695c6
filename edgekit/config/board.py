"""The schema of `boards/*.toml` in the user's configuration: how a board is reached over ssh."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from edgekit.config.loader import STRICT, read_toml, validate
from edgekit.core.environment.atomic_files import mapped_write_errors, write_text
from edgekit.core.environment.user_config import config_folder
from edgekit.core.errors import InputError, unknown_name
from edgekit.core.values.specs import HOST

# A name of the first part of `bench-NAME.json`, which no shell and no option parser reads as anything else.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# Names that stand for something else where a device is named.
RESERVED = (HOST, "all", "chromium", "chromium-webgpu")
# ssh passes user and host to the ProxyCommand of the user's configuration, which a shell runs.
_DESTINATION = re.compile(r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._+-]*)@)?(?P<host>[A-Za-z0-9_:][A-Za-z0-9._:-]*)")
_WITH_PORT = re.compile(
    r"(?P<head>.*@)?(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^:@\[\]]+))(?::(?P<port>\d{1,5}))?"
)
# Control characters cannot be quoted for every shell.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class BoardConfig:
    """How a board is reached. There is no password: use a key, and an agent for a key with a passphrase.

    Attributes:
        ssh: The destination, `[user@]host`, as ssh takes it: a host name, an address, or a name of ~/.ssh/config.
        port: The port; None for ssh's own choice.
        identity: The file of the private key; None for ssh's own choice.
        python: The board's Python, as a path or a name; a relative path is relative to the user's home folder there.
        profile: The device profile that describes the board, for predictions and budgets.
        ssh_config: The configuration file that ssh reads instead of ~/.ssh/config.
    """

    ssh: str
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    identity: str | None = None
    python: str = "python3"
    profile: str | None = None
    ssh_config: str | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not _DESTINATION.fullmatch(self.ssh):
            raise ValueError(
                "ssh: write [user@]host, with letters, digits, '.', '_' and '-' only, and not '-' at the beginning"
            )
        for key in ("identity", "python", "ssh_config"):
            value = getattr(self, key)
            if value is not None and (not value or value.startswith("-") or _UNPRINTABLE.search(value)):
                raise ValueError(f"{key}: it must not be empty, start with '-' or contain control characters")

    @property
    def label(self) -> str:
        """The destination with its port, for people."""
        return self.ssh if self.port is None else f"{self.ssh} port {self.port}"


def parse_destination(text: str) -> tuple[str, int | None]:
    """Split `[user@]host[:port]` into the destination and the port.

    Args:
        text: The destination; an IPv6 address with a port is written `[::1]:22`.

    Returns:
        The destination without the port, and the port or None.

    Raises:
        InputError: The text is no destination.
    """
    match = _WITH_PORT.fullmatch(text)
    if match is None:
        match_plain = _DESTINATION.fullmatch(text)  # an IPv6 address without brackets
        if match_plain is None:
            raise _bad_destination(text)
        return text, None
    ssh = (match["head"] or "") + (match["address"] or match["host"])
    port = int(match["port"]) if match["port"] else None
    if not _DESTINATION.fullmatch(ssh) or port == 0 or (port or 1) > 65535:
        raise _bad_destination(text)
    return ssh, port


def _bad_destination(text: str) -> InputError:
    return InputError(
        f"'{text}' is no ssh destination; write [user@]host[:port], where user and host have only letters, digits,"
        " '.', '_' and '-', and do not start with '-'"
    )


def boards_folder() -> Path:
    """Return the folder of the boards' files, which need not exist."""
    return config_folder() / "boards"


def board_files() -> dict[str, Path]:
    """Return the boards that the user has added: name -> TOML file, sorted by name."""
    return {path.stem: path for path in sorted(boards_folder().glob("*.toml")) if _NAME.fullmatch(path.stem)}


def load_board(name: str) -> BoardConfig:
    """Read how a board is reached.

    Args:
        name: The board's name.

    Returns:
        Its configuration.

    Raises:
        InputError: There is no such board, or its file is invalid.
    """
    files = board_files()
    if name not in files:
        raise unknown_name("board", name, list(files))
    return read_toml(files[name], BoardConfig, "board")


def save_board(name: str, board: BoardConfig) -> Path:
    """Write how a board is reached into the user's configuration.

    Args:
        name: The board's name.
        board: Its configuration.

    Returns:
        The file.

    Raises:
        InputError: The name is not allowed, or the file cannot be written.
    """
    check_board_name(name)
    path = boards_folder() / f"{name}.toml"
    # JSON's strings and integers are also TOML's.
    values = {key: value for key, value in asdict(board).items() if value is not None}
    write_text(path, "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()))
    return path


def remove_board(name: str) -> Path:
    """Remove a board from the user's configuration.

    Args:
        name: The board's name.

    Returns:
        The file that was removed.

    Raises:
        InputError: There is no such board, or its file cannot be removed.
    """
    files = board_files()
    if name not in files:
        raise unknown_name("board", name, list(files))
    with mapped_write_errors(files[name]):
        files[name].unlink()
    return files[name]


def new_board(**values: object) -> BoardConfig:
    """Create a configuration from the values of options.

    Args:
        values: The fields of `BoardConfig`.

    Returns:
        The configuration.

    Raises:
        InputError: A value is not allowed.
    """
    return validate({key: value for key, value in values.items() if value is not None}, BoardConfig, "the board")


def check_board_name(name: str) -> None:
    """Check the name of a new board.

    Args:
        name: The name.

    Raises:
        InputError: The name is not allowed.
    """
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"'{name}' cannot be a board's name; use lower-case letters, digits, '.', '_' and '-', and none of"
            f" {', '.join(RESERVED)}"
        )

"""The schema of `boards/*.toml` in the user's configuration: how a board is reached over ssh."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edgekit.config.loader import STRICT
from edgekit.config.user_devices import UserDevices, is_plain_text
from edgekit.core.errors import InputError

# ssh passes user and host to the ProxyCommand of the user's configuration, which a shell runs.
_DESTINATION = re.compile(r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._+-]*)@)?(?P<host>[A-Za-z0-9_:][A-Za-z0-9._:-]*)")
_WITH_PORT = re.compile(
    r"(?P<head>.*@)?(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^:@\[\]]+))(?::(?P<port>\d{1,5}))?"
)


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
            if value is not None and not is_plain_text(value):
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


BOARDS = UserDevices("board", "boards", BoardConfig)

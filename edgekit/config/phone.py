"""The schema of `phones/*.toml` in the user's configuration: how a phone is reached over adb."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.config.loader import STRICT
from edgekit.config.user_devices import UserDevices, is_plain_text

# What `adb devices` lists: a serial number, HOST:PORT, or the name of a service that was found in the network.
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]% ()-]{0,127}")


@dataclass(frozen=True)
class PhoneConfig:
    """How a phone is reached.

    Attributes:
        adb: The serial number, as `adb devices` lists it.
        runner: The file of LiteRT's benchmark_model on this host, built for the phone; None for the one on the phone.
        profile: The device profile that describes the phone, for predictions and budgets.
    """

    adb: str
    runner: str | None = None
    profile: str | None = None

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not _SERIAL.fullmatch(self.adb):
            raise ValueError("adb: write a serial number as `adb devices` lists it")
        if self.runner is not None and not is_plain_text(self.runner):
            raise ValueError("runner: it must not be empty, start with '-' or contain control characters")

    @property
    def label(self) -> str:
        """The serial number, for people."""
        return f"the phone {self.adb}"


PHONES = UserDevices("phone", "phones", PhoneConfig)

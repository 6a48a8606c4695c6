"""The devices that a user may name: device profiles, boards over ssh, phones over adb, and browsers on this host."""

from __future__ import annotations

from pathlib import Path

from edgekit.config.board import BOARDS
from edgekit.config.device_profile import load_profile
from edgekit.config.phone import PHONES
from edgekit.contracts.executor import Place
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, unknown_name
from edgekit.devices.browsers.names import BROWSERS, is_browser

# The executors that measure on boards, on phones and in browsers.
SSH = "ssh"
ADB = "adb"
BROWSER = "browser"


def device_names(project: Project) -> list[str]:
    """Return the names of all device profiles, boards, phones and browsers, sorted."""
    return sorted({*project.device_files(), *BOARDS.files(), *PHONES.files(), *BROWSERS})


def is_board(name: str) -> bool:
    """Return whether the user has added a board of this name."""
    return name in BOARDS.files()


def is_phone(name: str) -> bool:
    """Return whether the user has added a phone of this name."""
    return name in PHONES.files()


def user_file(name: str) -> Path | None:
    """Return the file of a board or a phone in the user's configuration, or None."""
    return BOARDS.files().get(name) or PHONES.files().get(name)


def measuring_executor(name: str) -> str:
    """Return the executor that measures on a device itself; empty if there is none, and it can only be emulated.

    Args:
        name: The name of the device.
    """
    if is_browser(name):
        return BROWSER
    if is_board(name):
        return SSH
    return ADB if is_phone(name) else ""


def find_place(project: Project, name: str) -> Place:
    """Find a device by name.

    Args:
        project: The project, whose device profiles come before those that edgekit ships.
        name: The name of a device profile, of a board, of a phone or of a browser.

    Returns:
        The device; the profile of a board or phone is the one that its configuration names, or None; a browser has
        none.

    Raises:
        InputError: There is no such device, there are two of this name, or a file is invalid.
    """
    path = profile_file(project, name)
    return Place(name, None if path is None else load_profile(path))


def profile_file(project: Project, name: str) -> Path | None:
    """Return the file of the profile that describes a device.

    Args:
        project: The project.
        name: The name of a device profile, of a board, of a phone or of a browser.

    Returns:
        The file; None for a browser, and for a board or a phone without a profile.

    Raises:
        InputError: As `find_place`.
    """
    profiles = project.device_files()
    kinds = {"device profile": profiles, "board": BOARDS.files(), "phone": PHONES.files()}
    found = [(kind, files[name]) for kind, files in kinds.items() if name in files]
    if is_browser(name):
        if found:
            raise InputError(f"{name} is a browser, and the name of {found[0][1]}; rename that file")
        return None
    if len(found) > 1:
        both = " and ".join(f"a {kind} ({path})" for kind, path in found[:2])
        raise InputError(f"{name} is both {both}; rename one of the files")
    if not found:
        raise unknown_name("device", name, device_names(project))
    kind, path = found[0]
    if name in profiles:
        return path
    profile = BOARDS.load(name).profile if kind == "board" else PHONES.load(name).profile
    if profile is None:
        return None
    if profile not in profiles:
        raise InputError(f"{path}: profile: {unknown_name('device profile', profile, list(profiles))}")
    return profiles[profile]

"""The devices that a user may name: device profiles, boards that are reached over ssh, and browsers on this host."""

from __future__ import annotations

from pathlib import Path

from edgekit.config.board import board_files, load_board
from edgekit.config.device_profile import load_profile
from edgekit.contracts.executor import Place
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, unknown_name
from edgekit.devices.browsers.names import BROWSERS, is_browser

# The executors that measure on boards and in browsers.
SSH = "ssh"
BROWSER = "browser"


def device_names(project: Project) -> list[str]:
    """Return the names of all device profiles, boards and browsers, sorted."""
    return sorted({*project.device_files(), *board_files(), *BROWSERS})


def is_board(name: str) -> bool:
    """Return whether the user has added a board of this name."""
    return name in board_files()


def measuring_executor(name: str) -> str:
    """Return the executor that measures on a device itself; empty if there is none, and it can only be emulated.

    Args:
        name: The name of the device.
    """
    if is_browser(name):
        return BROWSER
    return SSH if is_board(name) else ""


def find_place(project: Project, name: str) -> Place:
    """Find a device by name.

    Args:
        project: The project, whose device profiles come before those that edgekit ships.
        name: The name of a device profile, of a board or of a browser.

    Returns:
        The device; the profile of a board is the one that its configuration names, or None; a browser has none.

    Raises:
        InputError: There is no such device, there are two of this name, or a file is invalid.
    """
    path = profile_file(project, name)
    return Place(name, None if path is None else load_profile(path))


def profile_file(project: Project, name: str) -> Path | None:
    """Return the file of the profile that describes a device.

    Args:
        project: The project.
        name: The name of a device profile, of a board or of a browser.

    Returns:
        The file; None for a browser, and for a board without a profile.

    Raises:
        InputError: As `find_place`.
    """
    profiles, boards = project.device_files(), board_files()
    if is_browser(name):
        taken = profiles.get(name) or boards.get(name)
        if taken is not None:
            raise InputError(f"{name} is a browser, and the name of {taken}; rename that file")
        return None
    if name in profiles and name in boards:
        raise InputError(
            f"{name} is both a device profile ({profiles[name]}) and a board ({boards[name]}); rename one of the files"
        )
    if name in profiles:
        return profiles[name]
    if name not in boards:
        raise unknown_name("device", name, device_names(project))
    profile = load_board(name).profile
    if profile is None:
        return None
    if profile not in profiles:
        raise InputError(f"{boards[name]}: profile: {unknown_name('device profile', profile, list(profiles))}")
    return profiles[profile]

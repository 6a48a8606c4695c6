"""Where the user's folders are that all projects share, by the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder(override_variable: str, xdg_variable: str, default: str) -> Path:
    """Return a folder of the user, which need not exist yet.

    Args:
        override_variable: The environment variable that names the folder itself.
        xdg_variable: The specification's environment variable for the folder above it.
        default: The folder above it where that variable is not set, such as `~/.cache`.

    Returns:
        The absolute path.
    """
    override = os.environ.get(override_variable)
    if override:
        return Path(override).absolute()
    # The XDG base directory specification says that a relative path is invalid and must be ignored.
    base = Path(os.environ.get(xdg_variable) or default).expanduser()
    return (base if base.is_absolute() else Path(default).expanduser()) / "edgekit"

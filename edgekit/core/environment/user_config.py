"""The user's configuration folder, which all projects share."""

from __future__ import annotations

import os
from pathlib import Path


def config_folder() -> Path:
    """Return the configuration folder, which need not exist yet.

    Returns:
        `$EDGEKIT_CONFIG`, else `$XDG_CONFIG_HOME/edgekit`, else `~/.config/edgekit`, as an absolute path.
    """
    override = os.environ.get("EDGEKIT_CONFIG")
    if override:
        return Path(override).absolute()
    # The XDG base directory specification says that a relative path is invalid and must be ignored.
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return (base if base.is_absolute() else Path("~/.config").expanduser()) / "edgekit"

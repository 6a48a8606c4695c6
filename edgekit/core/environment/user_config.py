"""The user's configuration folder, which all projects share."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.environment.user_folders import user_folder


def config_folder() -> Path:
    """Return the configuration folder, which need not exist yet.

    Returns:
        `$EDGEKIT_CONFIG`, else `$XDG_CONFIG_HOME/edgekit`, else `~/.config/edgekit`, as an absolute path.
    """
    return user_folder("EDGEKIT_CONFIG", "XDG_CONFIG_HOME", "~/.config")

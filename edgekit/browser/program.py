"""The browser's program, and how it is started: headless, in its own sandbox, without a network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgekit.core.environment.requirements import Requirement
from edgekit.core.errors import MissingDependency

PLAYWRIGHT = Requirement("playwright", "playwright", "browser")
BROTLI = Requirement("brotli", "brotli", "browser")

# The variable that names the program.
VARIABLE = "EDGEKIT_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    # The page talks to the server of this process only.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
# What WebGPU computes on: nothing, the machine's own adapter, or the browser's software adapter. Each is an argument of
# its own, since the browser prefers none to the software adapter.
NO_WEBGPU, HARDWARE, SOFTWARE = "none", "hardware", "software"
_OF_WEBGPU = {
    NO_WEBGPU: ("--disable-gpu",),
    HARDWARE: ("--enable-unsafe-webgpu", "--enable-features=Vulkan"),
    SOFTWARE: ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"),
}


def chromium_path() -> str | None:
    """Return the path of the browser's program, or None if there is none.

    Raises:
        MissingDependency: The variable EDGEKIT_CHROMIUM names no program.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise MissingDependency(f"{VARIABLE} names {named}, which is not a program")
        return named
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def require_chromium() -> str:
    """Return the path of the browser's program.

    Raises:
        MissingDependency: There is none; the message contains the command that installs it.
    """
    path = chromium_path()
    if path is None:
        raise MissingDependency(
            "running models in a browser needs chromium; install it with: apt-get install chromium"
            f" (or name another one in {VARIABLE})"
        )
    return path


def arguments(webgpu: str) -> list[str]:
    """Return the arguments of the program.

    Args:
        webgpu: What WebGPU computes on.
    """
    return [*ARGUMENTS, *_OF_WEBGPU[webgpu]]

"""The browsers as names of devices, and which of their runtimes runs the files of another runtime."""

from __future__ import annotations

from edgekit.browser.page import WASM, WEBGPU
from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.target import TARGETS

# The name of the device -> what computes.
BROWSERS = {"chromium": WASM, "chromium-webgpu": WEBGPU}


def is_browser(name: str) -> bool:
    """Return whether a device is a browser on this host."""
    return name in BROWSERS


def web_runtime(runtime: str) -> str:
    """Return the runtime of a browser for what a runtime runs.

    Args:
        runtime: The name of a runtime.

    Returns:
        The name itself if it is a browser's; for a target's default runtime, the browser's for that target; else empty.
    """
    plugin = RUNTIMES.load(runtime)
    if plugin.in_browser:
        return runtime
    # A runtime that is not the target's default was named by the user, and computes in a way of its own.
    targets = {target for target in plugin.targets if TARGETS.load(target).runtime == runtime}
    candidates = RUNTIMES.load_all().items()
    return next((name for name, other in candidates if other.in_browser and targets & set(other.targets)), "")


def browser_only(runtime: str) -> str:
    """Return the error message for a measurement of a browser's runtime elsewhere.

    Args:
        runtime: The name of the runtime.
    """
    return f"{runtime} runs in a browser, and can only be timed there; use the device {next(iter(BROWSERS))}"

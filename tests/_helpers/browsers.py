"""A browser for tests, where there is one: Chromium, Playwright, and the runtimes' packages, which are set up once."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from edgekit.browser.packages import find_packages
from edgekit.browser.program import chromium_path

needs_browser = pytest.mark.skipif(
    chromium_path() is None
    or importlib.util.find_spec("playwright") is None
    or importlib.util.find_spec("brotli") is None
    or (find_packages() is None and shutil.which("npm") is None),
    reason="there is no browser here: apt-get install chromium npm && pip install 'edgekit[browser]'",
)


def set_up_packages() -> None:
    """Set up the packages unless they are there; `set_up` itself waits for other processes that do."""
    from edgekit.devices.browsers.setup import set_up

    if find_packages() is None:
        set_up(print)

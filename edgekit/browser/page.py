"""A page in a headless browser that has loaded one runtime, and the models that it runs. For worker processes only.

A process has one browser with one page at most; it ends with the process, however that ends: the browser reads its
commands from a pipe, and exits when that is closed.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.browser.packages import packages_folder, require_packages
from edgekit.browser.program import HARDWARE, NO_WEBGPU, PLAYWRIGHT, SOFTWARE, arguments, require_chromium
from edgekit.browser.server import PageServer
from edgekit.core.environment.requirements import require
from edgekit.core.errors import EdgekitError, InputError, MissingDependency, StepCrashed, StepFailed, StepOutOfMemory
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec

WEB_FOLDER = Path(__file__).with_name("web")
WASM, WEBGPU = "wasm", "webgpu"
BACKENDS = {WASM: "WASM", WEBGPU: "WebGPU"}

_START_TIMEOUT_MS = 60_000.0
_OUT_OF_MEMORY = re.compile(r"out of memory|\boom\b|bad_alloc|array buffer allocation failed|could not allocate", re.I)
# What a library prints after the reason.
_MAX_REASON = 300


@dataclass(frozen=True)
class PageSettings:
    """What a page is started with.

    Attributes:
        runtime: The name of the runtime.
        threads: The number of threads.
        backend: What computes: `wasm` or `webgpu`.
    """

    runtime: str
    threads: int = 1
    backend: str = WASM


class NoAdapter(InputError):
    """Error for WebGPU in a browser that has no adapter for it."""


@dataclass(frozen=True)
class PageInfo:
    """What the page reports about itself.

    Attributes:
        browser: The browser with its version.
        load_ms: The time to load and compile the runtime, in ms.
        adapter: The name of the WebGPU adapter, or None.
        software: Whether that computes on the CPU.
        isolated: Whether the page may use threads.
    """

    browser: str
    load_ms: float
    adapter: str | None
    software: bool
    isolated: bool


def reason_of(text: str) -> str:
    """Return the first line of a message, without Playwright's prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "no message").removeprefix("Page.evaluate: ")[:_MAX_REASON]


def is_out_of_memory(text: str) -> bool:
    """Return whether a message of the page or the browser is about memory."""
    return _OUT_OF_MEMORY.search(text) is not None


class _Browser:
    """Playwright's driver and a running browser.

    Attributes:
        error: The class of Playwright's errors.
    """

    def __init__(self, webgpu: str) -> None:
        from playwright.sync_api import Error, sync_playwright

        program = require_chromium()
        self.error = Error
        self.webgpu = webgpu
        self._driver = sync_playwright().start()
        try:
            self._browser = self._driver.chromium.launch(
                executable_path=program,
                args=arguments(webgpu),
                # The kernel refuses the sandbox's namespaces to root in most containers.
                chromium_sandbox=os.geteuid() != 0,
                timeout=_START_TIMEOUT_MS,
                env={**os.environ, "TMPDIR": tempfile.gettempdir()},
            )
        except Error as error:
            self._driver.stop()
            raise MissingDependency(f"{program} does not start as a browser ({reason_of(error.message)})") from None

    @property
    def label(self) -> str:
        """The browser with its version."""
        return f"Chromium {self._browser.version}"

    @property
    def is_running(self) -> bool:
        return bool(self._browser.is_connected())

    def new_page(self) -> Any:
        return self._browser.new_page()

    def close(self) -> None:
        with contextlib.suppress(self.error):  # it has ended by itself
            self._browser.close()
        self._driver.stop()


class BrowserPage:
    """A page of a browser, and the server of its files.

    Attributes:
        packages: The record of the packages that the page loads.
        settings: The runtime, and how it computes.
        started: What the page reports about itself.
        broken: Whether the page has crashed or run out of memory, after which it answers nothing more.
        discarded: The numbers of models that nobody uses any more; the next model that is opened closes them.
    """

    def __init__(self, browser: _Browser, settings: PageSettings) -> None:
        """Load the runtime into a new page.

        Args:
            browser: The running browser.
            settings: The runtime, and how it computes.

        Raises:
            MissingDependency: The packages are not installed.
            NoAdapter: There is no WebGPU adapter.
            StepError: The runtime cannot be loaded.
        """
        self.packages = require_packages()
        self.settings = settings
        self.broken = False
        self.discarded: list[int] = []
        self._error, self._ids, self._crashed = browser.error, itertools.count(), False
        self._server = PageServer({"page/": WEB_FOLDER, "packages/": packages_folder()})
        try:
            self._page = browser.new_page()
            self._page.on("crash", self._note_crash)
            self._page.goto(f"{self._server.url}page/runner.html", timeout=_START_TIMEOUT_MS)
            self._page.wait_for_function("window.ready === true", timeout=_START_TIMEOUT_MS)
            started = self.perform("start", {**asdict(settings), "base": f"../packages/{settings.runtime}/"})
        except browser.error as error:
            self._server.close()
            raise self._failure(error.message) from None
        except BaseException:
            self.close()
            raise
        self.started = PageInfo(browser.label, **started)

    def _note_crash(self, _page: object) -> None:
        self._crashed = True

    def perform(self, action: str, request: Mapping[str, Any]) -> Any:
        """Perform an action of the page.

        Args:
            action: Its name, of those in `runner.mjs`.
            request: Its argument as JSON values.

        Returns:
            Its answer as JSON values.

        Raises:
            InputError: The runtime refuses the request.
            StepCrashed: The page or the browser crashed.
            StepOutOfMemory: The page ran out of memory.
        """
        try:
            answer = self._page.evaluate("request => window.perform(request)", [action, dict(request)])
        except self._error as error:
            raise self._failure(error.message) from None
        if "error" in answer:
            text = reason_of(str(answer["error"]))
            if answer.get("kind") == "adapter":
                raise NoAdapter(text)
            if is_out_of_memory(text):
                self.broken = True
                raise StepOutOfMemory(f"the page ran out of memory ({text})")
            raise InputError(text)
        return answer["answer"]

    def _failure(self, message: str) -> EdgekitError:
        self.broken = True
        if self._crashed or "crashed" in message.lower():
            return StepCrashed("the browser's page crashed, as it does when the memory of a page is used up")
        if is_out_of_memory(message):
            return StepOutOfMemory(f"the page ran out of memory ({reason_of(message)})")
        if "closed" in message.lower():
            return StepCrashed("the browser ended before it answered")
        return StepFailed(f"the browser failed ({reason_of(message)})")

    def open_model(self, path: Path, signature: Signature) -> tuple[int, float]:
        """Open a model file in the page.

        Args:
            path: The file.
            signature: Its inputs and outputs.

        Returns:
            The number of the model, and the time to open it in ms, with the file's content in memory.

        Raises:
            EdgekitError: As `perform`.
        """
        while self.discarded:
            self.perform("close", {"id": self.discarded.pop()})
        number = next(self._ids)
        request = {"id": number, "url": f"../{self._server.add(path)}", "signature": _names(signature)}
        return number, self.perform("open", request)["load_ms"]

    def run(self, number: int, signature: Signature, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference.

        Args:
            number: The number of the model.
            signature: Its inputs and outputs.
            inputs: Raw arrays in the order of the signature.

        Returns:
            Raw arrays in the order of the signature.

        Raises:
            EdgekitError: As `perform`.
        """
        outputs = self.perform("run", {"id": number, "inputs": encode(signature, inputs)})
        pairs = zip(signature.outputs, outputs, strict=True)
        return [
            np.frombuffer(base64.b64decode(output["data"]), np.dtype(spec.dtype)).reshape(output["shape"]).copy()
            for spec, output in pairs
        ]

    def fetched(self) -> tuple[str, ...]:
        """Return the files of the packages that the page has fetched, each once, as the record names them."""
        names = (name.removeprefix("packages/") for name in self._server.served if name.startswith("packages/"))
        return tuple(dict.fromkeys(names))

    def close(self) -> None:
        """Close the page and its server."""
        with contextlib.suppress(self._error):  # it has ended by itself
            self._page.close()
        self._server.close()


def _names(signature: Signature) -> dict[str, list[dict[str, Any]]]:
    def entries(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

    return {"inputs": entries(signature.inputs), "outputs": entries(signature.outputs)}


def encode(signature: Signature, inputs: Sequence[Array]) -> list[dict[str, Any]]:
    """Return raw arrays as the page takes them.

    Args:
        signature: The signature of the model.
        inputs: The arrays in its order.
    """
    return [
        {"dtype": spec.dtype, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}
        for spec, array in zip(signature.inputs, inputs, strict=True)
    ]


_browser: _Browser | None = None
_current: BrowserPage | None = None


def page_of(settings: PageSettings) -> BrowserPage:
    """Return this process's page, loaded anew if it has other settings.

    Where there is no other WebGPU adapter, it is the browser's software adapter.

    Args:
        settings: The runtime, and how it computes.

    Raises:
        MissingDependency: Playwright, the browser or the packages are not installed.
        InputError: There is no WebGPU adapter.
        StepError: The browser cannot be started, or the runtime cannot be loaded.
    """
    global _current  # noqa: PLW0603 - a process has one page
    if _current is not None and not _current.broken and _current.settings == settings:
        return _current
    close_page()
    require((PLAYWRIGHT,), f"the runtime {settings.runtime}")
    if settings.backend == WASM:
        _current = BrowserPage(_browser_with(NO_WEBGPU), settings)
        return _current
    try:
        _current = BrowserPage(_browser_with(HARDWARE), settings)
    except NoAdapter:
        _current = BrowserPage(_browser_with(SOFTWARE), settings)
    return _current


def _browser_with(webgpu: str) -> _Browser:
    """Return this process's browser, started anew if it has ended or another WebGPU."""
    global _browser  # noqa: PLW0603 - a process has one browser
    if _browser is not None and (_browser.webgpu != webgpu or not _browser.is_running):
        close_browser()
    if _browser is None:
        _browser = _Browser(webgpu)
    return _browser


def close_page() -> None:
    """Close this process's page, if there is one."""
    global _current
    if _current is not None:
        page, _current = _current, None
        page.close()


def close_browser() -> None:
    """End this process's browser, if there is one."""
    global _browser
    close_page()
    if _browser is not None:
        browser, _browser = _browser, None
        browser.close()

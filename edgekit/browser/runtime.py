"""What the runtimes of a browser share: a model is open in a page, and each inference is a call of the page."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from edgekit.browser.page import BrowserPage, PageSettings, page_of
from edgekit.browser.program import PLAYWRIGHT
from edgekit.contracts.runtime import Runtime, RuntimeSession, UnknownSignature
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature


class BrowserSession(RuntimeSession):
    """A model that is open in a page.

    Attributes:
        page: The page.
        number: The number of the model in the page.
        load_ms: The time to open it in ms, with the file's content in memory.
    """

    def __init__(self, page: BrowserPage, number: int, load_ms: float, signature: Signature) -> None:
        super().__init__(signature)
        self.page, self.number, self.load_ms = page, number, load_ms
        # The page keeps a model until it is told to close it, which only the thread of the browser may do.
        weakref.finalize(self, page.discarded.append, number)

    def _run(self, inputs: list[Array]) -> list[Array]:
        return self.page.run(self.number, self.signature, inputs)

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        arrays = [inputs[spec.name] for spec in self.signature.inputs]
        return lambda: self.page.run(self.number, self.signature, arrays)


class BrowserRuntime(Runtime):
    """A runtime that is a library of web pages; a subclass sets the names and targets.

    Attributes:
        dtypes: The types of inputs and outputs that the library takes; empty for all.
        instead: What to export where it does not take those of a file.
    """

    requires = (PLAYWRIGHT,)
    in_browser = True
    # The browser is a program that talks to a server in this process; it confines by itself what it runs.
    confined = False
    dtypes: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[str] = ""

    def load_library(self) -> None:
        import playwright.sync_api  # noqa: F401

    def refusal(self, signature: Signature) -> str:
        """Return why the library does not run files with such inputs and outputs, or an empty string.

        Args:
            signature: The inputs and outputs.
        """
        tensors = (*signature.inputs, *signature.outputs)
        refused = next((spec for spec in tensors if self.dtypes and spec.dtype not in self.dtypes), None)
        if refused is None:
            return ""
        dtypes = f"{', '.join(self.dtypes[:-1])} and {self.dtypes[-1]}"
        return f"{self.title} takes tensors of {dtypes} only, and {refused.name} is {refused.dtype}; {self.instead}"

    def _open(self, path: Path, threads: int, signature: Signature | None) -> BrowserSession:
        if signature is None:
            raise UnknownSignature(f"{path}: {self.title} needs the names of the inputs and outputs")
        return self.open_in_page(path, PageSettings(self.name, threads), signature)

    def open_in_page(self, path: Path, settings: PageSettings, signature: Signature) -> BrowserSession:
        """Open a model file in this process's page.

        Args:
            path: The file.
            settings: The runtime, and how it computes.
            signature: The inputs and outputs of the file.

        Returns:
            A session, ready to run.

        Raises:
            InputError: The file is damaged, or has operators or types that the library lacks.
            MissingDependency: The browser or the library is not installed.
            StepError: The browser failed.
        """
        reason = self.refusal(signature)
        if reason:
            raise InputError(f"{path}: {reason}")
        page = page_of(settings)
        try:
            number, load_ms = page.open_model(path, signature)
        except InputError as error:
            raise InputError(f"{path}: {self.title} cannot load this file ({error})") from None
        return BrowserSession(page, number, load_ms, signature)

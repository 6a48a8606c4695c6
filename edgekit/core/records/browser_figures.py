"""What a measurement in a browser says beside its latency: what computed, and what a visitor of a page transfers."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.numerics.timing import Distribution
from edgekit.core.values.typed_json import Count, FileName, Milliseconds, Name, PositiveCount


@dataclass(frozen=True)
class TransferSize:
    """The size of files in bytes, as they are and as a web server compresses them.

    Attributes:
        raw_bytes: Without compression.
        gzip_bytes: After `gzip -9`, each file by itself.
        brotli_bytes: After brotli at quality 6, each file by itself.
    """

    raw_bytes: Count
    gzip_bytes: Count
    brotli_bytes: Count

    def __add__(self, other: TransferSize) -> TransferSize:
        return TransferSize(
            self.raw_bytes + other.raw_bytes,
            self.gzip_bytes + other.gzip_bytes,
            self.brotli_bytes + other.brotli_bytes,
        )


@dataclass(frozen=True)
class ThreadedRun:
    """The same model in the same browser with another number of threads.

    Attributes:
        threads: The number of threads.
        wall: The distribution of the wall-clock times of one inference.
    """

    threads: PositiveCount
    wall: Distribution


@dataclass(frozen=True)
class BrowserFigures:
    """What ran in the browser, and what it takes to get there.

    Attributes:
        browser: The browser with its version.
        runtime: The runtime's name.
        version: Its version.
        backend: What computed: `wasm` or `webgpu`.
        adapter: The WebGPU adapter, or None.
        runtime_load_ms: The time to load and compile the runtime, in ms, from a server on this host.
        runtime_transfer: The size of the runtime's files that the page fetched.
        model_transfer: The size of the model file.
        threaded: The runs with other numbers of threads.
    """

    browser: Name
    runtime: FileName
    version: Name
    backend: FileName
    adapter: Name | None
    runtime_load_ms: Milliseconds
    runtime_transfer: TransferSize
    model_transfer: TransferSize
    threaded: tuple[ThreadedRun, ...] = ()

    @property
    def transfer(self) -> TransferSize:
        """The size of the runtime and the model together."""
        return self.runtime_transfer + self.model_transfer

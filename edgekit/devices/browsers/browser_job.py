"""Worker jobs that measure a model file in a browser, and run samples through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.browser.page import WASM, PageSettings, close_page, encode, page_of
from edgekit.browser.runtime import BrowserRuntime, BrowserSession
from edgekit.contracts.executor import BenchRequest
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.bounded_files import compressed_size
from edgekit.core.errors import InputError
from edgekit.core.events import Listener
from edgekit.core.numerics import batching
from edgekit.core.numerics.affine_quantization import to_tensor
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.timing import NS_PER_MS, Distribution
from edgekit.core.records import samples
from edgekit.core.records.browser_figures import BrowserFigures, ThreadedRun, TransferSize
from edgekit.core.values.specs import Signature
from edgekit.devices.browsers.setup import BROTLI_QUALITY
from edgekit.workers.job import worker_job

# A measurement is repeated in so many pages: what one page keeps, such as its compiled code, differs in the next.
PAGES = 3


@dataclass(frozen=True)
class InferInPage:
    """Request to run samples.

    Attributes:
        settings: The runtime, and how it computes.
        path: The model file, absolute.
        signature: Its inputs and outputs.
        inputs: Real values by input name, each of shape (N, ...).
        batch: Samples per call, where the batch dimension is symbolic.
        from_start: Whether to open the file again for each sample.
    """

    settings: PageSettings
    path: str
    signature: Signature
    inputs: Mapping[str, Array]
    batch: int = 1
    from_start: bool = False


@dataclass(frozen=True)
class MeasureInPage:
    """Request to measure a model.

    Attributes:
        settings: The runtime, and how it computes.
        path: The model file, absolute.
        signature: Its inputs and outputs.
        samples: The npz file of samples, absolute.
        bench: How to measure.
        threads: Further numbers of threads to measure with.
    """

    settings: PageSettings
    path: str
    signature: Signature
    samples: str
    bench: BenchRequest
    threads: tuple[int, ...] = ()


@dataclass(frozen=True)
class PageMeasurement:
    """The answer to a `MeasureInPage`.

    Attributes:
        walls: The distribution of the times of one inference, page by page.
        load_ms: The time to open the model in ms, in the first page.
        first_inference_ms: The time of the first inference in ms, in the first page.
        warm_up_runs: The number of inferences before the measured ones, in the first page.
        figures: What ran, and what is transferred.
        software: Whether a WebGPU adapter computed on the CPU.
        isolated: Whether the page may use threads.
    """

    walls: tuple[Distribution, ...]
    load_ms: float
    first_inference_ms: float
    warm_up_runs: int
    figures: BrowserFigures
    software: bool
    isolated: bool


def browser_runtime(name: str) -> BrowserRuntime:
    """Return a runtime of the browser by name.

    Raises:
        InputError: The runtime does not run in a browser.
    """
    runtime = RUNTIMES.load(name)
    if not isinstance(runtime, BrowserRuntime):
        raise InputError(f"{name} does not run in a browser")
    return runtime


def _open(request: InferInPage | MeasureInPage, settings: PageSettings) -> BrowserSession:
    return browser_runtime(settings.runtime).open_in_page(Path(request.path), settings, request.signature)


@worker_job
def infer_in_page(request: InferInPage, _emit: Listener) -> Mapping[str, Array]:
    """Run samples in a browser.

    Args:
        request: The model, its runtime and the samples.

    Returns:
        Real values by output name, each of shape (N, ...).

    Raises:
        InputError: The runtime cannot load the file, or the inputs do not match its signature.
        StepError: The browser failed.
    """
    session = _open(request, request.settings)
    if not request.from_start:
        return session.infer(request.inputs, request.batch)
    count = batching.n_samples(request.signature, request.inputs)
    parts = [
        (_open(request, request.settings) if index else session).infer(
            batching.select_samples(request.signature, request.inputs, index, index + 1), request.batch
        )
        for index in range(count)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@worker_job
def measure_in_page(request: MeasureInPage, _emit: Listener) -> PageMeasurement:
    """Measure a model in several pages of a browser, one after the other.

    Args:
        request: The model, its runtime and how to measure.

    Returns:
        The latencies, and what a visitor transfers.

    Raises:
        InputError: The runtime cannot load the file.
        StepError: The browser failed.
    """
    runs = list(_measurements(request, request.settings, PAGES))
    session, first = runs[0]
    page, settings = session.page, request.settings
    figures = BrowserFigures(
        browser=page.started.browser,
        runtime=settings.runtime,
        version=page.packages.version(settings.runtime),
        backend=settings.backend,
        adapter=page.started.adapter if settings.backend != WASM else None,
        runtime_load_ms=page.started.load_ms,
        runtime_transfer=_runtime_transfer(session),
        model_transfer=transfer_size(Path(request.path)),
        threaded=tuple(
            ThreadedRun(threads, _distribution(measured))
            for threads in request.threads
            for _, measured in _measurements(request, PageSettings(settings.runtime, threads, settings.backend), 1)
        ),
    )
    return PageMeasurement(
        tuple(_distribution(measured) for _, measured in runs),
        session.load_ms,
        first["first_ms"],
        first["warm_up_runs"],
        figures,
        page.started.software,
        page.started.isolated,
    )


def _measurements(
    request: MeasureInPage, settings: PageSettings, count: int
) -> Iterator[tuple[BrowserSession, dict[str, Any]]]:
    """Measure in `count` new pages; yield the session and what the page answers."""
    inputs = samples.load(Path(request.samples), "golden samples").inputs
    call = next(batching.iter_batches(request.signature, inputs))
    arrays = [to_tensor(array, spec) for spec, array in zip(request.signature.inputs, call, strict=True)]
    for _ in range(count):
        close_page()
        session = _open(request, settings)
        yield (
            session,
            page_of(settings).perform(
                "measure",
                {
                    "id": session.number,
                    "inputs": encode(request.signature, arrays),
                    "min_duration_s": request.bench.min_duration_s,
                    "min_runs": request.bench.min_runs,
                    "warm_up_max_s": request.bench.warm_up_max_s,
                },
            ),
        )


def _distribution(measured: Mapping[str, Any]) -> Distribution:
    return Distribution.of([round(wall_ms * NS_PER_MS) for wall_ms in measured["walls_ms"]])


def _runtime_transfer(session: BrowserSession) -> TransferSize:
    """Return the size of what the page fetched of the runtime, from the record of the packages."""
    files = [session.page.packages.files[name] for name in session.page.fetched()]
    return TransferSize(
        sum(file.size_bytes for file in files),
        sum(file.gzip_bytes for file in files),
        sum(file.brotli_bytes for file in files),
    )


def transfer_size(path: Path) -> TransferSize:
    """Return the size of a file, as it is and compressed.

    Args:
        path: The file.
    """
    import brotli

    content = path.read_bytes()
    compressed = len(brotli.compress(content, quality=BROTLI_QUALITY))
    return TransferSize(len(content), compressed_size(path), compressed)

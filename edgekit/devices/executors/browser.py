"""Runs models in a headless browser on this host: .onnx files in ONNX Runtime Web, .tflite files in LiteRT.js."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgekit.browser.packages import require_packages
from edgekit.browser.page import BACKENDS, WASM, PageSettings
from edgekit.browser.program import BROTLI, PLAYWRIGHT, require_chromium
from edgekit.contracts.executor import (
    BenchRequest,
    BenchResult,
    ExecutionSession,
    Executor,
    InferRequest,
    InferResult,
    ModelFiles,
    Place,
    PreparedBench,
)
from edgekit.core.errors import InputError
from edgekit.devices.browsers.browser_job import (
    InferInPage,
    MeasureInPage,
    PageMeasurement,
    browser_runtime,
    infer_in_page,
    measure_in_page,
)
from edgekit.devices.browsers.names import BROWSERS, is_browser, web_runtime
from edgekit.devices.host_machine import available_cpus
from edgekit.workers.environment import Environment

# More threads than this make few models faster in a browser, and many slower.
_MAX_THREADS = 4

# The browser is started by the worker, and confines by itself what it runs.
_ENVIRONMENT = Environment(confined=False)


@dataclass(frozen=True)
class _PageBench(PreparedBench):
    """A model and what to measure; the pages are opened by the measurement, whose figures include that."""

    session: ExecutionSession
    request: MeasureInPage

    def run(self) -> BenchResult:
        """Measure in several pages, one after the other; the interval is that of their medians."""
        measured = self.session.pool.call(
            measure_in_page,
            self.request,
            step=self.session.step,
            environment=_ENVIRONMENT,
            timeout_s=self.request.bench.timeout_s,
        )
        settings, figures = self.request.settings, measured.figures
        ordered = sorted(measured.walls, key=lambda wall: wall.p50_ms)
        backend = BACKENDS[settings.backend] + (f" ({figures.adapter})" if figures.adapter else "")
        return BenchResult(
            latency_ms=statistics.median(wall.p50_ms for wall in ordered),
            threads=settings.threads,
            description=f"{figures.browser}, {figures.runtime} {figures.version}, {backend}",
            low_ms=ordered[0].p50_ms,
            high_ms=ordered[-1].p50_ms,
            wall=ordered[len(ordered) // 2],
            load_ms=measured.load_ms,
            first_inference_ms=measured.first_inference_ms,
            warm_up_runs=measured.warm_up_runs,
            browser=figures,
            notes=_notes(measured),
        )


def _notes(measured: PageMeasurement) -> tuple[str, ...]:
    notes = []
    if measured.software:
        notes.append("the WebGPU adapter computes on the CPU: its latency says nothing about a GPU")
    if not measured.isolated:
        notes.append("the page is not isolated, and ran with one thread")
    return tuple(notes)


class BrowserExecutor(Executor):
    """Measures inside a page, by the page's clock; the figures contain no call from outside."""

    name = "browser"
    title = "a browser"
    tier = "device"
    requires = (PLAYWRIGHT, BROTLI)

    def refusal(self, runtime: str, place: Place) -> str:
        if not is_browser(place.device):
            return f"{place.device} is not a browser; the browsers are {', '.join(BROWSERS)}"
        return "" if web_runtime(runtime) else f"no runtime of a browser stands for {runtime}"

    def runtime_at(self, runtime: str, place: Place) -> str:
        return web_runtime(runtime) or runtime

    @contextmanager
    def prepare(
        self, session: ExecutionSession, model: ModelFiles, place: Place, request: BenchRequest
    ) -> Iterator[PreparedBench]:
        """Check that the browser can run the model.

        Args:
            session: The workers, one of which starts the browser, and the name of the step.
            model: The model.
            place: The browser.
            request: How to measure.

        Yields:
            The model, whose pages are opened when it is measured.

        Raises:
            InputError: The runtime does not take the model's inputs or outputs.
            MissingDependency: The browser, Playwright or the runtime's packages are not installed.
        """
        settings = self._settings(model, place, request.threads or 1)
        several = min(len(available_cpus()), _MAX_THREADS)
        others = (several,) if request.threads is None and settings.backend == WASM and several > 1 else ()
        yield _PageBench(
            session,
            MeasureInPage(settings, str(model.path), model.signature, str(model.samples), request, others),
        )

    def _settings(self, model: ModelFiles, place: Place, threads: int) -> PageSettings:
        """Return the settings of a page for a model, once everything that it needs is there."""
        self.check(model.runtime, place)
        require_chromium()
        require_packages()
        runtime = browser_runtime(self.runtime_at(model.runtime, place))
        reason = runtime.refusal(model.signature)
        if reason:
            raise InputError(f"{model.label}: {reason}")
        backend = BROWSERS[place.device]
        return PageSettings(runtime.name, threads if backend == WASM else 1, backend)

    def infer(self, session: ExecutionSession, model: ModelFiles, place: Place, request: InferRequest) -> InferResult:
        """Run samples in the browser.

        Args:
            session: The workers, one of which starts the browser, and the name of the step.
            model: The model.
            place: The browser.
            request: The samples.

        Returns:
            Real values by output name.

        Raises:
            InputError: The runtime does not take the model's inputs or outputs, or cannot load it.
            MissingDependency: The browser, Playwright or the runtime's packages are not installed.
            StepError: The browser failed, or exceeded the time limit.
        """
        run = InferInPage(
            self._settings(model, place, 1),
            str(model.path),
            model.signature,
            request.inputs,
            request.batch,
            request.from_start,
        )
        return InferResult(
            session.pool.call(
                infer_in_page, run, step=session.step, environment=_ENVIRONMENT, timeout_s=request.timeout_s
            )
        )


EXECUTOR = BrowserExecutor()

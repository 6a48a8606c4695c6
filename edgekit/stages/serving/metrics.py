"""Metrics of a server in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edgekit.stages.serving.served_model import ServedModel

# From a small model on this host to the default time limit, in seconds.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server.

    Attributes:
        registry: Where they are registered: one of its own, since a process may hold several servers.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "edgekit_requests",
            "Requests by model, protocol and HTTP status.",
            ("model", "protocol", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "edgekit_request_seconds",
            "Time from the arrival of a request's headers to its answer.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Histogram(
            "edgekit_inference_rows",
            "Rows that were computed together.",
            ("model",),
            buckets=_ROWS,
            registry=self.registry,
        )
        self._joined = Counter("edgekit_inferences", "Calls of a runtime's worker.", ("model",), registry=self.registry)
        self._restarts = Counter(
            "edgekit_worker_restarts",
            "Workers that crashed, ran out of memory or exceeded the time limit.",
            ("model",),
            registry=self.registry,
        )

    def watch(self, models: Iterable[ServedModel]) -> None:
        """Add the gauges of the models.

        Args:
            models: The served models.
        """
        served = tuple(models)
        for model in served:
            # A rate is computed from a counter that was 0 once.
            self._restarts.labels(model.name)
        self.registry.register(_ModelGauges(served))

    def computed(self, model: str, rows: int, requests: int) -> None:
        """Record an inference of this many rows, which belong to this many requests."""
        self._rows.labels(model).observe(rows)
        self._joined.labels(model).inc()

    def restarted(self, model: str) -> None:
        """Record that a worker died."""
        self._restarts.labels(model).inc()

    def answered(self, model: str, protocol: str, status: int, seconds: float) -> None:
        """Record an answer.

        Args:
            model: The model; empty if the request named none that is served. Clients choose unknown names, so they are
                no labels.
            protocol: `v1` or `v2`.
            status: The HTTP status code.
            seconds: The time in seconds from the arrival of the request.
        """
        self._requests.labels(model, protocol, status).inc()
        if model:
            self._seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self.registry)


class _ModelGauges(Collector):
    """Gauges that are read from the models when the metrics are requested."""

    def __init__(self, models: tuple[ServedModel, ...]) -> None:
        self._models = models

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges."""
        queued = GaugeMetricFamily("edgekit_queued_requests", "Requests that wait for a worker.", labels=["model"])
        ready = GaugeMetricFamily("edgekit_model_ready", "Whether a worker can compute.", labels=["model"])
        for model in self._models:
            queued.add_metric([model.name], model.queued)
            ready.add_metric([model.name], float(model.ready))
        return (queued, ready)

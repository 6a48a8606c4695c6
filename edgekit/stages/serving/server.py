"""The HTTP server: it listens, and ends when it is told to, after the requests that it has accepted."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgekit.core.errors import InputError
from edgekit.stages.serving.app import create_app
from edgekit.stages.serving.metrics import Metrics
from edgekit.stages.serving.served_model import ServedModel
from edgekit.stages.serving.settings import ServeSettings

_log = logging.getLogger(__name__)

# More connections than this get a 503; each occupies a file descriptor, of which a process often has 1,024.
_MAX_CONNECTIONS = 512
# Beyond the time limit of a request: for its answer to be sent.
_SHUTDOWN_MARGIN_S = 2
_TOO_SLOW_BODY = b'{"error":"the headers of the request did not arrive within the time limit"}'
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TOO_SLOW_BODY), _TOO_SLOW_BODY)
)


def _protocol(timeout_s: float) -> type[H11Protocol]:
    class DeadlineProtocol(H11Protocol):
        """HTTP/1.1 with a time limit for the headers of a request, which uvicorn does not have."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(timeout_s, self._too_slow)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # IDLE: it waits for the rest of the headers. Their first bytes started the clock.
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(timeout_s, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(_TOO_SLOW)
                self.transport.close()

    return DeadlineProtocol


class _Server(uvicorn.Server):
    """A server that leaves signals to `run`: uvicorn's own handlers raise them again after the shutdown."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(settings: ServeSettings) -> socket.socket:
    """Reserve the port; connections are refused until the server is ready.

    Args:
        settings: The address.

    Returns:
        The socket.

    Raises:
        InputError: The address is unknown, or the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"the address {settings.host!r} is unknown ({error.strerror})", parameters=("host",)) from None
    try:
        # A server that was just ended leaves connections behind, which would occupy the port for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on port {settings.port} of {settings.host} ({error.strerror})", parameters=("port",)
        ) from None
    return listener


def url(listener: socket.socket) -> str:
    """Return the URL of a socket that `listen` has returned."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    models: Mapping[str, ServedModel],
    settings: ServeSettings,
    metrics: Metrics,
    listener: socket.socket,
    on_ready: Callable[[], None],
) -> None:
    """Open the models and answer requests until SIGTERM or Ctrl-C.

    Args:
        models: The models by name.
        settings: The limits.
        metrics: Receives what happens.
        listener: The socket to listen on.
        on_ready: Called when the server listens.

    Raises:
        EdgekitError: A model cannot be opened.
    """
    asyncio.run(_run(models, settings, metrics, listener, on_ready))


async def _run(
    models: Mapping[str, ServedModel],
    settings: ServeSettings,
    metrics: Metrics,
    listener: socket.socket,
    on_ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    starting = asyncio.ensure_future(_start(models))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await _serve(create_app(models, settings, metrics), settings, listener, stopping, on_ready)
    finally:
        starting.cancel()
        stop.cancel()
        await asyncio.gather(*(model.close() for model in models.values()))
        listener.close()


async def _start(models: Mapping[str, ServedModel]) -> None:
    # One after another: opening them together would need the memory and the time of all at once.
    for model in models.values():
        await model.start()


async def _serve(
    app: ASGIApp,
    settings: ServeSettings,
    listener: socket.socket,
    stopping: asyncio.Event,
    on_ready: Callable[[], None],
) -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it warns of each malformed request
    config = uvicorn.Config(
        app,
        http=_protocol(settings.transfer_timeout_s),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(settings.request_timeout_s) + _SHUTDOWN_MARGIN_S,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    stop = asyncio.ensure_future(_stop(server, stopping))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        on_ready()
    try:
        await serving
    finally:
        stop.cancel()


async def _stop(server: uvicorn.Server, stopping: asyncio.Event) -> None:
    """Shut the server down at the first signal; a second one ends it without waiting for requests."""
    await stopping.wait()
    _log.info("the server stops")
    server.should_exit = True
    stopping.clear()
    await stopping.wait()
    server.force_exit = True

"""The HTTP interface: the Open Inference Protocol (`/v2`), TensorFlow Serving's REST form (`/v1`) and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgekit._version import __version__
from edgekit.stages.serving import open_inference, tensorflow_serving
from edgekit.stages.serving.json_body import dump
from edgekit.stages.serving.metrics import CONTENT_TYPE, Metrics
from edgekit.stages.serving.open_inference import HEADER_LENGTH
from edgekit.stages.serving.openapi import INFERENCE_BODY, PREDICT_BODY, RESPONSES
from edgekit.stages.serving.refusal import Refusal
from edgekit.stages.serving.request_body import BodyReader
from edgekit.stages.serving.served_model import VERSION, ServedModel
from edgekit.stages.serving.settings import ServeSettings

_log = logging.getLogger(__name__)

_JSON = "application/json"
# The names of Triton's extensions that the server has.
_EXTENSIONS = ["binary_tensor_data"]


def create_app(models: Mapping[str, ServedModel], settings: ServeSettings, metrics: Metrics) -> ASGIApp:
    """Create the application.

    Args:
        models: The models by name, which have been started; they are closed with the application.
        settings: The limits.
        metrics: Receives what happens.

    Returns:
        An ASGI application, which answers every request and raises nothing.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.gather(*(model.close() for model in models.values()))

    # The pages with the documentation load scripts from another host; the description itself is enough for tools.
    app = FastAPI(
        title="edgekit",
        version=__version__,
        description="Inference by the Open Inference Protocol and by TensorFlow Serving's REST form.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=RESPONSES,
    )
    metrics.watch(models.values())
    handlers = _Handlers(models, settings, metrics)
    handlers.add_to(app)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_such_page)
    return _Guard(app, settings.transfer_timeout_s)


class _Handlers:
    """The pages of the server."""

    def __init__(self, models: Mapping[str, ServedModel], settings: ServeSettings, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics
        self._bodies = BodyReader(settings)

    def add_to(self, app: FastAPI) -> None:
        """Add a route for each page."""

        def add(path: str, handler: Callable[..., Any], summary: str, body: dict[str, Any] | None = None) -> None:
            app.add_api_route(
                path,
                handler,
                methods=["GET" if body is None else "POST"],
                summary=summary,
                openapi_extra=body,
                include_in_schema="{version}" not in path,  # the same page, with the only version spelled out
            )

        for suffix in ("", "/versions/{version}"):
            v2, v1 = f"/v2/models/{{name}}{suffix}", f"/v1/models/{{name}}{suffix}"
            add(v2, self.model_metadata, "Inputs and outputs of a model")
            add(f"{v2}/ready", self.model_ready, "Whether a model can compute")
            add(f"{v2}/infer", self.infer, "Compute outputs by the Open Inference Protocol", INFERENCE_BODY)
            add(v1, self.status, "Status of a model")
            add(f"{v1}/metadata", self.v1_metadata, "Inputs and outputs of a model, as TensorFlow Serving shows them")
            add(f"{v1}:predict", self.predict, "Compute outputs by TensorFlow Serving's REST form", PREDICT_BODY)
        add("/v2", self.server_metadata, "Name, version and extensions of the server")
        add("/v2/health/live", self.live, "Whether the server answers")
        add("/v2/health/ready", self.ready, "Whether all models can compute")
        add("/v2/repository/index", self.index, "The models", {})
        add("/metrics", self.metrics, "Metrics in Prometheus' text format")

    async def server_metadata(self) -> Response:
        return _json({"name": "edgekit", "version": __version__, "extensions": _EXTENSIONS})

    async def live(self) -> Response:
        return _json({"live": True})

    async def ready(self) -> Response:
        return _readiness(all(model.ready for model in self._models.values()))

    async def index(self) -> Response:
        return _json(
            [
                {
                    "name": name,
                    "version": VERSION,
                    "state": "READY" if model.ready else "UNAVAILABLE",
                    "reason": "" if model.ready else "the model is being opened again",
                }
                for name, model in self._models.items()
            ]
        )

    async def metrics(self) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def model_metadata(self, name: str, version: str = VERSION) -> Response:
        model = self._model(name, version)
        return _json(
            {
                "name": name,
                "versions": [VERSION],
                "platform": f"{model.runtime}_{model.artifact.manifest.target}",
                "inputs": [open_inference.tensor_metadata(tensor) for tensor in model.signature.inputs],
                "outputs": [open_inference.tensor_metadata(tensor) for tensor in model.signature.outputs],
            }
        )

    async def model_ready(self, name: str, version: str = VERSION) -> Response:
        return _readiness(self._model(name, version).ready)

    async def infer(self, request: Request, name: str, version: str = VERSION) -> Response:
        async def answer(model: ServedModel, body: bytes) -> Response:
            decoded = open_inference.decode(model.signature, body, request.headers.get(HEADER_LENGTH))
            outputs = await model.infer(decoded.call)
            content, length = open_inference.encode(name, VERSION, decoded, outputs)
            if length is None:
                return Response(content, media_type=_JSON)
            headers = {HEADER_LENGTH: str(length)}
            return Response(content, media_type="application/octet-stream", headers=headers)

        return await self._answer(request, "v2", name, version, answer)

    async def status(self, name: str, version: str = VERSION) -> Response:
        return _json(tensorflow_serving.status(VERSION, self._model(name, version).ready))

    async def v1_metadata(self, name: str, version: str = VERSION) -> Response:
        return _json(tensorflow_serving.metadata(name, VERSION, self._model(name, version).signature))

    async def predict(self, request: Request, name: str, version: str = VERSION) -> Response:
        async def answer(model: ServedModel, body: bytes) -> Response:
            decoded = tensorflow_serving.decode(model.signature, body)
            outputs = await model.infer(decoded.call)
            return Response(tensorflow_serving.encode(model.signature, decoded, outputs), media_type=_JSON)

        return await self._answer(request, "v1", name, version, answer)

    async def _answer(
        self,
        request: Request,
        protocol: str,
        name: str,
        version: str,
        answer: Callable[[ServedModel, bytes], Awaitable[Response]],
    ) -> Response:
        """Read a request, answer it, and record how long that took."""
        started = time.perf_counter()
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            with self._bodies.share() as share:
                model = self._model(name, version)
                response = await answer(model, await self._bodies.read(request, share))
            status = response.status_code
            return response
        except Refusal as refusal:
            status = int(refusal.status)
            raise
        finally:
            known = name if name in self._models else ""
            self._metrics.answered(known, protocol, status, time.perf_counter() - started)

    def _model(self, name: str, version: str) -> ServedModel:
        model = self._models.get(name)
        if model is None:
            served = ", ".join(self._models)
            raise Refusal(HTTPStatus.NOT_FOUND, f"there is no model {name!r}; this server has {served}")
        if version != VERSION:
            raise Refusal(HTTPStatus.NOT_FOUND, f"the model {name} has no version {version!r}, only {VERSION}")
        return model


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(dump(value), status_code=status, media_type=_JSON)


def _readiness(ready: bool) -> Response:
    return _json({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    # Both protocols have errors of this form.
    return Response(dump({"error": message}), status_code=status, media_type=_JSON, headers=dict(headers or {}))


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        headers["Connection"] = "close"  # the rest of the body may still be on its way
    return _error(error.status, error.message, headers)


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is no page {request.url.path!r}; /openapi.json lists all"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"the page {request.url.path!r} does not take {request.method} requests"
    else:
        message = str(error.detail)
    return _error(error.status_code, message, error.headers)


class _Guard:
    """The outermost application: no exception leaves it, and no client holds an answer up for ever."""

    def __init__(self, app: ASGIApp, transfer_timeout_s: float) -> None:
        self._app = app
        self._transfer_timeout_s = transfer_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_in_time(message: Message) -> None:
            nonlocal started
            started = True
            async with asyncio.timeout(self._transfer_timeout_s):
                await send(message)

        try:
            await self._app(scope, receive, send_in_time)
        except TimeoutError:
            _log.warning("a client did not read its answer within %g s", self._transfer_timeout_s)
        except Exception:  # noqa: BLE001 - no exception ends the server
            _log.exception("unexpected error")
            if not started:
                message = "an unexpected error, which is a fault of edgekit; its log file has the details"
                await _error(HTTPStatus.INTERNAL_SERVER_ERROR, message)(scope, receive, send_in_time)

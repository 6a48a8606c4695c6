"""Reading the body of a request within limits of size, time and memory."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request

from edgekit.core.units import format_memory
from edgekit.stages.serving.refusal import Refusal, bad_request
from edgekit.stages.serving.settings import ServeSettings

# Arguments of zlib: a window of 15 bits, with the header of gzip, and with either of zlib's.
_WINDOWS = {"gzip": 31, "deflate": 15}


class BodyReader:
    """Reads the bodies of all requests of a server, which share a budget of memory."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._buffered = 0

    @contextmanager
    def share(self) -> Iterator[BodyShare]:
        """Return the share of one request; it is given back when the block ends."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self._buffered -= share.taken

    async def read(self, request: Request, share: BodyShare) -> bytes:
        """Read the body of a request.

        Args:
            request: The request.
            share: Counts the bytes.

        Returns:
            The body, decompressed.

        Raises:
            Refusal: The body is too large, too slow, compressed in an unknown way, or memory is full.
        """
        try:
            async with asyncio.timeout(self._settings.transfer_timeout_s):
                body = await self._receive(request, share)
        except TimeoutError:
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body of the request did not arrive within {self._settings.transfer_timeout_s:g} s",
            ) from None
        except ClientDisconnect:
            raise bad_request("the connection was closed before the end of the body") from None
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        return body if encoding == "identity" else self._decompress(body, encoding, share)

    async def _receive(self, request: Request, share: BodyShare) -> bytes:
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._settings.max_body_bytes:
            # A client that waits for `100 Continue` sends nothing. Another one may not read before it has sent all.
            if request.headers.get("expect", "").lower() != "100-continue":
                await _drain(request)
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._settings.max_body_bytes:
                chunks.clear()
                await _drain(request)
                raise self._too_large()
            share.take(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _decompress(self, body: bytes, encoding: str, share: BodyShare) -> bytes:
        if encoding not in _WINDOWS:
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content encoding {encoding!r} is neither gzip nor deflate"
            )
        decompressor = zlib.decompressobj(_WINDOWS[encoding])
        try:
            # One byte more than allowed tells a larger body from one of this size.
            content = decompressor.decompress(body, self._settings.max_body_bytes + 1)
        except zlib.error:
            raise bad_request(f"the body is not {encoding} data") from None
        if len(content) > self._settings.max_body_bytes:
            raise self._too_large()
        if not decompressor.eof:
            raise bad_request(f"the {encoding} data of the body are incomplete")
        share.take(len(content))
        return content

    def _too_large(self) -> Refusal:
        return Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request is larger than {format_memory(self._settings.max_body_bytes)}, the limit of this server",
        )

    def _take(self, size: int) -> None:
        if self._buffered + size > self._settings.max_buffered_bytes:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "the requests of all clients fill the memory", retry_after_s=1
            )
        self._buffered += size


class BodyShare:
    """The memory of one request.

    Attributes:
        taken: The bytes that it occupies.
    """

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self.taken = 0

    def take(self, size: int) -> None:
        """Add bytes.

        Raises:
            Refusal: The requests together exceed the memory of the server.
        """
        self._reader._take(size)
        self.taken += size


async def _drain(request: Request) -> None:
    """Read the rest of a body and drop it: closing the connection before would discard the answer at the client."""
    while True:
        message = await request.receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return

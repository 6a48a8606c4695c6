"""The error of a request that is not answered with outputs."""

from __future__ import annotations

from http import HTTPStatus


class Refusal(Exception):
    """A request that is answered with a status code and one sentence.

    Attributes:
        status: The HTTP status code.
        message: One sentence for the client.
        retry_after_s: The seconds after which the client may try again; None where trying again does not help.
    """

    def __init__(self, status: HTTPStatus, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


def bad_request(message: str) -> Refusal:
    """Return the error for a request that does not fit the protocol or the model."""
    return Refusal(HTTPStatus.BAD_REQUEST, message)

"""The settings of a server: its address and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.environment.requirements import Requirement

FASTAPI = Requirement("fastapi", "fastapi", "serve")
UVICORN = Requirement("uvicorn", "uvicorn", "serve")
PROMETHEUS = Requirement("prometheus_client", "prometheus-client", "serve")
REQUIREMENTS = (FASTAPI, UVICORN, PROMETHEUS)


@dataclass(frozen=True)
class ServeSettings:
    """The address and the limits of a server.

    Attributes:
        host: The address to listen on.
        port: The port to listen on; 0 for a free one.
        workers: The worker processes of each model.
        threads: The threads of one inference.
        max_batch: The largest number of rows of one inference, where the model takes several.
        batch_delay_s: The time in seconds that a request waits for others to join its inference.
        max_queue: The largest number of requests that wait for a worker of a model.
        max_body_bytes: The largest size of a request in bytes, also after it is decompressed.
        request_timeout_s: The time limit in seconds from the arrival of a request to its outputs.
        transfer_timeout_s: The time limit in seconds to receive the headers of a request, its body, and to send a part
            of an answer.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int = 1
    max_batch: int = 32
    batch_delay_s: float = 0.0
    max_queue: int = 100
    max_body_bytes: int = 32 * 1024**2
    request_timeout_s: float = 30.0
    transfer_timeout_s: float = 10.0

    @property
    def max_buffered_bytes(self) -> int:
        """The largest size of all requests in memory: four of the largest, so that clients together cannot fill it."""
        return 4 * self.max_body_bytes

"""edgekit serve"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import ArtifactFilter, FiniteFloat, runtime_option, selection_options
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.stages.serving.serve import ServedName

_MIB = 1024**2


@click.command("serve", short_help="Serve artifacts over HTTP.")
@selection_options
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen on; 0: a free one."
)
@runtime_option
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes of each model.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of one inference.")
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Most rows of one inference, where the model takes several.",
)
@click.option(
    "--batch-delay",
    type=FiniteFloat(min=0),
    default=0.0,
    show_default=True,
    metavar="MS",
    help="How long a request waits for others to join its inference, in ms.",
)
@click.option(
    "--max-queue", type=click.IntRange(1), default=100, show_default=True, help="Most waiting requests of a model."
)
@click.option(
    "--max-body",
    type=FiniteFloat(min=0, min_open=True),
    default=32.0,
    show_default=True,
    metavar="MIB",
    help="Largest request, in MiB.",
)
@click.option(
    "--request-timeout",
    type=FiniteFloat(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of a request until its outputs are computed.",
)
@click.option(
    "--transfer-timeout",
    type=FiniteFloat(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for a client to send headers, to send a body, and to read its answer.",
)
@click.option("--validate", "validated", is_flag=True, help="First compare the artifacts with their source models.")
@common_options
def command(
    session: CommandSession,
    artifact_filter: ArtifactFilter,
    host: str,
    port: int,
    runtime: str,
    workers: int,
    threads: int,
    max_batch: int,
    batch_delay: float,
    max_queue: int,
    max_body: float,
    request_timeout: float,
    transfer_timeout: float,
    validated: bool,
) -> int:
    """Serve artifacts over HTTP until Ctrl-C; without a MODEL, everything in build/.

    Clients speak the Open Inference Protocol (/v2/models/NAME/infer), as those of Triton and KServe do, or TensorFlow
    Serving's REST form (/v1/models/NAME:predict). Each model runs in worker processes of its own: one that crashes is
    replaced. Quantized models take and return real values; a client that sends the file's own integers gets integers.

    NAME is the name of the model, followed by its target and precision where several artifacts are served. A MODEL may
    also be the path of an artifact folder. With --validate, the exit code is 1 if an artifact is not equivalent to its
    source, and nothing is served.

    \b
    Example:
      edgekit serve simple_cnn --target onnx:float32
      edgekit serve build/simple_cnn/keras/tflite-int8 --host 0.0.0.0 --port 80 --workers 4
      edgekit serve --validate --batch-delay 2
    """
    from edgekit.core.environment.requirements import require
    from edgekit.stages.selection import Selection, artifacts, with_runtime
    from edgekit.stages.serving.serve import check_served, serve, served_names
    from edgekit.stages.serving.settings import REQUIREMENTS, ServeSettings

    require(REQUIREMENTS, "edgekit serve")
    settings = ServeSettings(
        host,
        port,
        workers=workers,
        threads=threads,
        max_batch=max_batch,
        batch_delay_s=batch_delay / 1000,
        max_queue=max_queue,
        max_body_bytes=math.ceil(max_body * _MIB),
        request_timeout_s=request_timeout,
        transfer_timeout_s=transfer_timeout,
    )
    with session.context() as context:
        named = served_names(with_runtime(context, artifacts(context, Selection(*artifact_filter)), runtime))
        context.raise_failures()
        problems = check_served(context, named, runtime) if validated else []
    for problem in problems:
        click.echo(line(f"Error: {problem}"), err=True, nl=False)
    if problems:
        return 1
    with _warnings_on_stderr():
        serve(named, settings, runtime, lambda url, models: _announce(session, url, models))
    return 0


class _StderrHandler(logging.Handler):
    """Prints what a service's journal should contain: workers that died, models that cannot be opened."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(line(f"{record.levelname.lower()} {record.getMessage()}"), err=True, nl=False)


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    handler = _StderrHandler(logging.WARNING)
    logger = logging.getLogger("edgekit.stages.serving")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _announce(session: CommandSession, url: str, models: tuple[ServedName, ...]) -> None:
    data = {
        "url": url,
        "models": [
            {"name": model.name, "artifact": str(model.artifact.folder), "joins_requests": model.joins}
            for model in models
        ],
    }
    session.print_result(data, lambda: _lines(url, models))
    sys.stdout.flush()


def _lines(url: str, models: tuple[ServedName, ...]) -> str:
    served = "".join(line(f"  {model.name}: {model.artifact.label}") for model in models)
    return f"Serving at {url}\n{served}"

"""A served model: a queue of requests, and worker processes that compute them.

A worker that dies is replaced. The requests that it was computing are tried once more, each by itself, so that a
request that crashes the runtime takes no other one with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import numpy as np

from edgekit.contracts.executor import ModelFiles
from edgekit.core.errors import EdgekitError, Interrupted, StepCrashed, StepFailed, StepOutOfMemory, StepTimedOut
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.artifact import Artifact
from edgekit.core.values.precisions import find_precision
from edgekit.stages.context import runtime_environment
from edgekit.stages.serving.inference_job import OpenedModel, ServedInference, ServedOutputs, compute
from edgekit.stages.serving.refusal import Refusal
from edgekit.stages.serving.settings import ServeSettings
from edgekit.stages.serving.tensors import ServedCall, ServedSignature
from edgekit.workers.pool import WorkerPool

_log = logging.getLogger(__name__)

# The only version of each model: an artifact has none.
VERSION = "1"

# Pauses between attempts to open a model whose workers die: 1, 2, 4, ... s.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# What importing a framework and opening a model takes on a small board at most.
_OPEN_TIMEOUT_S = 120.0
_CRASHES = (StepCrashed, StepOutOfMemory)


class Observer(Protocol):
    """Receives what happens to a model, for metrics."""

    def computed(self, model: str, rows: int, requests: int) -> None:
        """Record an inference of this many rows, which belong to this many requests."""

    def restarted(self, model: str) -> None:
        """Record that a worker died."""


@dataclass(eq=False)  # arrays do not compare to one truth value
class _Waiting:
    call: ServedCall
    deadline: float  # of the event loop's clock
    joins_until: float
    answer: asyncio.Future[dict[str, Array]] = field(repr=False)


class ServedModel:
    """A model that computes requests.

    Attributes:
        name: The name in URLs.
        artifact: The artifact.
        runtime: The name of the runtime.
        signature: The inputs and outputs as clients see them.
        joins: Whether rows of several requests may share an inference.
    """

    def __init__(
        self, name: str, artifact: Artifact, settings: ServeSettings, observer: Observer, runtime: str = ""
    ) -> None:
        """Check the files of the artifact; no process is started.

        Args:
            name: The name in URLs.
            artifact: The artifact.
            settings: The limits.
            observer: Receives what happens.
            runtime: The name of the runtime; empty for the artifact's own.

        Raises:
            InputError: A model file is missing or was changed.
        """
        files = ModelFiles.of(artifact, runtime)
        manifest = artifact.manifest
        self.name = name
        self.artifact = artifact
        self.runtime = files.runtime
        self.signature = ServedSignature(files.signature)
        # Where ranges are taken from the whole batch, the rows of other clients would change a result.
        alone = find_precision(manifest.precision).dynamic_ranges or manifest.source.get("one_by_one")
        self.joins = batching.has_symbolic_batch(files.signature) and not alone and not manifest.is_stateful
        self._broken = 0  # workers whose model cannot be opened
        self._opened = OpenedModel(
            files.runtime, str(files.path), files.signature, settings.threads, manifest.is_stateful
        )
        self._settings = settings
        self._observer = observer
        self._environment = runtime_environment(files.runtime)
        self._step = f"serve {name}"
        self._pool = WorkerPool()
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix=f"edgekit-{name}")
        self._waiting: deque[_Waiting] = deque()
        self._arrival = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether at least one worker can compute."""
        return self._broken < len(self._tasks)

    @property
    def queued(self) -> int:
        """The number of requests that wait for a worker."""
        return len(self._waiting)

    async def start(self) -> None:
        """Open the model in every worker, and begin to compute requests.

        Raises:
            EdgekitError: The model cannot be opened.
        """
        openings = (self._call(ServedInference(self._opened), _OPEN_TIMEOUT_S) for _ in range(self._settings.workers))
        await asyncio.gather(*openings)
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(self._settings.workers)]

    async def close(self) -> None:
        """End the workers; requests that are still computed get no outputs."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        self._pool.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown()
        self._pool.close()

    async def infer(self, call: ServedCall) -> dict[str, Array]:
        """Compute a request.

        Args:
            call: The checked inputs.

        Returns:
            Arrays by output name.

        Raises:
            Refusal: The queue is full, the time limit is exceeded, or the runtime failed.
        """
        if not self.ready:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the model {self.name} is being opened again", retry_after_s=1
            )
        if len(self._waiting) >= self._settings.max_queue:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._settings.max_queue} requests already wait for the model {self.name}",
                retry_after_s=1,
            )
        loop = asyncio.get_running_loop()
        now = loop.time()
        limit_s = self._settings.request_timeout_s
        waiting = _Waiting(call, now + limit_s, now + self._settings.batch_delay_s, loop.create_future())
        self._waiting.append(waiting)
        self._arrival.set()
        try:
            async with asyncio.timeout_at(waiting.deadline):
                return await waiting.answer
        except TimeoutError:
            raise self._timed_out() from None
        finally:
            if waiting in self._waiting:  # its time is up, or its client is gone
                self._waiting.remove(waiting)

    def _timed_out(self) -> Refusal:
        return Refusal(
            HTTPStatus.GATEWAY_TIMEOUT,
            f"the model {self.name} had no answer within {self._settings.request_timeout_s:g} s",
        )

    async def _serve(self) -> None:
        """Compute requests until cancelled."""
        while True:
            await self._answer(await self._next(), retry=True)

    async def _next(self) -> list[_Waiting]:
        """Wait for a request, and for others that may share its inference."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._arrival.clear()
                await self._arrival.wait()
            first = self._waiting.popleft()
            if not first.answer.done():
                break
        batch = [first]
        while self.joins and not self._join(batch):
            remaining = first.joins_until - loop.time()
            if remaining <= 0:
                break
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), remaining)
            except TimeoutError:
                break
        return batch

    def _join(self, batch: list[_Waiting]) -> bool:
        """Move requests of the same kind from the queue to the batch; return whether it is full."""
        rows = sum(waiting.call.rows for waiting in batch)
        for waiting in tuple(self._waiting):
            if rows >= self._settings.max_batch:
                break
            if waiting.call.key == batch[0].call.key and rows + waiting.call.rows <= self._settings.max_batch:
                self._waiting.remove(waiting)
                batch.append(waiting)
                rows += waiting.call.rows
        return rows >= self._settings.max_batch

    async def _answer(self, batch: Sequence[_Waiting], *, retry: bool) -> None:
        """Compute requests together and answer each; where the worker dies, compute each once more by itself."""
        batch = [waiting for waiting in batch if not waiting.answer.done()]
        if not batch:
            return
        rows = sum(waiting.call.rows for waiting in batch)
        names = batch[0].call.inputs
        inputs = {name: _concatenated([waiting.call.inputs[name] for waiting in batch]) for name in names}
        size = self._settings.max_batch if self.joins else 1
        request = ServedInference(self._opened, inputs, size, batch[0].call.stored)
        remaining = max(waiting.deadline for waiting in batch) - asyncio.get_running_loop().time()
        try:
            answer = await self._call(request, max(remaining, 0.001))
        except (*_CRASHES, StepTimedOut) as error:
            self._observer.restarted(self.name)
            _log.warning("%s", error)
            if isinstance(error, StepTimedOut):
                _refuse(batch, self._timed_out)
            elif not retry:
                _refuse(batch, lambda: self._unavailable("crashed twice while it computed this request"))
            # Not by the next request: its time limit may be shorter than what opening the model takes.
            await self._reopen()
            for waiting in batch:
                await self._answer([waiting], retry=False)
        except EdgekitError as error:
            _log.error("%s", error)
            _refuse(batch, lambda: _failed(f"the model {self.name} could not be opened"))
        else:
            self._observer.computed(self.name, rows, len(batch))
            self._distribute(batch, answer, rows)

    def _unavailable(self, what: str) -> Refusal:
        message = f"the runtime of the model {self.name} {what}"
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message, retry_after_s=1)

    async def _reopen(self) -> None:
        """Open the model in a new worker, with pauses between attempts.

        Requests wait for the first attempt. Where it fails in every worker, they are refused until one succeeds.
        """
        pause_s = _FIRST_PAUSE_S
        broken = False
        while True:
            try:
                await self._call(ServedInference(self._opened), _OPEN_TIMEOUT_S)
            except EdgekitError as error:
                _log.error("%s; the next attempt is in %g s", error, pause_s)
            else:
                self._broken -= broken
                return
            self._broken += not broken
            broken = True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _distribute(self, batch: Sequence[_Waiting], answer: ServedOutputs, rows: int) -> None:
        if answer.failure:
            _refuse(batch, lambda: _failed(f"the runtime rejected this request: {answer.failure}"))
            return
        if len(batch) == 1:
            _resolve(batch[0], dict(answer.outputs))
            return
        if any(len(array) != rows for array in answer.outputs.values()):
            _refuse(batch, lambda: _failed(f"the model {self.name} returned other rows than it was given"))
            return
        start = 0
        for waiting in batch:
            stop = start + waiting.call.rows
            _resolve(waiting, {name: array[start:stop] for name, array in answer.outputs.items()})
            start = stop

    async def _call(self, request: ServedInference, timeout_s: float) -> ServedOutputs:
        def call() -> ServedOutputs:
            try:
                return self._pool.call(
                    compute, request, step=self._step, environment=self._environment, timeout_s=timeout_s
                )
            except Interrupted:  # a KeyboardInterrupt, which would end the event loop and not only this call
                raise StepFailed(f"{self._step}: the server stops", step=self._step) from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _concatenated(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _failed(message: str) -> Refusal:
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, message)


def _resolve(waiting: _Waiting, outputs: dict[str, Array]) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(outputs)


def _refuse(batch: Sequence[_Waiting], refusal: Callable[[], Refusal]) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(refusal())

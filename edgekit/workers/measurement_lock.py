"""A lock for this machine's cores: many threads prepare at the same time, or one measures alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MeasurementLock:
    """A lock that threads hold together to prepare and exclusively to measure.

    Waiting measurements have priority: after a group of threads has prepared, all of them measure, one after another,
    before another preparation starts.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._preparing = 0
        self._ready = 0
        self._measuring = False

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Hold the lock to prepare. Waits until no thread measures or waits to measure."""
        with self._changed:
            # Without `_ready` a steady stream of preparations would starve the measurements.
            self._changed.wait_for(lambda: not self._measuring and not self._ready)
            self._preparing += 1
        try:
            yield
        finally:
            with self._changed:
                self._preparing -= 1
                self._changed.notify_all()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the lock to measure. Waits until no other thread measures or prepares."""
        with self._changed:
            self._ready += 1
            try:
                self._changed.wait_for(lambda: not self._measuring and not self._preparing)
                self._measuring = True
            finally:
                # Also when Ctrl-C interrupts the wait, else no thread could ever prepare again.
                self._ready -= 1
        try:
            yield
        finally:
            with self._changed:
                self._measuring = False
                self._changed.notify_all()

"""Who may use this machine's cores: those that prepare, side by side, or the one that measures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MeasurementLock:
    """Threads prepare together and measure one at a time, with nobody preparing beside.

    Whoever is ready to measure goes first: what prepared together is measured, one after another, before anything else
    is prepared.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._preparing = 0
        self._ready = 0
        self._measuring = False

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Waits until nobody measures, or is about to."""
        with self._changed:
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
        """Waits until nobody measures or prepares."""
        with self._changed:
            self._ready += 1
            try:
                self._changed.wait_for(lambda: not self._measuring and not self._preparing)
                self._measuring = True
            finally:
                self._ready -= 1
        try:
            yield
        finally:
            with self._changed:
                self._measuring = False
                self._changed.notify_all()

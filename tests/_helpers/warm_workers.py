"""Workers that outlive a command: most of a test's time would otherwise go into loading the same frameworks again.

A command in this process takes the idle workers of the commands before it. A worker is kept only if nothing that a test
may change has entered it: it never ran code of a user (those workers are not confined), and it was started with the
same environment variables in the same folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from edgekit.workers import pool, scratch
from edgekit.workers.environment import Environment
from edgekit.workers.pool import Worker, WorkerPool

# Each holds a framework, some hundreds of MiB.
_MOST_KEPT = 6

_kept: list[tuple[Any, Environment, Worker]] = []
_folders: list[tempfile.TemporaryDirectory[str]] = []


def _surroundings() -> tuple[str, frozenset[tuple[str, str]]]:
    """What a worker inherits from this process."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return str(Path.cwd()), frozenset(variables.items())


class _WarmPool(WorkerPool):
    """A pool that starts with the idle workers of earlier pools, and leaves its own to later ones."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._surroundings = _surroundings()
        if not _folders:
            _folders.append(tempfile.TemporaryDirectory(prefix=scratch.prefix()))
        self._folder = _folders[0]  # workers may write into the folder of the pool that started them
        others = []
        for surroundings, environment, worker in _kept:
            if surroundings == self._surroundings and worker.alive:
                self._idle.append((environment, worker))
            else:
                others.append((surroundings, environment, worker))
        _kept[:] = others

    def close(self) -> None:
        """Keep idle workers that ran nothing of a user; end the others and the fork servers."""
        with self._lock:
            for environment, worker in list(self._idle):
                if environment.confined and not environment.cpus and worker.alive and not self._stopped:
                    self._idle.remove((environment, worker))
                    _kept.append((self._surroundings, environment, worker))
        while len(_kept) > _MOST_KEPT:
            _kept.pop(0)[2].close()
        self._folder = None
        super().close()
        for entry in Path(_folders[0].name).iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


@contextmanager
def warm_workers() -> Iterator[None]:
    """Let the commands of the block use workers of earlier ones, unless a test has put a pool of its own in place."""
    chosen = _WarmPool if pool.WorkerPool is WorkerPool else pool.WorkerPool
    with mock.patch.object(pool, "WorkerPool", chosen):
        yield


@atexit.register
def _end() -> None:
    for _, _, worker in _kept:
        worker.close()
    for folder in _folders:
        folder.cleanup()

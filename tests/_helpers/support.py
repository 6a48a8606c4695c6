"""Calling the command: in this process, or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from _helpers.warm_workers import warm_workers
from edgekit.cli import app

REPOSITORY = Path(__file__).parents[2]
WORKER_SIDE = Path(__file__).parent / "worker_side"
"""Modules that worker processes import."""
WORKER_PATH = os.pathsep.join(map(str, (WORKER_SIDE.parents[1], WORKER_SIDE)))
"""The PYTHONPATH with which workers find them, alone and as `_helpers.worker_side`."""
SHARED_MODELS = ("linear", "simple_cnn")
"""Of the reference models, those that the shared project holds: the smallest regression and the smallest classifier."""


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """stdout as the one JSON document that it must be."""
        return json.loads(self.out)


def call(*arguments: object) -> Answer:
    """A command in this process; what it does with frameworks happens in its workers."""
    with warm_workers():
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return Answer(result.exit_code, result.stdout, result.stderr)


def spawn(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command as a process of its own, as a shell would start it."""
    environment = {**os.environ, **options.pop("env", {})}
    command = [sys.executable, "-P", "-m", "edgekit", *(str(argument) for argument in arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def processes_with(marker: str) -> list[int]:
    """Return the ids of the processes that were started with this text in their environment."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "environ").read_bytes():
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def with_mounts(script: str) -> list[str]:
    """Return the command that runs a shell script in user and mount namespaces of its own, where it may mount."""
    return ["unshare", "-rm", "sh", "-c", script]


def mounts_refused(stderr: str) -> bool:
    """Return whether such a script failed because nothing can be mounted here."""
    return "unshare" in stderr or "mount:" in stderr

"""What edgekit does on a board: look at it, run a model there, and keep the runtimes that it needs."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.config.board import BOARDS, BoardConfig
from edgekit.contracts.executor import ModelFiles
from edgekit.contracts.runner import runner_arguments
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.core.environment.atomic_files import sha256_file, to_json
from edgekit.core.environment.requirements import NUMPY, Requirement
from edgekit.core.errors import MissingDependency, StepFailed, StepOutOfMemory, StepTimedOut
from edgekit.devices.boards import code
from edgekit.devices.boards.connection import ANSWER_S, Connection
from edgekit.devices.boards.machine import BoardState, Machine, parse_machine, parse_state
from edgekit.workers.environment import TELEMETRY_OFF, Environment
from edgekit.workers.pool import WorkerPool
from edgekit.workers.process import exit_error

# The oldest Python that runs edgekit's own code.
PYTHON_NEEDED = (3, 11)
# The folders of the board's store: edgekit's code, and the runtimes that `edgekit devices install` puts there.
CODE_PREFIX, ENVIRONMENT_PREFIX = "code-", "env-"
# What finds modules without importing them; its arguments are the file to write and the modules with distributions.
_FIND_MODULES = """
import importlib.metadata, importlib.util, json, sys
found = {}
for word in sys.argv[2:]:
    module, _, distribution = word.partition("=")
    try:
        present = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        present = False
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if present:
        found[module] = version
with open(sys.argv[1], "w") as stream:
    json.dump(found, stream)
"""


@dataclass(frozen=True)
class BoardRun:
    """What a run on a board gave.

    Attributes:
        texts: File name -> content, for the files that were asked for.
        output: The content of the output file; empty if none was asked for.
        before: The board's state before the run.
        after: Its state after the run.
    """

    texts: Mapping[str, str]
    output: bytes
    before: BoardState
    after: BoardState


class Board:
    """A board that is connected when it is first used. Threads may share it: its requests are answered one by one."""

    def __init__(self, name: str, config: BoardConfig) -> None:
        """Describe a board.

        Args:
            name: Its name.
            config: How it is reached.
        """
        self.name, self.config = name, config
        self.connection = Connection(name, config)
        self._machine: Machine | None = None
        self._folders: tuple[str, ...] | None = None
        self._modules: dict[str, str | None] = {}

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def machine(self, step: str = "") -> Machine:
        """Look at the board.

        Args:
            step: The step's name, for errors.

        Returns:
            What it is, and how it is doing now.

        Raises:
            InputError: The board or its host key is refused.
            MissingDependency: There is no ssh here, or no Python there.
            StepError: The board does not answer.
        """
        hello = self.connection.hello(step)
        self._machine = parse_machine(hello, self.connection.call({"op": "probe"}, step=step).values)
        return self._machine

    def known_machine(self, step: str = "") -> Machine:
        """Return what `machine` returned before, or look at the board."""
        return self._machine or self.machine(step)

    def check_python(self, step: str = "") -> None:
        """Check that the board's Python runs edgekit's code.

        Args:
            step: The step's name, for errors.

        Raises:
            MissingDependency: It is too old.
        """
        version = tuple(map(int, self.connection.hello(step)["python"]))
        if version < PYTHON_NEEDED:
            needed, found = (".".join(map(str, numbers)) for numbers in (PYTHON_NEEDED, version))
            raise MissingDependency(
                f"{self.name} has Python {found} as '{self.config.python}', and edgekit needs {needed} there; name"
                f" another one with: edgekit devices add {self.name} --python PATH --replace"
            )

    def environments(self, step: str = "") -> dict[str, Mapping[str, Any]]:
        """Return the folders that `edgekit devices install` has made on the board, with their records."""
        reply = self.connection.call({"op": "records", "prefix": ENVIRONMENT_PREFIX}, step=step)
        return dict(reply.values["records"])

    def folders(self, step: str) -> tuple[str, ...]:
        """Return the folders of Python's module path on the board, after edgekit's code was sent there."""
        if self._folders is None:
            content, sha256 = code.archive()
            name = f"{CODE_PREFIX}{sha256[:16]}"
            with tempfile.NamedTemporaryFile() as stream:
                stream.write(content)
                stream.flush()
                self.connection.upload({sha256: Path(stream.name)}, step=step, timeout_s=ANSWER_S)
            self.connection.call({"op": "make", "folder": name, "archives": [sha256]}, step=step)
            self._folders = (*sorted(self.environments(step)), name)
        return self._folders

    def forget(self) -> None:
        """Forget which folders and modules the board has, after they were changed."""
        self._folders, self._modules = None, {}

    def modules(self, requirements: Iterable[Requirement], step: str = "") -> dict[str, str | None]:
        """Look for modules on the board, without importing them.

        Args:
            requirements: The modules and their distributions.
            step: The step's name, for errors.

        Returns:
            Module -> its version, empty where it is not known; None for a module that is not there.
        """
        wanted = [item for item in dict.fromkeys(requirements) if item.module not in self._modules]
        if wanted:
            words = [f"{item.module}={item.distribution}" for item in wanted]
            arguments = ("-P", "-c", _FIND_MODULES, "{scratch}/modules.json", *words)
            run = self._python(arguments, step=step, timeout_s=ANSWER_S, read=("modules.json",), lock=False)
            found = json.loads(run.texts["modules.json"])
            self._modules |= {item.module: found.get(item.module) for item in wanted}
        return {item.module: self._modules[item.module] for item in requirements}

    def require(self, runtime: Runtime, step: str) -> dict[str, str | None]:
        """Check that the board has a runtime.

        Args:
            runtime: The runtime.
            step: The step's name, for errors.

        Returns:
            Module -> version, of the runtime and of numpy.

        Raises:
            MissingDependency: It is not there, or Python is too old.
        """
        self.check_python(step)
        needed = (NUMPY, *runtime.requires)
        found = self.modules(needed, step)
        missing = [item.distribution for item in needed if found[item.module] is None]
        if missing:
            raise MissingDependency(
                f"{step}: {self.name} has no {' and no '.join(missing)}; install it there with: edgekit devices install"
                f" {self.name} --runtime {runtime.name}"
            )
        return found

    def execute(
        self,
        runtime: Runtime,
        model: ModelFiles,
        request: Mapping[str, Any],
        samples: Path,
        *,
        step: str,
        timeout_s: float,
        threads: int,
        output: str = "",
        waiting: Callable[[], None] = lambda: None,
    ) -> BoardRun:
        """Run the runner on the board.

        Args:
            runtime: The runtime.
            model: The model; its files are sent if the board does not have them.
            request: The runner's request; its paths are replaced by those on the board.
            samples: The npz file of samples.
            step: The step's name, for errors.
            timeout_s: The limit in seconds of the run, and of waiting for other measurements.
            threads: The number of threads.
            output: The name of the file that the runner writes besides `result.json`, or an empty string.
            waiting: Called when another measurement runs on the board, whose end this one waits for.

        Returns:
            `result.json` among the texts, and the output file.

        Raises:
            StepError: The runner crashed, ran out of memory or exceeded the time limit, or the connection was lost.
        """
        names = self.send(model, samples, step=step, timeout_s=timeout_s, waiting=waiting)
        paths = {"file": f"{{scratch}}/{next(iter(names))}", "samples": "{scratch}/samples.npz"}
        if output:
            paths["outputs"] = f"{{scratch}}/{output}"
        variables = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        return self._python(
            ("-P", *runner_arguments(Path("{scratch}/request.json"), Path("{scratch}/result.json"))),
            step=step,
            timeout_s=timeout_s,
            files=names,
            written={"request.json": to_json({**request, **paths})},
            variables={**TELEMETRY_OFF, **variables, **runtime.variables},
            read=("result.json",),
            output=output,
            waiting=waiting,
        )

    def send(
        self,
        model: ModelFiles,
        samples: Path,
        *,
        step: str,
        timeout_s: float,
        waiting: Callable[[], None] = lambda: None,
    ) -> dict[str, str]:
        """Send the files of a model and its samples, unless the board has files of these hashes.

        Args:
            model: The model.
            samples: The npz file of samples.
            step: The step's name, for errors.
            timeout_s: The limit in seconds of each part.
            waiting: Called when another measurement runs on the board.

        Returns:
            Path in the run's folder -> sha256, the main file first.
        """
        base = os.path.commonpath([file.parent for file in model.files])
        named = {f"model/{file.relative_to(base).as_posix()}": file for file in model.files} | {"samples.npz": samples}
        hashes = {name: sha256_file(file) for name, file in named.items()}
        files = {hashes[name]: file for name, file in named.items()}
        self.connection.upload(files, step=step, timeout_s=timeout_s, waiting=waiting)
        return hashes

    def _python(
        self,
        arguments: Sequence[str],
        *,
        step: str,
        timeout_s: float,
        files: Mapping[str, str] | None = None,
        written: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        read: Sequence[str] = (),
        output: str = "",
        lock: bool = True,
        waiting: Callable[[], None] = lambda: None,
    ) -> BoardRun:
        """Run Python on the board, in a scratch folder, while nothing else is measured there."""
        request = {
            "op": "run",
            "python": self.config.python.removeprefix("~/"),
            "arguments": list(arguments),
            "paths": list(self.folders(step)),
            "files": dict(files or {}),
            "texts": dict(written or {}),
            "variables": dict(variables or {}),
            "read": list(read),
            "output": output,
            "lock": lock,
            "timeout_s": timeout_s,
        }
        limit_s = (2 if lock else 1) * timeout_s + ANSWER_S
        reply = self.connection.call(request, step=step, timeout_s=limit_s, waiting=waiting)
        values = reply.values
        self._check_end(values["returncode"], str(values["stderr"]), step, timeout_s)
        texts = {name: str(text) for name, text in values["texts"].items()}
        return BoardRun(texts, reply.data, parse_state(values["before"]), parse_state(values["after"]))

    def _check_end(self, returncode: int | None, tail: str, step: str, timeout_s: float) -> None:
        """Raise the error of a process on the board that did not end well."""
        where = f"{step} on {self.name}" if self.name not in step else step
        if returncode is None:
            message = f"{where}: no answer after {timeout_s:g} s; it was stopped"
            raise StepTimedOut(message, step=step, stderr_tail=tail)
        if returncode == 0:
            return
        lines = [text for text in tail.splitlines() if text.strip()]
        # What a runtime raised is the last line of its traceback, with the name of the class before it.
        if returncode == 1 and lines and "Traceback (most recent call last):" in tail and "MemoryError" not in tail:
            message = lines[-1].removeprefix("edgekit.core.errors.").partition(": ")[2] or lines[-1]
            raise StepFailed(f"{where}: {message[:500]}", step=step, stderr_tail=tail)
        error = exit_error(where, returncode, tail, Environment())
        if isinstance(error, StepOutOfMemory) or returncode < 0:
            raise error
        raise StepFailed(f"{where}: Python ended with exit code {returncode}", step=step, stderr_tail=tail)


def open_board(pool: WorkerPool, name: str) -> Board:
    """Return a board of the user's configuration, whose connection ends with the pool.

    Args:
        pool: The workers of the command.
        name: The board's name.

    Returns:
        The board; the same for all calls of a command.

    Raises:
        InputError: There is no such board, or its file is invalid.
        Interrupted: The pool was stopped.
    """
    config = BOARDS.load(name)
    return pool.resource(("board", name, config), lambda: Board(name, config))


def pip_line(board: Board, machine: Machine, runtimes: Iterable[str]) -> str:
    """Return the command that installs what a board lacks, for a person who installs it there by hand.

    Args:
        board: The board.
        machine: What it is.
        runtimes: The names of the runtimes.

    Returns:
        The command, with the versions that this host has; empty if nothing is missing.
    """
    needed = list(dict.fromkeys((NUMPY, *(item for name in runtimes for item in RUNTIMES.load(name).requires))))
    found = board.modules(needed)
    pins = [pin(item) for item in needed if found[item.module] is None]
    python = board.config.python.removeprefix("~/")
    return shlex.join([python, "-m", "pip", "install", *pins]) if pins else ""


def pin(requirement: Requirement) -> str:
    """Return a distribution with the version that this host has, or without one if it has none."""
    version = requirement.version()
    return f"{requirement.distribution}=={version}" if version else requirement.distribution

"""What edgekit does on a phone: look at it, keep files there, and run a benchmark_model with them."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.config.phone import PHONES, PhoneConfig
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import DiskFull, InputError, MissingDependency, StepFailed
from edgekit.devices.phones import benchmark_model as runner
from edgekit.devices.phones.adb import ANSWER_S, FOLDER, AdbClient, RunOutput, sections
from edgekit.devices.phones.facts import PhoneFacts, parse_facts
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool
from edgekit.workers.process import exit_error

_FACTS, _FILES, SUPERVISE = (
    Path(__file__).with_name(name).read_text() for name in ("_facts.sh", "_files.sh", "_supervise.sh")
)
# Runs the runner once for each call, in the call's folder, and packs what it wrote.
_EACH_CALL = (
    "for call in call*; do"
    f' (cd "$call" && "$@" "$(cat {runner.SHAPES_FILE})") || exit;'
    f" done; tar -cf output call*/{runner.OUTPUT_FILE}"
)
# Measures with the first call's inputs, on some cores; some phones do not let the shell's user choose them.
UNPINNED = "edgekit: not pinned"
_FIRST_CALL = (
    'mask=$1; shift; if taskset "$mask" true 2>/dev/null; then set -- taskset "$mask" "$@"; else'
    f' echo "{UNPINNED}"; fi; cd call000000 && exec "$@" "$(cat {runner.SHAPES_FILE})"'
)
# The first version of Android whose adbd separates exit codes and outputs (shell protocol 2).
_OLDEST_API_LEVEL = 24
# This much space has to be left beside a file that is sent.
_SPARE_BYTES = 8 << 20
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


@dataclass(frozen=True)
class Runner:
    """The benchmark_model on a phone.

    Attributes:
        path: Its path there.
        flags: The flags that it knows.
    """

    path: str
    flags: frozenset[str]

    @property
    def writes_outputs(self) -> bool:
        """Whether outputs can be compared."""
        return runner.OUTPUT_FLAG in self.flags


class Phone:
    """A phone; adb connects to it for each command. Threads may share it: its commands run one after the other."""

    def __init__(self, name: str, config: PhoneConfig) -> None:
        """Describe a phone.

        Args:
            name: Its name.
            config: How it is reached.
        """
        self.name, self.config = name, config
        self.adb = AdbClient(name, config)
        self._known: PhoneFacts | None = None
        self._runner: Runner | None = None

    def close(self) -> None:
        """End what runs on the phone."""
        self.adb.close()

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def facts(self, step: str = "") -> PhoneFacts:
        """Look at the phone.

        Args:
            step: The step's name, for errors.

        Returns:
            What it is, and how it is doing now.

        Raises:
            InputError: The phone is not connected, or does not allow it; or its Android is too old.
            MissingDependency: There is no adb here.
            StepError: The adb server or the phone does not answer.
        """
        sent = time.time()
        found = sections(self.adb.shell(f"echo @edgekit time\ndate +%s\n{_FACTS}", [FOLDER], step=step))
        now = (found.get("time") or [""])[0]
        skew_s = int(now) - (sent + time.time()) / 2 if now.isdigit() else 0.0
        facts = parse_facts(found, skew_s)
        if 0 < facts.api_level < _OLDEST_API_LEVEL:
            raise InputError(f"{self.name} has Android {facts.android}, and edgekit needs Android 7")
        self._known = facts
        return facts

    def known_facts(self, step: str = "") -> PhoneFacts:
        """Return what `facts` returned before, or look at the phone."""
        return self._known or self.facts(step)

    def runner(self, step: str = "") -> Runner:
        """Return the runner, after it was sent to the phone and has shown that it starts there.

        Args:
            step: The step's name, for errors.

        Raises:
            InputError: The runner of the configuration is missing, or built for another architecture.
            MissingDependency: There is no runner on the phone, or it does not start there.
            StepError: The phone does not answer, or has no space left.
        """
        if self._runner is None:
            path = runner.DEFAULT_PATH
            if self.config.runner is not None:
                file = Path(self.config.runner)
                self._check_architecture(file, step)
                path = self.send([file], step=step, timeout_s=ANSWER_S)[file]
            done = self.adb.run(SUPERVISE, [path, "--help=true"], lock=False, step=step, timeout_s=ANSWER_S)
            self._check_start(done, path)
            self._runner = Runner(path, runner.read_flags(done.log))
            if "graph" not in self._runner.flags and "--graph" not in done.log:
                raise InputError(f"{self.name}: {self._what(path)} is no benchmark_model: it has no flag --graph")
        return self._runner

    def _what(self, path: str) -> str:
        return self.config.runner if self.config.runner is not None else path

    def _check_architecture(self, file: Path, step: str) -> None:
        abi, supported = runner.elf_abi(file), self.known_facts(step).abis
        if abi and supported and abi not in supported:
            raise InputError(
                f"{file} is built for {abi}, and {self.name} runs {', '.join(supported)}; name a runner that is built"
                f" for it with: edgekit devices add {self.name} --runner FILE --replace"
            )

    def _check_start(self, done: RunOutput, path: str) -> None:
        text = done.log.strip()
        advice = f"name one with: edgekit devices add {self.name} --runner FILE --replace"
        if done.returncode == _NOT_FOUND or (done.returncode != 0 and re.search(r"not found|No such file", text)):
            raise MissingDependency(f"{self.name} has no runner {path}; {advice}")
        if done.returncode == _NOT_EXECUTABLE or re.search(r"not executable|Exec format error|CANNOT LINK", text):
            raise MissingDependency(f"{self.name} cannot run {self._what(path)} ({text[-200:]}); {advice}")

    def send(
        self, files: Sequence[Path], *, step: str, timeout_s: float, waiting: Callable[[], None] = lambda: None
    ) -> dict[Path, str]:
        """Send files, unless the phone has files of these hashes.

        Args:
            files: The files.
            step: The step's name, for errors.
            timeout_s: The limit in seconds for each file, and of waiting for other measurements.
            waiting: Called when another measurement runs on the phone, whose end this one waits for.

        Returns:
            File -> its path on the phone.

        Raises:
            DiskFull: The phone has no space left.
            StepError: The connection was lost, or a file arrived damaged.
        """
        hashes = {file: sha256_file(file) for file in files}
        missing = self._missing(dict.fromkeys(hashes.values(), ""), step)
        needed = {sha256: file for file, sha256 in hashes.items() if sha256 in missing}
        size = sum(file.stat().st_size for file in needed.values())
        free = self.known_facts(step).machine.disk_free_bytes
        if needed and size + _SPARE_BYTES > free:
            raise DiskFull(f"{step}: no space left on {self.name} ({free >> 20} MiB free)", step=step)
        if needed:
            # Writing would disturb a measurement of somebody else.
            self.adb.run(SUPERVISE, ["true"], step=step, timeout_s=timeout_s, waiting=waiting)
        arrived = {}
        for sha256, file in needed.items():
            arrived[sha256] = f"{sha256}.{secrets.token_hex(4)}.part"
            self.adb.push(file, f"{FOLDER}/files/{arrived[sha256]}", step=step, timeout_s=timeout_s)
        if arrived and self._missing(arrived, step):
            raise StepFailed(f"{step}: a file arrived damaged on {self.name}", step=step)
        return {file: f"{FOLDER}/files/{sha256}" for file, sha256 in hashes.items()}

    def _missing(self, arrived: Mapping[str, str], step: str) -> set[str]:
        """Return the hashes of which the phone has no file, after those that arrived were given their names."""
        words = [word for pair in arrived.items() for word in pair]
        found = sections(self.adb.shell(_FILES, [FOLDER, *words], step=step))
        if "end" not in found:
            raise StepFailed(f"{step}: {self.name} sent a reply that is none of edgekit's", step=step)
        return {title.removeprefix("lacks ") for title in found if title.startswith("lacks ")}

    def measure(
        self,
        model: Path,
        inputs: bytes,
        words: Sequence[str],
        cpus: Sequence[int],
        *,
        step: str,
        timeout_s: float,
        waiting: Callable[[], None] = lambda: None,
    ) -> str:
        """Measure a model, while nothing else is measured on the phone.

        Args:
            model: The model file; it is sent if the phone does not have it.
            inputs: The result of `pack_calls`; sent likewise.
            words: Flags of the runner.
            cpus: The cores to run on.
            step: The step's name, for errors.
            timeout_s: The limit in seconds of the run, and of waiting for other measurements.
            waiting: Called when another measurement runs on the phone, whose end this one waits for.

        Returns:
            What the runner printed; `UNPINNED` is in it where the phone does not let the cores be chosen.

        Raises:
            StepError: The runner crashed, ran out of memory or exceeded the time limit, or the connection was lost.
        """
        mask = f"{sum(1 << cpu for cpu in cpus):x}"
        return self._run(_FIRST_CALL, [mask], model, inputs, words, step, timeout_s, waiting).log

    def infer(
        self,
        model: Path,
        inputs: bytes,
        words: Sequence[str],
        *,
        step: str,
        timeout_s: float,
        waiting: Callable[[], None] = lambda: None,
    ) -> bytes:
        """Run a model once for each call, in a process of its own.

        Args:
            model: The model file; it is sent if the phone does not have it.
            inputs: The result of `pack_calls`; sent likewise.
            words: Flags of the runner.
            step: The step's name, for errors.
            timeout_s: The limit in seconds of all calls, and of waiting for other measurements.
            waiting: Called when another measurement runs on the phone, whose end this one waits for.

        Returns:
            An archive with the outputs of each call.

        Raises:
            StepError: As `measure`.
        """
        return self._run(_EACH_CALL, [], model, inputs, words, step, timeout_s, waiting).output

    def _run(
        self,
        script: str,
        before: Sequence[str],
        model: Path,
        inputs: bytes,
        words: Sequence[str],
        step: str,
        timeout_s: float,
        waiting: Callable[[], None],
    ) -> RunOutput:
        program = self.runner(step).path
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(inputs)
            stream.flush()
            archive = Path(stream.name)
            paths = self.send([model, archive], step=step, timeout_s=timeout_s, waiting=waiting)
        command = ["sh", "-c", script, "sh", *before, program, f"--graph={paths[model]}", *words]
        done = self.adb.run(SUPERVISE, command, inputs=paths[archive], step=step, timeout_s=timeout_s, waiting=waiting)
        self._check_end(done, step)
        return done

    def _check_end(self, done: RunOutput, step: str) -> None:
        """Raise the error of a runner that did not end well."""
        if done.returncode == 0:
            return
        where = f"{step} on {self.name}" if self.name not in step else step
        if done.returncode < 0:
            raise exit_error(where, done.returncode, done.log, Environment())
        reason = runner.runner_error(done.log)
        raise StepFailed(f"{where}: the runner failed ({reason})", step=step, stderr_tail=done.log)

    def remove_files(self, step: str = "") -> str:
        """Remove what edgekit keeps on the phone, and return the folder that was removed; empty if there was none."""
        script = 'if [ -d "$1" ]; then rm -rf "$1" && echo @edgekit removed; fi'
        return FOLDER if "removed" in sections(self.adb.shell(script, [FOLDER], step=step)) else ""


def open_phone(pool: WorkerPool, name: str) -> Phone:
    """Return a phone of the user's configuration; what runs there ends with the pool.

    Args:
        pool: The workers of the command.
        name: The phone's name.

    Returns:
        The phone; the same for all calls of a command.

    Raises:
        InputError: There is no such phone, or its file is invalid.
        Interrupted: The pool was stopped.
    """
    config = PHONES.load(name)
    return pool.resource(("phone", name, config), lambda: Phone(name, config))

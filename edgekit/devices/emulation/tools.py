"""The programs that the emulation needs; a missing one is reported with the command that installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import MissingDependency, StepFailed, StepTimedOut

# Default time limit of one program, in seconds; the longest-running ones download torch's wheels.
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Tool:
    """A program.

    Attributes:
        package: The Debian package that contains it.
        names: The names under which it is looked for; the first that exists is used.
    """

    package: str
    names: tuple[str, ...]

    def path(self) -> str | None:
        """Return the path of the program, or None if it is not installed."""
        return next((path for name in self.names if (path := shutil.which(name))), None)


QEMU = Tool("qemu-user", ("qemu-aarch64",))
COMPILER = Tool("gcc", ("cc", "gcc", "clang"))
UNPACKER = Tool("dpkg", ("dpkg-deb",))
FETCHER = Tool("apt", ("apt-get",))
# What the set-up needs; afterwards QEMU is enough.
ALL = (QEMU, COMPILER, UNPACKER, FETCHER)

_VERSION = re.compile(r"version (\d+)\.(\d+)")
# The major versions of QEMU with version 1 of the plugin interface: from the first up to, but without, the second.
_PLUGIN_API = (4, 9)


def require_tools(tools: Sequence[Tool], what_for: str) -> None:
    """Check that programs are installed.

    Args:
        tools: The programs.
        what_for: What needs them, for the message.

    Raises:
        MissingDependency: One of them is not installed; the message contains the command that installs it.
    """
    missing = [tool for tool in tools if tool.path() is None]
    if missing:
        names = ", ".join(tool.names[0] for tool in missing)
        packages = " ".join(tool.package for tool in missing)
        raise MissingDependency(f"{what_for} needs {names}; install it with: apt-get install {packages}")


def require_plugin_api() -> None:
    """Check that this machine's QEMU loads the counting plugin.

    The static build (qemu-user-static) loads no plugins and has another name. QEMU 9 dropped interface version 1.

    Raises:
        MissingDependency: QEMU is not installed, or its version is not supported.
    """
    require_tools((QEMU,), "the emulation")
    text = run([str(QEMU.path()), "--version"], "reading the version of QEMU", timeout_s=30)
    match = _VERSION.search(text)
    if match is None or not _PLUGIN_API[0] <= int(match[1]) < _PLUGIN_API[1]:
        version = f"version {'.'.join(match.groups())}" if match else "of an unknown version"
        raise MissingDependency(
            f"the emulation needs QEMU {_PLUGIN_API[0]} to {_PLUGIN_API[1] - 1} (plugin interface version 1), but"
            f" {QEMU.path()} is {version}"
        )


def run(
    command: Sequence[str],
    what: str,
    *,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Run a program and wait for its end.

    Args:
        command: The program and its arguments.
        what: The work as a phrase, for errors.
        folder: The working folder, or None for the current one.
        variables: The complete environment, or None for this process's.
        timeout_s: The time limit in seconds.

    Returns:
        What the program writes to stdout.

    Raises:
        StepFailed: The program cannot be started, or fails; the message contains its error line.
        StepTimedOut: The program exceeded the time limit and was stopped.
    """
    try:
        process = subprocess.run(  # noqa: S603 - a list of fixed arguments, no shell
            list(command),
            cwd=folder,
            env=None if variables is None else dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepTimedOut(f"{what}: timed out after {timeout_s:g} s", step=what) from None
    except OSError as error:
        raise StepFailed(f"{what}: {command[0]} cannot be started ({error.strerror})", step=what) from error
    if process.returncode != 0:
        lines = [line.strip() for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        message = next(
            (line for line in lines if line.startswith(("E:", "ERROR"))), lines[-1] if lines else "no message"
        )
        raise StepFailed(
            f"{what}: {Path(command[0]).name} failed ({message[:300]})", step=what, stderr_tail="\n".join(lines[-40:])
        )
    return process.stdout

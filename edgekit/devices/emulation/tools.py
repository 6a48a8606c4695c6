"""The programs of this machine that the emulation needs. What is missing is named with the command that installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import MissingDependency, StepFailed, StepTimedOut

TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Tool:
    """A program, under any of its names, and the Debian package that brings it."""

    package: str
    names: tuple[str, ...]

    def path(self) -> str | None:
        """Where it is, or None."""
        return next((found for name in self.names if (found := shutil.which(name))), None)


QEMU = Tool("qemu-user", ("qemu-aarch64",))
COMPILER = Tool("gcc", ("cc", "gcc", "clang"))
UNPACKER = Tool("dpkg", ("dpkg-deb",))
FETCHER = Tool("apt", ("apt-get",))
ALL = (QEMU, COMPILER, UNPACKER, FETCHER)
"""What setting up needs; afterwards QEMU is enough."""

_VERSION = re.compile(r"version (\d+)\.(\d+)")
_PLUGIN_API = (4, 9)
"""QEMU's majors that speak version 1 of the plugin interface: from the first, up to but without the second."""


def require_tools(tools: Sequence[Tool], what_for: str) -> None:
    """Raises MissingDependency, with the apt line, when one of them is not there."""
    missing = [tool for tool in tools if tool.path() is None]
    if missing:
        names = ", ".join(tool.names[0] for tool in missing)
        packages = " ".join(tool.package for tool in missing)
        raise MissingDependency(f"{what_for} needs {names}; install it with: apt-get install {packages}")


def require_plugin_api() -> None:
    """Raises MissingDependency when this machine's QEMU does not take the counting plugin.

    The static build (qemu-user-static) takes none at all, and has another name; QEMU 9 dropped version 1.
    """
    require_tools((QEMU,), "the emulation")
    text = run([str(QEMU.path()), "--version"], "asking QEMU for its version", timeout_s=30)
    found = _VERSION.search(text)
    if found is None or not _PLUGIN_API[0] <= int(found[1]) < _PLUGIN_API[1]:
        version = ".".join(found.groups()) if found else "an unknown version"
        raise MissingDependency(
            f"the emulation counts by QEMU's plugin interface 1, which QEMU {_PLUGIN_API[0]} to {_PLUGIN_API[1] - 1} "
            f"have; {QEMU.path()} is {version}"
        )


def run(
    command: Sequence[str],
    what: str,
    *,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """What the command writes to stdout. Raises StepFailed with its last words, StepTimedOut."""
    try:
        done = subprocess.run(  # noqa: S603 - a list of our own words, no shell
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
        raise StepTimedOut(f"{what}: no end after {timeout_s:g} s; it was stopped", step=what) from None
    except OSError as error:
        raise StepFailed(f"{what}: {command[0]} cannot be started ({error.strerror})", step=what) from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in lines if line.startswith(("E:", "ERROR"))), lines[-1] if lines else "no message")
        raise StepFailed(
            f"{what}: {Path(command[0]).name} failed ({told[:300]})", step=what, stderr_tail="\n".join(lines[-40:])
        )
    return done.stdout

"""The page of promises: each has a command that shows it, and what the commands name exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
from _helpers.documented_commands import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
PYTEST = [command for command in COMMANDS if command.startswith("pytest ")]


def test_every_promise_has_a_command() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(sections) >= 9
    assert [section.partition("\n")[0] for section in sections if "\n$ " not in section] == []


def test_every_command_is_of_a_known_kind() -> None:
    """Those of edgekit are parsed by the test of all pages."""
    others = [command for command in COMMANDS if command not in PYTEST and not command.startswith("edgekit ")]
    targets = re.findall(r"^([a-z-]+):.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for command in others:
        program, *words = shlex.split(command)
        assert program in ("make", "pip")
        assert program != "make" or set(words) <= set(targets)
        assert all((REPOSITORY / word).is_file() for word in words if word.endswith(".lock"))


@pytest.mark.parametrize("command", PYTEST)
def test_a_command_selects_tests(command: str) -> None:
    """Collected alone, file by file: each word after -k must select something in at least one of the files."""
    words = shlex.split(command)[1:]
    expression = words[words.index("-k") + 1] if "-k" in words else ""
    files = [word for word in words if word.endswith(".py")]
    folders = [word for word in words if word.startswith("tests/") and word not in files]
    files += [str(path) for folder in folders for path in (REPOSITORY / folder).glob("test_*.py")]
    assert files
    names = [name for file in files for name in re.findall(r"def (test_\w+)", (REPOSITORY / file).read_text())]
    assert names
    for alternative in filter(None, expression.split(" or ")):
        assert any(alternative in name for name in names), alternative


@pytest.mark.slow
def test_a_cheap_one_passes() -> None:
    command = next(command for command in PYTEST if "test_atomic_files" in command)
    run = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "-q", "-n0", "-p", "no:cacheprovider"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout

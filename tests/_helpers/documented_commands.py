"""Console blocks in Markdown pages: the commands, the output that the page shows, and how to compare it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from edgekit.cli import app

REPOSITORY = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)$")
_RUN = re.compile(r"^<!-- run: (?P<where>\w+)(?: exit=(?P<exit>[\d,]+))? -->$")
_NUMBER = re.compile(r"(?<![\w.:/-])[-+]?\d[\d,.]*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Command:
    """One `$` line of a console block.

    Attributes:
        arguments: The words up to a pipe, a redirection or a comment.
        output: What the page shows below the line.
        exit_code: What it is said to end with.
    """

    arguments: tuple[str, ...]
    output: str
    exit_code: int = 0


@dataclass(frozen=True)
class Block:
    """A console block. `where` names the folder in which tests run it; empty: it is only parsed."""

    page: Path
    line: int
    commands: tuple[Command, ...]
    where: str = ""

    @property
    def id(self) -> str:
        """`docs/start.md:35`"""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list[Path]:
    """Every Markdown page of the project that users read."""
    top = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [*top, *sorted(REPOSITORY.glob("docs/**/*.md")), *sorted(REPOSITORY.glob("examples/*/README.md"))]


def console_blocks() -> Iterator[Block]:
    """Every console block of every page."""
    for page in pages():
        yield from _blocks(page)


def _blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, str, str] | None = None  # line of the fence, its language, its indentation
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is None:
            opened = number, fence["language"], fence["indent"]
            continue
        start, language, indent = opened
        opened = None
        if language == "console":
            run = _RUN.match(lines[start - 1].strip()) if start else None
            content = [text.removeprefix(indent) for text in lines[start + 1 : number]]
            codes = [int(code) for code in (run["exit"] or "").split(",") if code] if run else []
            yield Block(page, start + 1, _commands(content, codes), run["where"] if run else "")


def _commands(lines: list[str], codes: list[int]) -> tuple[Command, ...]:
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    codes = codes + [0] * (len(found) - len(codes))
    return tuple(
        Command(words(text), "\n".join(output), code) for (text, output), code in zip(found, codes, strict=True)
    )


def words(text: str) -> tuple[str, ...]:
    """The words of a shell command up to a pipe, a redirection or a comment."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|>&;")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    kept: list[str] = []
    for word in lexer:
        if word and set(word) <= set("|>&;"):
            break
        kept.append(word)
    return tuple(kept)


def parse(arguments: tuple[str, ...]) -> click.Command:
    """Parse the words after `edgekit` as the command line does, and run nothing.

    Raises:
        click.UsageError: A command, option or argument is unknown or missing.
    """
    name, command, rest = "edgekit", app, list(arguments)
    context: click.Context | None = None
    while True:
        context = command.make_context(name, rest, parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not isinstance(command, click.Group) or not rest:
            return command
        resolved, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        name, command = resolved or "", inner


def masked(text: str, root: Path | None = None) -> str:
    """The shape of an output: numbers as N, rulers and columns as one character, paths relative to the root."""
    if root is not None:
        text = text.replace(f"{root}/", "")
    text = _NUMBER.sub("N", text)
    lines = [re.sub(r" +", " ", re.sub("─+", "─", line)).strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line)


def shows(documented: str, output: str) -> bool:
    """Whether a documented output has the shape of a real one; both masked. `…` stands for any text, or any lines."""
    pattern = ""
    for line in documented.splitlines():
        pattern += r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
    return re.fullmatch(pattern, output + "\n") is not None

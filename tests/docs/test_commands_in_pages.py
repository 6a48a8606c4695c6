"""Commands in the pages: each parses, and those that are marked run as the page shows."""

import re
import shutil
from pathlib import Path

import click
import pytest
from _helpers.documented_commands import REPOSITORY, Block, console_blocks, masked, pages, parse, shows, words
from _helpers.support import call

BLOCKS = [
    block for block in console_blocks() if any(command.arguments[:1] == ("edgekit",) for command in block.commands)
]
MARKED = [block for block in console_blocks() if block.where]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.id)
def test_every_command_in_a_console_block_parses(block: Block) -> None:
    for command in block.commands:
        if command.arguments[:1] == ("edgekit",):
            parse(command.arguments[1:])


def test_many_commands_are_documented() -> None:
    assert len(BLOCKS) > 50
    assert len(MARKED) > 5


def inline_commands() -> list[tuple[str, str]]:
    """Page and text of every `edgekit …` between backticks."""
    return [
        (page.name, text)
        for page in pages()
        for text in re.findall(r"(?<!`)`(edgekit [^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))
    ]


def test_options_of_inline_commands_exist() -> None:
    for page, text in inline_commands():
        name, *rest = words(text)[1:]
        if name.startswith("-") or not name.islower():
            continue
        command = parse((name,)) if name in ("models", "devices", "targets") else _command(name)
        if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            inner = command.get_command(click.Context(command), rest[0])
            assert inner is not None, (page, text)
            command = inner
        known = {flag for item in command.get_params(click.Context(command)) for flag in item.opts}
        unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
        assert not unknown, (page, text, unknown)


def _command(name: str) -> click.Command:
    from edgekit.cli import app

    command = app.get_command(click.Context(app), name)
    assert command is not None, name
    return command


@pytest.fixture(scope="module")
def project_copy(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared project, for commands that write into it."""
    root = tmp_path_factory.mktemp("pages") / "project"
    shutil.copytree(project, root)
    return root


@pytest.mark.parametrize("block", [block for block in MARKED if block.where == "project"], ids=lambda block: block.id)
def test_a_marked_block_runs_as_the_page_shows(
    block: Block, project_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project_copy)
    _run(block, project_copy, progress=False)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)  # it trains a network
@pytest.mark.parametrize("block", [block for block in MARKED if block.where == "example"], ids=lambda block: block.id)
def test_the_example_of_the_readme_runs_in_an_empty_folder(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(block, tmp_path, progress=True)


def _run(block: Block, root: Path, *, progress: bool) -> None:
    """Run a block's commands and compare exit codes and the shapes of outputs; `progress` includes stderr."""
    for command in block.commands:
        answer = call(*command.arguments[1:])
        assert answer.code == command.exit_code, (command.arguments, answer.out, answer.err)
        output = masked((answer.err if progress else "") + answer.out, root)
        assert shows(masked(command.output), output), f"{block.id}\n{masked(command.output)}\n---\n{output}"


def test_every_mark_names_a_known_place() -> None:
    assert {block.where for block in MARKED} <= {"project", "example"}
    assert all(block.page.is_relative_to(REPOSITORY) for block in MARKED)


def test_the_comparison_of_shapes_sees_other_words_and_lines() -> None:
    shown = masked("model   value\n──────\nnet     1.5 KB  passed\n…\n3 rules: …")
    assert shows(shown, masked("model  value\n─────────\nnet    12.25 KB  passed\nmore\n7 rules: all passed"))
    assert not shows(shown, masked("model  value\n─────────\nnet    12.25 KB  FAILED\n7 rules: all passed"))
    assert not shows(masked("one line"), masked("one line\nand another"))

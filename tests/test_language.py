"""Words of the project's former private vocabulary stay out of code, messages and pages.

Each word has a standard term instead. The list grows when another such word is replaced.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Former word (a regular expression, whole words) -> the term to use.
REPLACED = {
    r"drill(s|ed|ing)?": "layer-wise diff",
    r"leap(s|ed|t)?": "divergence",
    r"twins?": "counterpart",
    r"foresee[ns]?|foresaw": "predict, or dry run",
    r"sealed": "checksummed",
    r"blame[ds]?": "sensitivity",
    r"dearer": "more expensive",
    r"errands?": "remote step",
    r"zygotes?": "fork server",
    r"adopt(s|ed|ing)?": "import",
    r"tak(e|es|en|ing) in": "import",
    r"gravest": "most severe",
    r"carr(y|ies|ied|ying) (it )?out": "execute, or run",
    r"found out": "reported, or measured",
    r"whoever": "the user, the process",
    r"by heart": "cached",
    r"at the door": "when loading",
    r"hard inputs?": "stress inputs",
}
PATTERN = re.compile(rf"\b({'|'.join(REPLACED)})\b", re.IGNORECASE)

# Class names of the former vocabulary. Some of these words are fine in prose.
CLASSES = re.compile(
    r"_?(Book|Ran|Planned|Drilling|Life|Blame|Errand|Zygotes?|Forked|Located|Lesson|Course|Standing|Draft|Seen|Known"
    r"|Marks|Logged|Turns|Operand|Allowance|Begun|Wanted|How|Choice"
    r"|Started|Finished|Failed|Noted|Counted|Installed|Named|Shuffled)"
)
FUNCTIONS = re.compile(
    r"_?(told|found|made|own|text_of|carry_out|adopt|foresee|at_once|together|lacks_room|too_late|death)"
)

# Lines that must name a former word, since users' files and commands may still have it.
ALLOWED = (
    re.compile(r"\"--blame\"|`--blame`|--blame"),
    re.compile(r"[\"']take in|called [\"']take in|a user's model \"take in\""),
    re.compile(r"taken in the same order"),
)


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match, as git lists them."""
    answer = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=REPOSITORY, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("this is no git clone")
    return [REPOSITORY / name for name in answer.stdout.split("\0") if name]


def former_words(text: str) -> list[tuple[int, str]]:
    """Return the lines with a former word, numbered, and the word."""
    return [
        (number, match.group())
        for number, line in enumerate(text.splitlines(), 1)
        if not any(pattern.search(line) for pattern in ALLOWED)
        for match in PATTERN.finditer(line)
    ]


@pytest.mark.parametrize("folder", ["edgekit", "tests", "docs", "examples", "models", "device_profiles", "."])
def test_former_words_have_not_come_back(folder):
    patterns = (
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "pyproject.toml"]
        if folder == "."
        else [f"{folder}/*.{suffix}" for suffix in ("py", "md", "j2", "js", "toml")]
    )
    lines = [
        f"{path.relative_to(REPOSITORY)}:{number}: '{word}'"
        for path in tracked(*patterns)
        if path != Path(__file__)
        for number, word in former_words(path.read_text())
    ]
    assert not lines, "\n".join(lines)


def test_the_pattern_finds_each_former_word():
    for word in ("drilled", "Twins", "take in", "taking in", "carried out", "--blame", "whoever"):
        assert PATTERN.search(f"the {word}, then")


@functools.cache
def syntax_trees() -> dict[Path, ast.Module]:
    """Return the modules of edgekit as they are parsed once, for all tests."""
    return {path: ast.parse(path.read_text()) for path in tracked("edgekit/*.py")}


@functools.cache
def definitions() -> list[tuple[Path, ast.ClassDef | ast.FunctionDef]]:
    return [
        (path, node)
        for path, tree in syntax_trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]


def test_former_names_of_classes_and_functions_have_not_come_back():
    names = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name}"
        for path, node in definitions()
        if (CLASSES if isinstance(node, ast.ClassDef) else FUNCTIONS).fullmatch(node.name)
    ]
    assert not names, "\n".join(names)


def test_a_public_class_name_has_one_meaning():
    places: dict[str, list[str]] = {}
    for path, node in definitions():
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            places.setdefault(node.name, []).append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    repeated = {name: where for name, where in places.items() if len(where) > 1}
    assert not repeated, repeated


# Modules whose messages only a command shows or that quote commands, and options of other programs or of pytest.
COMMAND_ONLY = re.compile(
    r"edgekit/(cli|testing|reports|devices/(emulation|boards|browsers|phones)|core/build)/|edgekit/stages/(tracking|cluster|benchmark|tuning)/"
    r"|edgekit/stages/(conversion/size|models/train|models/model_refs|models/recorded_code|models/init|validation/diff|pipeline/plan)\.py"
    r"|edgekit/(training|config)/|edgekit/browser/program\.py|edgekit/contracts/(checkpoint|report)\.py|edgekit/stages/gates/check\.py|edgekit/core/(environment/requirements|logs)\.py"
)


def test_messages_that_the_python_api_shares_name_no_options_of_a_command():
    """They pass `parameters`, from which the command line makes a hint."""
    option = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    lines = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.value}"
        for path, tree in syntax_trees().items()
        if not COMMAND_ONLY.match(str(path.relative_to(REPOSITORY)))
        for node in texts(tree)
        if option.search(re.sub(r"(run: |with: |: )?edgekit [a-z]+[^;]*", "", node.value))
    ]
    assert not lines, "\n".join(lines)


def texts(tree: ast.Module) -> list[ast.Constant]:
    """Return the strings of a module that are not docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]

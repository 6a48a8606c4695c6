r"""Escapes names for each output, one function for each syntax.

Names of models, tensors, layers, operators and files come from users' files and may hold any character. An output that
has a syntax of its own takes them through the function for that syntax; nothing else escapes names. Jinja escapes HTML
markup itself and `json.dumps` JSON, so there are no functions for those two beyond `visible` and `html_id`.

Characters that a reader cannot see are shown as in Python source (`\n`, `\x1b`, `\u202e`). The escaped text is for
display; it is not meant to be parsed back.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TypeVar

from edgekit.core.errors import InputError

_T = TypeVar("_T")

# --- text for people: terminals, logs, and the base of all other formats ---

# Joiners inside words and emoji. All other format characters (bidi overrides, zero-width spaces, tags) are shown.
_JOINERS = "\u200c\u200d"
# The CI commands `##[error]` (GitHub, Azure), `##vso[…]` (Azure) and `##teamcity[…]`, which count anywhere in a line.
_CI_MARK = re.compile(r"##(?=[A-Za-z]*\[)")
# GitHub's `::error::`, which counts at the start of a line.
_CI_COMMAND = re.compile(r"^(\s*):(?=:)")
# The styles that rich writes for a table: bold, bold red and none.
_STYLES = re.compile(r"(\x1b\[(?:0|1|1;31)?m)")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _shown(character: str) -> str:
    if _is_visible(character):
        return character
    number = ord(character)
    return _SHORT.get(character) or (
        f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
    )


def visible(text: str) -> str:
    """Return the text in one line of visible characters, without control sequences of a terminal or of a CI log.

    Letters, marks, digits, punctuation, symbols and spaces of all languages are kept.

    Args:
        text: Any text; surrogates, as in names of files that are not UTF-8, are allowed.
    """
    if not text.isprintable():
        text = "".join(map(_shown, text))
    return _CI_MARK.sub(r"\\x23#", text) if "##" in text else text


def line(text: str) -> str:
    """Return the text as one line of output: `visible`, and a line feed at its end."""
    return f"{visible(text)}\n"


def terminal(text: str, *, styled: bool = False) -> str:
    """Return text of several lines for a terminal or a log.

    Line feeds and tabs are kept; everything else is as in `visible`. No line starts a workflow command of GitHub.

    Args:
        text: The text; names in it should already be `visible`, since their line feeds are kept here.
        styled: Whether the text holds the styles of a table: bold, bold red and none are kept.
    """
    return "\n".join(_terminal_line(part, styled) for part in text.split("\n"))


def _terminal_line(text: str, styled: bool) -> str:
    parts = _STYLES.split(text) if styled else [text]
    # split() alternates between text and style
    shown = (part if index % 2 else visible(part.replace("\t", "    ")) for index, part in enumerate(parts))
    return _CI_COMMAND.sub(r"\1\\x3a", "".join(shown))


# --- CI systems ---


def workflow_value(text: str) -> str:
    """Return the text as the message of a workflow command of GitHub Actions, which may have several lines."""
    shown = "\n".join(map(visible, re.split("\r\n|\r|\n", text)))
    return shown.replace("%", "%25").replace("\n", "%0A")


def workflow_property(text: str) -> str:
    """Return the text as a property (`title=…`) of a workflow command of GitHub Actions."""
    return workflow_value(text).replace(":", "%3A").replace(",", "%2C")


def json_text(text: str) -> str:
    r"""Return a JSON document with `#` as `\u0023` where a CI log would read a command; it holds the same values."""
    return _CI_MARK.sub(lambda _match: r"\u0023#", text)


def xml_text(text: str) -> str:
    """Return the text without the characters that XML 1.0 cannot represent; a serializer escapes the markup.

    Among them are control characters, surrogates and noncharacters (section 2.2, production `Char`).
    """
    return visible(text)


# --- Markdown ---

# Significant anywhere in a line. A `|` separates the cells of tables, `~` strikes through, `$` starts formulas.
_MARKDOWN = re.compile(r"([\\`*\[\]|~$])")
# `_` starts emphasis only beside a word, so that names such as `simple_cnn` stay as they are.
_MARKDOWN_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
# At the start of a line: headings, quotes, lists, rules, and GitHub's `::error`.
_MARKDOWN_START = re.compile(r"^([#>+\-=:]|\d+(?=[.)]))")
# GitHub and GitLab link addresses, mentions and issues in the rendered text, where a backslash is gone. An empty
# comment divides them.
_MARKDOWN_LINKS = re.compile(
    r"(@|(?<=[Ww]{2})[Ww](?=\.)|:(?=//)|[#!](?=\d)|(?<=[Gg][Hh])-(?=\d)|mailto(?=:)|xmpp(?=:))"
)
_DIVIDER = "<!-- -->"


def markdown(text: str) -> str:
    """Return the text as literal text of GitHub's Markdown, for a paragraph, an item of a list or a heading.

    Args:
        text: Any text; it becomes one line.
    """
    return _MARKDOWN_START.sub(_markdown_start, markdown_cell(text).lstrip())


def markdown_cell(text: str) -> str:
    """Return the text as literal text inside a line of GitHub's Markdown, such as the cell of a table.

    Args:
        text: Any text; it becomes one line.
    """
    text = _MARKDOWN_LINKS.sub(rf"\1{_DIVIDER}", visible(text).replace("&", "&amp;").replace("<", "&lt;"))
    return _MARKDOWN_UNDERSCORE.sub(r"\\_", _MARKDOWN.sub(r"\\\1", text))


def _markdown_start(match: re.Match[str]) -> str:
    # A backslash escapes no digit.
    mark = match[1]
    return f"&#{ord(mark[0])};{mark[1:]}" if mark[0].isdigit() else f"\\{mark}"


def markdown_prose(text: str) -> str:
    """Return what the author of a model wrote as Markdown: links and emphasis stay, HTML becomes text.

    Args:
        text: The text, possibly of several lines.
    """
    return "\n".join(visible(part).replace("<", "&lt;") for part in text.splitlines())


# --- CSV ---

# What spreadsheets evaluate at the start of a cell, also in full-width forms (OWASP, "CSV Injection"); after `;`, which
# divides cells where the comma is the decimal mark; and GitHub's `::error`.
_FORMULA = re.compile(r"(^|;)(\s*[\"']?)(?=[=+\-@\uff1d\uff0b\uff0d\uff20]|::)")


def csv_cell(value: _T) -> _T | str:
    """Return the value of a cell; text that a spreadsheet would evaluate starts with an apostrophe.

    Args:
        value: A number, which stays a number, or any other value, whose text is escaped.
    """
    if isinstance(value, int | float) or value is None:
        return value
    return _FORMULA.sub(r"\1'\2", visible(str(value)))


# --- HTML ---


def html_id(text: str) -> str:
    """Return the text as an id that is also a fragment of a URL.

    Args:
        text: Any text; where it holds more than ASCII letters, digits, `.`, `_` and `-`, a hash keeps ids distinct.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text)
    return plain if plain == text else f"{plain}-{_hash(text)}"


def _hash(text: str) -> str:
    import hashlib  # here, since every command imports this module and few need a hash

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


# --- make ---

# Characters that have no escape everywhere in GNU make are written as variables, which `MAKE_VARIABLES` defines.
_MAKE_NAMES = {
    "#": "EDGEKIT_HASH",
    "=": "EDGEKIT_EQUALS",
    "&": "EDGEKIT_AMPERSAND",
    "(": "EDGEKIT_OPEN",
    ")": "EDGEKIT_CLOSE",
}
MAKE_VARIABLES = "".join(f"{name} := {mark}\n" for mark, name in _MAKE_NAMES.items()).replace("#", "\\#")
# A backslash escapes these; backslashes before them are doubled. `%` is special in targets only.
_MAKE_SPECIAL = re.compile(r"(\\*)([ :*?\[])")
_MAKE_TARGET_SPECIAL = re.compile(r"(\\*)([ :*?\[%])")
# Without any escape: the recipe separator, order-only prerequisites, home folders, archive members, a last backslash.
_NOT_MAKE = re.compile(r"[;|]|^~|\(.*\)$|\\$")


def _make_variables(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InputError(f"{visible(text)}: a makefile cannot hold a name with control characters; rename it")
    return "".join(f"$({_MAKE_NAMES[mark]})" if mark in _MAKE_NAMES else mark for mark in text.replace("$", "$$"))


def _make_path(path: str, special: re.Pattern[str]) -> str:
    if _NOT_MAKE.search(path):
        raise InputError(
            f"{visible(path)}: a makefile cannot hold a path with ; or |, with ~ at its start or with a backslash or a"
            " pair of parentheses at its end; rename it"
        )
    return special.sub(lambda match: f"{2 * match[1]}\\{match[2]}", _make_variables(path))


def make_target(path: str) -> str:
    """Return a path as the target of a rule of GNU make.

    Args:
        path: The path.

    Raises:
        InputError: A makefile cannot hold the path.
    """
    return _make_path(path, _MAKE_TARGET_SPECIAL)


def make_prerequisite(path: str) -> str:
    """Return a path as a prerequisite of a rule of GNU make.

    Args:
        path: The path.

    Raises:
        InputError: A makefile cannot hold the path.
    """
    return _make_path(path, _MAKE_SPECIAL)


def make_word(text: str) -> str:
    """Return the text as one word of the shell, in a recipe or in `$(shell …)`.

    Args:
        text: The text.

    Raises:
        InputError: The text holds a line feed or another control character.
    """
    return _make_variables("'" + text.replace("'", "'\\''") + "'")


# --- C ---

# The words of C and C++ that are no names.
_C_KEYWORDS = frozenset(
    (
        "alignas", "alignof", "and", "asm", "auto", "bool", "break", "case", "catch", "char", "class",
        "const", "continue", "default", "delete", "do", "double", "else", "enum", "explicit", "export",
        "extern", "false", "float", "for", "friend", "goto", "if", "inline", "int", "long", "main", "mutable",
        "namespace", "new", "not", "nullptr", "operator", "or", "private", "protected", "public", "register",
        "restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "template", "this",
        "throw", "true", "try", "typedef", "typeid", "typename", "union", "unsigned", "using", "virtual",
        "void", "volatile", "while", "xor",
    )
)  # fmt: skip


def c_identifier(text: str) -> str:
    """Derive an identifier of C and C++ from a text: `simple_cnn-keras` gives `simple_cnn_keras`.

    Args:
        text: Any text.

    Returns:
        The identifier, in lower case.
    """
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower()
    # identifiers do not start with a digit
    return name if name and not name[0].isdigit() and name not in _C_KEYWORDS else f"model_{name}"


def c_comment(text: str) -> str:
    """Return a comment of C; markers inside the text are escaped, since compilers reject them or warn (-Wcomment)."""
    escaped = visible(text).replace("*/", "*\\/").replace("/*", "/\\*")
    return f"/* {escaped} */"


# --- MLflow ---

# MLflow also allows ':' and '/', but ':' needs quotes in its search and '/' separates the parts of a name here.
_NOT_MLFLOW = re.compile(r"[^A-Za-z0-9_.\- ]")
# The longest part of a name in characters: several parts stay within MLflow's limit of 250.
_MAX_MLFLOW_CHARS = 60


def mlflow_name(*parts: str) -> str:
    """Build the name of a metric or parameter of MLflow from its parts.

    A part that MLflow does not allow, or that is too long, is replaced and gets a hash, so that names stay distinct.

    Args:
        *parts: The parts of the name.

    Returns:
        The parts, separated by slashes.
    """
    return "/".join(map(_mlflow_part, parts))


def _mlflow_part(part: str) -> str:
    plain = _NOT_MLFLOW.sub("_", part)[:_MAX_MLFLOW_CHARS].strip() or "_"
    # MLflow refuses '.' as a part of a path, and '..' at its start.
    plain = re.sub(r"^\.\.", "__", plain)
    return plain if plain == part and plain.strip(".") else f"{plain}-{_hash(part)}"

"""The command-line reference, from the click commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import click
from undocumented import Undocumented

from edgekit.cli import app

FOLDER = "reference/cli"
COMMON = ("--root", "--json", "--quiet", "--verbose", "--log-file", "--help")
"""Options that every command has; they are described once, on the overview page."""

_UNSET = {None, False, ()}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by what a user types after `edgekit`, subcommands after their group."""
    yield from _below(app, "")


def _below(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from _below(command, f"{prefix}{name} ")


def pages() -> dict[str, Callable[[], str]]:
    """Path of a page in the site -> what writes it: one page a command, its subcommands on the same page."""
    found: dict[str, Callable[[], str]] = {f"{FOLDER}/index.md": _overview}
    for name, command in commands():
        if " " not in name:
            found[f"{FOLDER}/{name}.md"] = _page(name, command)
    return found


def _page(name: str, command: click.Command) -> Callable[[], str]:
    def content() -> str:
        members = [(full, item) for full, item in commands() if full == name or full.startswith(f"{name} ")]
        sections = [_section(full, item, 1 + full.count(" ")) for full, item in members]
        return "\n".join(sections)

    return content


def command_table() -> str:
    """One line a command, linked, for the overview and for other pages."""
    rows = [
        f"| [`edgekit {name}`]({name.split()[0]}.md{_anchor(name)}) | {_short(command)} |"
        for name, command in commands()
    ]
    return "\n".join(["| command | purpose |", "| --- | --- |", *rows])


def _anchor(name: str) -> str:
    return f"#edgekit-{name.replace(' ', '-')}" if " " in name else ""


def _short(command: click.Command) -> str:
    text = command.get_short_help_str(limit=400).strip().rstrip(".")
    if not text:
        raise Undocumented(f"the command {command.name} has no help text")
    return _escape(text)


def _overview() -> str:
    shared = next(command for name, command in commands() if name == "validate")
    options = [option for option in _options(shared) if _flags(option)[0].partition("/")[0] in COMMON]
    return "\n".join(
        [
            "# Command line",
            "",
            "Results go to stdout, progress, warnings and errors to stderr. With `--json` a command prints exactly one"
            " JSON document on stdout. The [exit code](../exit-codes.md) says how it ended.",
            "",
            command_table(),
            "",
            "## Options of every command",
            "",
            _option_table("edgekit", options),
            "",
            "`edgekit --version` prints the version. `--root`, `--json`, `-q`, `-v` and `--log-file` may stand before"
            " or after a subcommand of `edgekit models` and `edgekit devices`.",
            "",
            "## Shell completion",
            "",
            "Names of models, targets, precisions, devices and report formats are completed too:",
            "",
            "```console",
            '$ eval "$(_EDGEKIT_COMPLETE=bash_source edgekit)"    # zsh_source, fish_source',
            "```",
            "",
        ]
    )


def _section(name: str, command: click.Command, level: int) -> str:
    context = click.Context(command, info_name=f"edgekit {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    text, examples = _help(command)
    if not text:
        raise Undocumented(f"edgekit {name}: the command has no help text")
    lines = [f"{'#' * level} edgekit {name}", "", text, "", "```text", f"edgekit {name} {usage}", "```", ""]
    own = [option for option in _options(command) if not set(_flags(option)) & set(COMMON)]
    if own:
        lines += [_option_table(f"edgekit {name}", own), ""]
    lines += ["Also: [options of every command](index.md#options-of-every-command).", ""]
    if examples:
        lines += ["```console", *(f"$ {example}" for example in examples), "```", ""]
    return "\n".join(lines)


def _options(command: click.Command) -> list[click.Option]:
    context = click.Context(command, help_option_names=app.context_settings["help_option_names"])
    return [item for item in command.get_params(context) if isinstance(item, click.Option) and not item.hidden]


def _flags(option: click.Option) -> list[str]:
    """The option's names, the long ones first."""
    return sorted((*option.opts, *option.secondary_opts), key=lambda flag: (not flag.startswith("--"), flag))


def public_flags(command: click.Command) -> list[str]:
    """Every name under which the help shows an option of the command."""
    return [flag for option in _options(command) for flag in _flags(option)]


def _option_table(name: str, options: list[click.Option]) -> str:
    rows = ["| option | meaning |", "| --- | --- |"]
    for option in options:
        flags = _flags(option)
        if not option.help or not option.help.strip():
            raise Undocumented(f"{name}: the option {flags[0]} has no help text")
        rows.append(f"| {_signature(option, flags)} | {_meaning(option)} |")
    return "\n".join(rows)


def _signature(option: click.Option, flags: list[str]) -> str:
    value = "" if option.is_flag or option.count else f" {_value_name(option)}"
    return "<br>".join(f"`{flag}{value}`" for flag in flags)


def _value_name(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    kind = option.type
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    name = "NUMBER" if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)) else kind.name.upper()
    return " ".join([name] * option.nargs)


def _meaning(option: click.Option) -> str:
    text = _escape(" ".join((option.help or "").split()))
    notes = []
    if isinstance(option.type, (click.IntRange, click.FloatRange)):
        bounds = option.type
        if bounds.min is not None:
            notes.append(f"{'more than' if bounds.min_open else 'at least'} {bounds.min:g}")
        if bounds.max is not None:
            notes.append(f"{'less than' if bounds.max_open else 'at most'} {bounds.max:g}")
    if option.show_default and _is_set(option.default):
        notes.append(f"default: `{option.default}`")
    if option.required:
        notes.append("required")
    aliases = getattr(option, "aliases", ())
    if aliases:
        notes.append(f"former name: {', '.join(f'`{name}`' for name in aliases)}")
    return f"{text} *({'; '.join(notes)})*" if notes else text


def _is_set(default: object) -> bool:
    try:
        return default not in _UNSET and "UNSET" not in repr(default).upper()
    except TypeError:  # unhashable
        return bool(default)


def _help(command: click.Command) -> tuple[str, list[str]]:
    """The help text as Markdown paragraphs, and the lines of its example."""
    paragraphs = inspect.cleandoc(command.help or "").split("\f")[0].split("\n\n")
    text, examples = [], []
    for paragraph in paragraphs:
        if paragraph.startswith("\b"):
            lines = [line.strip() for line in paragraph.splitlines()[1:]]
            examples += [line for line in lines if line.startswith("edgekit ")]
        else:
            text.append(_escape(" ".join(paragraph.split())))
    return "\n\n".join(text), examples


def _escape(text: str) -> str:
    """Click's plain text as Markdown: options and files as code, and no character that Markdown would take."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _escape_words(part) for part in parts)


def _escape_words(text: str) -> str:
    text = text.replace("<", "&lt;").replace("*", "\\*").replace("|", "\\|").replace("_", "\\_")
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*[a-z]|-[a-z])(?![\w`-])", r"`\1`", text)

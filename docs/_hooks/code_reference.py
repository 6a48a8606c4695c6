"""Sections of the site that are read off the code: exit codes, environment variables, layers, tolerances, plug-ins."""

from __future__ import annotations

import ast
import inspect
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from undocumented import Undocumented

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "edgekit"
API_FUNCTIONS = ("export", "validate", "compare", "bench", "check", "load_artifact")

_CODES = {
    0: "Success.",
    1: "A check failed: equivalence, drift, a budget or a baseline.",
    2: "Wrong usage, or invalid input: an argument, a file or a folder.",
    3: "A package or a tool is not installed; the message gives the command that installs it.",
    4: "A step crashed, timed out or ran out of memory, the disk is full, or an error was unexpected: the message"
    " names the log with its traceback.",
    130: "Interrupted by Ctrl-C or SIGTERM; no partially written files remain.",
    141: "The reader of standard output closed it, as `head` does, before everything was printed.",
}

_VARIABLES = {
    "EDGEKIT_CACHE": "Folder of what `edgekit devices setup` fetches and builds. Default: `$XDG_CACHE_HOME/edgekit`.",
    "EDGEKIT_CHROMIUM": "Path of the browser that models run in. Default: the first of `chromium`, `chromium-browser`,"
    " `google-chrome` and `google-chrome-stable` in `PATH`.",
    "EDGEKIT_CONFIG": "Folder of the user's configuration, with what `edgekit devices add` keeps. Default:"
    " `$XDG_CONFIG_HOME/edgekit`.",
    "EDGEKIT_LOG_LEVEL": "Lowest level that `--log-file` writes: `debug`, `info`, `warning` or `error`. Default:"
    " `info`, with `-v` `debug`.",
    "XDG_CACHE_HOME": "Base of the cache folder where `EDGEKIT_CACHE` is not set. Default: `~/.cache`; a relative"
    " path is ignored.",
    "XDG_CONFIG_HOME": "Base of the configuration folder where `EDGEKIT_CONFIG` is not set. Default: `~/.config`; a"
    " relative path is ignored.",
    "EDGEKIT_CONFINEMENT": "Confinement of the workers that open models: `auto` (the default: where the kernel has"
    " Landlock and seccomp), `required` (exit code 3 where it has not), or `off`. `edgekit doctor` reports it.",
    "OMP_NUM_THREADS": "Threads of OpenMP in workers. Default: 1 in workers that convert and validate, all cores in"
    " those that train. Two workers with two threads each on two cores wait for one another at every barrier.",
}
"""Variables that edgekit reads, and what they do."""

_FOR_WORKERS = {
    "ORT_DISABLE_TELEMETRY": "ONNX Runtime reports nothing to its makers.",
    "PYTHONDONTWRITEBYTECODE": "No `.pyc` file is left in a model's folder.",
    "PYTHONFAULTHANDLER": "A crash in native code leaves a Python traceback on stderr.",
    "PYTHONHASHSEED": "Converters write graphs in the order of their sets: a fixed seed gives the same bytes.",
    "PYTHONUNBUFFERED": "What a worker wrote before it crashed is kept.",
    "PYTHONWARNINGS": "`error` would turn the warnings of frameworks at their import into failures of every step.",
}
"""Variables that every worker process is started with."""

_NOT_A_SETTING = {"TMPDIR", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"}
"""Written by edgekit for its own processes, never read."""


def exit_codes() -> str:
    """The table of exit codes, each with the errors that cause it. Raises Undocumented for a code without a text."""
    from edgekit.core import errors

    classes = [item for item in vars(errors).values() if inspect.isclass(item) and hasattr(item, "exit_code")]
    causes: dict[int, list[type]] = {}
    for cls in classes:
        causes.setdefault(cls.exit_code, []).append(cls)
    unknown = sorted(set(causes) - set(_CODES))
    if unknown:
        raise Undocumented(f"exit codes without a description in docs/_hooks/code_reference.py: {unknown}")
    lines = ["| exit code | meaning | errors (`type` in `--json`) |", "| --- | --- | --- |"]
    for code, meaning in _CODES.items():
        names = ", ".join(f"`{cls.__name__}`" for cls in causes.get(code, ()) if cls is not errors.EdgekitError)
        lines.append(f"| {code} | {meaning} | {names or '-'} |")
    lines += ["", "## Error types", "", "| type | exit code | meaning |", "| --- | --- | --- |"]
    for cls in classes:
        if cls is not errors.EdgekitError:
            lines.append(f"| `{cls.__name__}` | {cls.exit_code} | {_first_line(cls.__doc__)} |")
    return "\n".join(lines)


def _first_line(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def environment() -> str:
    """The environment variables. Raises Undocumented when the code and this list differ."""
    read = set(_variables_read())
    unknown = sorted(read - set(_VARIABLES) - _NOT_A_SETTING)
    stale = sorted(set(_VARIABLES) - read)
    if unknown or stale:
        raise Undocumented(
            "docs/_hooks/code_reference.py: environment variables that the code reads and nothing describes:"
            f" {unknown or 'none'}; described and not read: {stale or 'none'}"
        )
    from edgekit.workers.environment import Environment

    given = Environment().child_variables()
    missing = sorted(name for name in _FOR_WORKERS if name not in given)
    if missing:
        raise Undocumented(f"workers are no longer started with: {', '.join(missing)}")
    lines = [
        "| variable | meaning |",
        "| --- | --- |",
        *(f"| `{name}` | {text} |" for name, text in _VARIABLES.items()),
    ]
    lines += ["", "## Set for worker processes", "", "| variable | value | why |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {_value(given[name])} | {text} |" for name, text in _FOR_WORKERS.items()]
    return "\n".join(lines)


def _value(text: str) -> str:
    return f"`{text}`" if text else "(empty)"


# Functions that read environment variables, and how many of their first arguments are names of variables.
_READERS = {"os.environ.get": 1, "os.getenv": 1, "user_folder": 2}


def _variables_read() -> Iterator[str]:
    """Names that the package reads from the environment, given as a literal or as a constant of the module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value
            for node in module.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(module):
            arguments: Sequence[ast.AST | None] = ()
            if isinstance(node, ast.Call):
                arguments = node.args[: _READERS.get(ast.unparse(node.func), 0)]
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                arguments = [node.slice]
            for argument in arguments:
                literal = constants.get(argument.id) if isinstance(argument, ast.Name) else argument
                if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                    yield literal.value


def layers() -> str:
    """The contracts of import-linter, as pyproject.toml holds them."""
    with (REPOSITORY / "pyproject.toml").open("rb") as stream:
        contracts = tomllib.load(stream)["tool"]["importlinter"]["contracts"]
    lines = []
    for contract in contracts:
        lines += [f"**{contract['name']}**", ""]
        if contract["type"] == "layers":
            container = contract.get("containers", [""])[0]
            prefix = f"{container}." if container else ""
            lines += ["| | packages |", "| --- | --- |"]
            count = len(contract["layers"])
            lines += [
                f"| {count - index} | {', '.join(f'`{prefix}{name.strip()}`' for name in layer.split('|'))} |"
                for index, layer in enumerate(contract["layers"])
            ]
        elif contract["type"] == "forbidden":
            source = ", ".join(f"`{name}`" for name in contract["source_modules"])
            forbidden = ", ".join(f"`{name}`" for name in contract["forbidden_modules"])
            lines.append(f"{source} may not import {forbidden}, directly or through others.")
        else:
            lines.append(f"None of these imports another: {', '.join(f'`{name}`' for name in contract['modules'])}.")
        lines.append("")
    return "\n".join(lines)


def tolerances() -> str:
    """The default tolerances by precision."""
    from dataclasses import fields

    from edgekit.core.values.precisions import PRECISIONS
    from edgekit.core.values.tolerances import Tolerances

    names = [field.name for field in fields(Tolerances)]
    used = [name for name in names if any(name in row.tolerances.limits() for row in PRECISIONS)]
    lines = [
        f"| precision | {' | '.join(f'`{name}`' for name in used)} | because |",
        f"| --- |{' --- |' * len(used)} --- |",
    ]
    for row in PRECISIONS:
        limits = row.tolerances.limits()
        cells = [
            "-" if name not in limits else str(limits[name]) if name == "min_cosine" else f"{limits[name]:g}"
            for name in used
        ]
        lines.append(f"| `{row.name}` | {' | '.join(cells)} | {row.tolerance_reason} |")
    return "\n".join(lines)


def plugin_groups() -> str:
    """The kinds of plug-ins: entry-point group, attribute, contract, and the plug-ins that edgekit brings itself."""
    from edgekit.stages.doctor import KINDS

    lines = ["| entry-point group | attribute | contract | part of edgekit |", "| --- | --- | --- | --- |"]
    for kind in KINDS:
        own = [name for name in kind.names() if name not in kind.third_party_names()]
        contract = f"[`{kind.base.__name__}`][{kind.base.__module__}.{kind.base.__name__}]"
        names = ", ".join(f"`{name}`" for name in own)
        lines.append(f"| `{kind.group or kind.package}` | `{kind.attribute}` | {contract} | {names} |")
    return "\n".join(lines)


def contracts() -> str:
    """Directives for mkdocstrings: one for each contract of a kind of plug-in; of report formats the class alone."""
    from edgekit.contracts.report import ReportFormat
    from edgekit.stages.doctor import KINDS

    bases = [kind.base for kind in KINDS]
    paths = [f"{base.__module__}.{base.__name__}" if base is ReportFormat else base.__module__ for base in bases]
    return "\n\n".join(f"::: {path}" for path in paths)


def extras() -> str:
    """What can be installed beside edgekit. Raises Undocumented for an extra without a description."""
    from edgekit.core.environment.requirements import EXTRAS

    with (REPOSITORY / "pyproject.toml").open("rb") as stream:
        declared = tomllib.load(stream)["project"]["optional-dependencies"]
    texts = {**EXTRAS, **_OTHER_EXTRAS}
    unknown = sorted(set(declared) - set(texts))
    if unknown:
        raise Undocumented(f"extras of pyproject.toml without a description: {', '.join(unknown)}")
    lines = ["| extra | adds |", "| --- | --- |", *(f"| `{name}` | {texts[name]} |" for name in declared)]
    return "\n".join(lines)


_OTHER_EXTRAS = {
    "all": "everything above",
    "docs": "what builds this site (`make docs`)",
    "dev": "everything for work on edgekit itself: tests, linters, types",
}


def python_api() -> str:
    """Directives for mkdocstrings: one for each function of `edgekit.api`, and the session.

    Each of API_FUNCTIONS has to be there.
    """
    tree = ast.parse((PACKAGE / "api.py").read_text(encoding="utf-8"))
    public = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    missing = [name for name in API_FUNCTIONS if name not in public]
    if missing:
        raise Undocumented(f"edgekit.api has no {', '.join(missing)}")
    shown = [*API_FUNCTIONS, *(name for name in public if name not in API_FUNCTIONS)]
    return "\n\n".join([*(f"::: edgekit.api.{name}" for name in shown), "::: edgekit.session.Session"])

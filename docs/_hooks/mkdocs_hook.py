"""MkDocs hook: writes the reference pages from the code, and fails the build where something is undocumented."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]

import cli_reference  # noqa: E402
import code_reference  # noqa: E402
import key_reference  # noqa: E402
from undocumented import Undocumented  # noqa: E402

_CLI_FOLDER = "reference/cli/"
_API_PAGE = "reference/python-api.md"
_PLACEHOLDER = re.compile(r"^<!-- generated: ([\w. -]+) -->$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^\| .*", re.MULTILINE)

_SECTIONS: dict[str, Callable[[], str]] = {
    "edgekit.toml": lambda: key_reference.keys("edgekit.toml"),
    "model.toml": lambda: key_reference.keys("model.toml"),
    "device profile": lambda: key_reference.keys("device profile"),
    "recipe.json": lambda: key_reference.keys("recipe.json"),
    "records": key_reference.records,
    "exit codes": code_reference.exit_codes,
    "environment": code_reference.environment,
    "layers": code_reference.layers,
    "tolerances": code_reference.tolerances,
    "plug-in groups": code_reference.plugin_groups,
    "contracts": code_reference.contracts,
    "extras": code_reference.extras,
    "python api": code_reference.python_api,
}


def on_config(config: Any) -> Any:
    """Replace the entry of the CLI's folder in the navigation by its pages."""
    config.nav = _expand(config.nav)
    return config


def _expand(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_expand(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _expand(item) for title, item in nav.items()}
    return list(cli_reference.pages()) if nav == _CLI_FOLDER else nav


def on_files(files: Files, config: Any) -> Files:
    """Add one page for each command."""
    for path, content in cli_reference.pages().items():
        files.append(File.generated(config, path, content=_checked(content)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace `<!-- generated: NAME -->` by the section of that name, and keep figures and their units together."""
    text = _PLACEHOLDER.sub(lambda match: _section(match[1], page.file.src_uri), markdown)
    return _TABLE_ROW.sub(lambda match: re.sub(r"(?<=\d) (?=%|KB|MB|ms|s\b)", "\u00a0", match[0]), text)


def _section(name: str, page: str) -> str:
    if name not in _SECTIONS:
        raise PluginError(f"{page}: no generated section is called '{name}'; sections: {', '.join(_SECTIONS)}")
    return _checked(_SECTIONS[name])


def _checked(content: Callable[[], str]) -> str:
    try:
        return content()
    except Undocumented as error:
        raise PluginError(str(error)) from None

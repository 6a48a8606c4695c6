"""The `edgekit` command: one module per command. Only this package prints.

At import, these modules load only click and the standard library, so that `edgekit --help` starts fast.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from edgekit._version import __version__
from edgekit.cli._last_wall import last_wall, prepare_streams

_FOLDER = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs a tenth of the start-up time


class Commands(click.Group):
    """Command group that imports the module of a command when the command is used."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with last_wall():  # options such as --help print here
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with last_wall():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        files = os.listdir(_FOLDER)  # noqa: PTH208
        names = (name[:-3] for name in files if name.endswith(".py") and not name.startswith("_"))
        return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"edgekit.cli.{cmd_name}").command
        return command


# The order of a typical workflow, used by the help. Commands that are missing here are listed last.
_ORDER = [
    "init",
    "run",
    "gc",
    "train",
    "export",
    "validate",
    "compare",
    "diff",
    "matrix",
    "tune",
    "bench",
    "micro",
    "check",
    "report",
    "serve",
    "verify",
    "size",
    "inspect",
    "models",
    "targets",
    "devices",
    "doctor",
]


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 a check failed, 2 invalid input, 3 a dependency is missing, 4 a step crashed, 130"
    ' interrupted, 141 output closed. Shell completion: eval "$(_EDGEKIT_COMPLETE=bash_source edgekit)"',
)
@click.version_option(__version__, prog_name="edgekit")
def app() -> None:
    """Convert trained models for edge devices and verify that they still compute the same results.

    \b
    Example:
      edgekit train simple_cnn --framework both
      edgekit export simple_cnn --target tflite:int8 --target onnx
      edgekit validate
      edgekit bench --device raspberry-pi-4b
      edgekit check
    """


def main() -> None:
    """Run the command line; entry point of the console script."""
    prepare_streams()
    try:
        with last_wall():  # shell completion runs before any command
            app(prog_name="edgekit")
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        raise SystemExit(130) from None

"""Floor 4: the `edgekit` command. One file a command; the only place that prints.

This module and the command files import nothing but click and the standard library: `edgekit --help` must feel instant.
"""

from __future__ import annotations

import importlib
import os

import click

from edgekit._version import __version__

_FOLDER = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs a tenth of the start-up time


class Commands(click.Group):
    """The commands are the files of this folder; a file is imported when its command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        files = os.listdir(_FOLDER)  # noqa: PTH208
        names = (name[:-3] for name in files if name.endswith(".py") and not name.startswith("_"))
        return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"edgekit.cli.{cmd_name}").command
        return command


# Help lists the commands in the order of a day's work; a file that is not named here comes after them.
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
    "check",
    "report",
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
    epilog="Exit codes: 0 good, 1 a check failed, 2 bad input, 3 something is not installed, 4 a step crashed, 130"
    ' interrupted. Shell completion: eval "$(_EDGEKIT_COMPLETE=bash_source edgekit)"',
)
@click.version_option(__version__, prog_name="edgekit")
def app() -> None:
    """Take a trained model to the devices it must run on, and prove that it arrived whole.

    \b
    Example:
      edgekit train simple_cnn --framework both
      edgekit export simple_cnn --target tflite:int8 --target onnx
      edgekit validate
      edgekit bench --device raspberry-pi-4b
      edgekit check
    """


def main() -> None:
    """The console script."""
    try:
        app(prog_name="edgekit")
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        raise SystemExit(130) from None

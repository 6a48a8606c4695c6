"""The invocation of a command: its common options, its output, and how its errors end it."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._last_wall import EXIT_PIPE_CLOSED, discard_stdout, flush_stdout, from_exception

if TYPE_CHECKING:
    from edgekit.contracts.report import ReportFormat
    from edgekit.core.environment.project import Project
    from edgekit.stages.context import Context


_log = logging.getLogger("edgekit")


class CommandSession:
    """Invocation of a command, with its common options.

    Attributes:
        root: Project folder.
        as_json: Whether the result is printed as JSON.
        verbosity: -1 with --quiet, 0 by default, 1 with --verbose.
    """

    def __init__(self, root: Path, as_json: bool, verbosity: int) -> None:
        self.root = root
        self.as_json = as_json
        self.verbosity = verbosity

    @property
    def project(self) -> Project:
        """The project in the folder of --root."""
        from edgekit.core.environment.project import open_project

        return open_project(self.root)

    @contextmanager
    def context(self, timeout_s: float = 600.0, workers: int | None = None) -> Iterator[Context]:
        """Open a context for stages, with a worker pool and a listener that prints events to stderr.

        Args:
            timeout_s: Time limit of one call to a worker, in seconds.
            workers: Maximum number of idle workers; None for the pool's default.

        Yields:
            The context; its workers end with the block.
        """
        from edgekit.cli._progress import Watcher
        from edgekit.stages.context import Context
        from edgekit.workers.pool import WorkerPool

        with WorkerPool(timeout_s=timeout_s, limit=workers) as pool, Watcher(self.verbosity) as watcher:
            context = Context(self.project, pool, watcher)
            try:
                yield context
            finally:
                context.close()

    def print_result(self, data: Any, text: str | Callable[[], str]) -> None:
        """Print the result of the command to stdout.

        Args:
            data: Printed as a JSON document with --json.
            text: Printed otherwise; a function is called only then.
        """
        from edgekit.core.escape import json_text, terminal

        if self.as_json:
            click.echo(json_text(json.dumps(data, indent=2, allow_nan=False, default=str)))
        else:
            click.echo(terminal(text() if callable(text) else text, styled=self.color), nl=False)

    def print_report(self, report_format: ReportFormat, text: str) -> None:
        """Print a report to stdout. The formats escape names themselves; only what a log would read is left to do.

        Args:
            report_format: The format.
            text: The report.
        """
        from edgekit.core.escape import json_text, terminal

        if report_format.suffix == ".json":
            text = json_text(text)
        elif report_format.name == "console":
            text = terminal(text, styled=self.color)
        click.echo(text, nl=False)

    @property
    def color(self) -> bool:
        """Whether stdout is a terminal."""
        return sys.stdout.isatty()


def _terminate(_number: int, _frame: object) -> None:
    from edgekit.core.errors import Interrupted

    raise Interrupted("terminated")


def common_options(function: Callable[..., int | None]) -> Callable[..., None]:
    """Add the common options to a command, and turn its errors into messages and exit codes.

    Args:
        function: Function that receives a `CommandSession` as its first argument and returns the exit code; None is 0.

    Returns:
        The function to decorate with `click.command`.
    """

    @click.option(
        "--root", type=click.Path(path_type=Path), default=".", help="Project folder (default: the current folder)."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only results, warnings and errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more details, and the stderr of failed workers.")
    @click.option(
        "--log-file",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Append one line for each decision to this file: route, fallback, cache, workers. With -v also details.",
    )
    @functools.wraps(function)
    def wrapper(root: Path, as_json: bool, quiet: bool, verbose: bool, log_file: Path | None, **arguments: Any) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            return  # a group: its subcommand prints the result and inherits these options
        outer = context.parent.params if context.parent else {}
        session = CommandSession(
            root if root != Path() else outer.get("root", root),
            as_json or outer.get("as_json", False),
            (verbose or outer.get("verbose", False)) - (quiet or outer.get("quiet", False)),
        )
        log_file = log_file or outer.get("log_file")
        name = context.command_path.partition(" ")[2]
        context.exit(
            _guarded(session, lambda: _logged(session, log_file, name, lambda: function(session, **arguments)))
        )

    return wrapper


def _guarded(session: CommandSession, function: Callable[[], int | None]) -> int:
    from edgekit.workers import scratch

    with _terminable():
        try:
            # By each command: one that finds everything up to date starts no worker.
            scratch.collect_once()
            code = function() or 0
            flush_stdout()
            return code
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            discard_stdout()
            return EXIT_PIPE_CLOSED
        except Exception as error:  # noqa: BLE001 - no exception but ours leaves a command
            typed = from_exception(error)
            with suppress(OSError):  # stdout may be what failed
                print_error(typed, session)
                flush_stdout()
            if isinstance(error, OSError):
                discard_stdout()
            return typed.exit_code
        except KeyboardInterrupt:
            _log.debug("interrupted", exc_info=True)
            click.echo("Interrupted: no partially written files remain.", err=True)
            return 130


def _logged(session: CommandSession, log_file: Path | None, name: str, function: Callable[[], int | None]) -> int:
    """Run a command; with a log file, write its start, its decisions and its end there."""
    if log_file is None:
        return function() or 0
    from edgekit._version import __version__
    from edgekit.core.errors import EdgekitError
    from edgekit.core.logs import log_to_file, parse_level

    def warn(error: OSError) -> None:
        click.echo(f"warning --log-file: {error.strerror or error}; nothing more is logged", err=True)

    level = parse_level(os.environ.get("EDGEKIT_LOG_LEVEL") or ("debug" if session.verbosity > 0 else "info"))
    with log_to_file(log_file, level, session.root, warn):
        _log.info("edgekit %s, Python %s: %s starts", __version__, sys.version.partition(" ")[0], name)
        try:
            code = function() or 0
        except EdgekitError as error:
            _log.error("%s: %s", type(error).__name__, error)
            _log.info("%s ends with exit code %d", name, error.exit_code)
            raise
        except BaseException as error:
            _log.error("%s ends by %s", name, type(error).__name__)
            raise
        _log.info("%s ends with exit code %d", name, code)
        return code


@contextmanager
def _terminable() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C within the block."""
    try:
        before = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # handlers can be set only in the main thread: the command was called as a function
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Options that are not spelled like the arguments of `edgekit.api`.
_OPTIONS = {
    "dims": "--dim",
    "inputs": "--input",
    "fixed": "--fix",
    "pairs": "--pair",
    "ranges": "--range",
    "preset": "--for",
}


def option_hint(parameters: Sequence[str]) -> str:
    """Return the options for arguments of `edgekit.api`, to be appended to a message.

    Args:
        parameters: The names of the arguments.

    Returns:
        Text such as ` (see --sample, --calibration)`; empty without parameters.
    """
    options = [_OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in parameters]
    return f" (see {', '.join(options)})" if options else ""


def print_error(error: Any, session: CommandSession) -> None:
    """Print an error.

    Args:
        error: An `EdgekitError`; its message goes to stderr, with --verbose followed by the worker's last lines.
        session: With --json, the error is also printed to stdout as a JSON document.
    """
    from edgekit.core.escape import json_text, terminal, visible

    click.echo(f"Error: {visible(str(error))}{option_hint(error.parameters)}", err=True)
    tail = getattr(error, "stderr_tail", "")
    if tail and session.verbosity > 0:
        click.echo(terminal(tail), err=True)
    if session.as_json:
        data = {"error": {**error.to_dict(), "exit_code": error.exit_code}}
        click.echo(json_text(json.dumps(data, indent=2, sort_keys=True)))

"""The log: standard `logging` below the logger `edgekit`, written to a file that holds nothing private.

Modules log decisions through `logging.getLogger(__name__)`. Nothing is written unless a handler is installed, as by
--log-file. Records of worker processes travel to the command as `LogEvent` events and are handled by its loggers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from edgekit.core.errors import InputError
from edgekit.core.events import Event, FailEvent, FinishEvent, Listener, LogEvent, NoteEvent, StartEvent

ROOT_LOGGER = "edgekit"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# A converter's error may hold a whole graph.
_MAX_CHARACTERS = 2000

_root = logging.getLogger(ROOT_LOGGER)
# Without a handler, logging prints warnings to stderr, where the command prints them already.
_root.addHandler(logging.NullHandler())

_log = logging.getLogger(__name__)
_step: ContextVar[str] = ContextVar("edgekit_step", default="")


@contextlib.contextmanager
def log_step(step: str) -> Iterator[None]:
    """Name the step that the records of this thread belong to, within the block."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def _step_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "step", "") or _step.get())


class _LoggedListener:
    """Listener that logs events before it passes them on."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __call__(self, event: Event) -> None:
        _log_event(event)
        self._listener(event)


def logged(listener: Listener) -> Listener:
    """Return a listener that also logs the start, the notes and the end of steps."""
    return listener if isinstance(listener, _LoggedListener) else _LoggedListener(listener)


def _log_event(event: Event) -> None:
    extra = {"step": event.step}
    if isinstance(event, StartEvent):
        _log.info("started", extra=extra)
    elif isinstance(event, FinishEvent):
        _log.info("finished: %s", event.detail or "no details", extra=extra)
    elif isinstance(event, FailEvent):
        _log.error("failed: %s", event.detail, extra=extra)
    elif isinstance(event, NoteEvent):
        _log.log(logging.WARNING if event.warning else logging.INFO, "%s", event.detail, extra=extra)


class EventHandler(logging.Handler):
    """Handler of a worker: sends each record to the command as a `LogEvent` event."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(LogEvent(_step_of(record), record.levelno, record.name, record.getMessage(), record.created))


@contextlib.contextmanager
def forwarded(step: str, level: int, send: Callable[[Event], None]) -> Iterator[None]:
    """Send the records of this process to the command within the block.

    Args:
        step: The step's name.
        level: The lowest level that the command logs.
        send: Sends an event to the command.
    """
    handler = EventHandler(send)
    before = _root.level
    _root.setLevel(level)
    _root.addHandler(handler)
    try:
        with log_step(step):
            yield
    finally:
        _root.removeHandler(handler)
        _root.setLevel(before)


def effective_level() -> int:
    """Return the lowest level that is logged, for workers."""
    return _root.getEffectiveLevel()


def replay(event: LogEvent) -> None:
    """Handle the record of a worker as if it had been logged here."""
    logger = logging.getLogger(event.logger)
    # The name comes from another process: only edgekit's own loggers are known here.
    if event.logger.partition(".")[0] != ROOT_LOGGER or not logger.isEnabledFor(event.level):
        return
    record = logger.makeRecord(event.logger, event.level, "", 0, event.message, (), None, extra={"step": event.step})
    record.created, record.msecs = event.created, event.created % 1 * 1000
    logger.handle(record)


# Scheme, credentials, the rest up to a query.
_URL = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/@'\"]*@)?([^\s?#'\"]*)([?#][^\s'\"]*)?")
# An absolute path; not the path of a URL, not the fraction 1/2.
_PATH = re.compile(r"(?<![\w.:/~>-])/[^\s'\",;:()\[\]]*[^\s'\",;:()\[\].]")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)(KEY|AUTH|PAT|PWD)(_|$)", re.IGNORECASE)
# A shorter value, such as "1", would replace parts of ordinary words.
_MIN_SECRET = 6


class Redactor:
    """Removes from a text what is private: folders outside the project, credentials in URLs, secrets of variables."""

    def __init__(self, root: Path, variables: Mapping[str, str]) -> None:
        """Prepare the replacements.

        Args:
            root: Project folder; paths below it are written relative to it.
            variables: Environment variables. The values of those whose names say that they are secret are removed.
        """
        replacements: dict[str, str] = {}
        for folder, name in (
            (tempfile.gettempdir(), "<temporary>"),
            (variables.get("HOME") or str(Path("~").expanduser()), "<home>"),
        ):
            for text in {str(Path(folder).absolute()), os.path.realpath(folder)} - {"/"}:
                replacements[text] = name
        for text in {str(root.absolute()), os.path.realpath(root)} - {"/"}:
            replacements[text] = "."
        secrets = [
            value for name, value in variables.items() if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET
        ]
        self._secrets = sorted(secrets, key=len, reverse=True)
        # The longest first: the project may be in the home folder.
        self._folders = [
            (re.compile(rf"(?<![\w.-]){re.escape(text)}(?=/|\W|$)(?![.-]\w)"), name)
            for text, name in sorted(replacements.items(), key=lambda item: -len(item[0]))
        ]

    def __call__(self, text: str) -> str:
        """Return the text without what is private."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _URL.sub(_without_credentials, text)
        for pattern, name in self._folders:
            text = pattern.sub(name, text)
        text = re.sub(r"(?<![\w./])\./", "", text)
        # What is left is a path outside all known folders: its last part says what it is.
        return _PATH.sub(lambda match: f"<outside>/{match[0].rpartition('/')[2]}", text)


def _without_credentials(match: re.Match[str]) -> str:
    start, rest, query = match[1], match[2], match[3] or ""
    if start.lower() == "file://":
        return rest + query  # a path like any other
    return f"{start}{rest}{query and query[0] + '***'}"


def escape_controls(text: str) -> str:
    """Return the text in one line, with escapes for what is not printable: control characters, surrogates."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


class _LineFormatter(logging.Formatter):
    """One line a record: time (UTC), level, logger, step in brackets, message."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            message += f" ({record.exc_info[0].__name__})"  # a traceback has many lines, with paths
        text = escape_controls(self._redact(f"[{_step_of(record) or '-'}] {message}"))
        if len(text) > _MAX_CHARACTERS:
            text = text[:_MAX_CHARACTERS] + "…"
        return f"{moment}.{int(record.msecs):03d}Z {record.levelname} {record.name} {text}"


class _FileHandler(logging.Handler):
    """Appends each record with one write, so that a crash loses nothing and two commands can share the file."""

    def __init__(self, fd: int, on_error: Callable[[OSError], None]) -> None:
        super().__init__()
        self._fd = fd
        self._on_error = on_error
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._failed:
            return
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:  # a full disk or a closed pipe: the command goes on without its log
            self._failed = True
            self._on_error(error)

    def close(self) -> None:
        os.close(self._fd)
        super().close()


def parse_level(name: str) -> int:
    """Return the level of a name such as `debug`.

    Raises:
        InputError: There is no such level; the message lists all of them.
    """
    if name.lower() not in LEVELS:
        raise InputError(f"EDGEKIT_LOG_LEVEL: '{escape_controls(name)}' is not a level; use one of {', '.join(LEVELS)}")
    return LEVELS[name.lower()]


def _open(path: Path) -> int:
    try:
        # O_NONBLOCK: a FIFO that nobody reads would block here for ever; it is refused instead.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        message = f"--log-file: cannot open {escape_controls(str(path))}: {reason}; name a file that can be written"
        raise InputError(message) from None
    if stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.set_blocking(fd, True)
    return fd


@contextlib.contextmanager
def log_to_file(path: Path, level: int, root: Path, on_error: Callable[[OSError], None]) -> Iterator[None]:
    """Append the records of edgekit's loggers to a file within the block.

    Args:
        path: The file, which is created if it is missing.
        level: The lowest level that is written.
        root: Project folder.
        on_error: Receives the error after which nothing more is written.

    Raises:
        InputError: The file cannot be opened.
    """
    handler = _FileHandler(_open(path), on_error)
    handler.setFormatter(_LineFormatter(Redactor(root, os.environ)))
    before = _root.level
    _root.addHandler(handler)
    _root.setLevel(level)
    try:
        yield
    finally:
        _root.removeHandler(handler)
        _root.setLevel(before)
        handler.close()

"""The log file: what a line holds, what it never holds, and what happens when it cannot be written."""

from __future__ import annotations

import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.core.errors import InputError
from edgekit.core.events import FailEvent, FinishEvent, LogEvent, NoteEvent, StartEvent
from edgekit.core.logs import (
    Redactor,
    escape_controls,
    log_step,
    log_to_file,
    logged,
    parse_level,
    replay,
)

LOG = logging.getLogger("edgekit.example")
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) edgekit[.\w]* \[[^\]]*\] .*")


@contextmanager
def opened(path: Path, level: int = logging.INFO, root: Path = Path("/project")) -> Iterator[list[OSError]]:
    errors: list[OSError] = []
    with log_to_file(path, level, root, errors.append):
        yield errors


def test_a_line_has_time_level_logger_and_step(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    with opened(file):
        LOG.info("route %s", "onnx -> tflite", extra={"step": "export a/onnx tflite:float32"})
        with log_step("validate a"):
            LOG.warning("100 % done")
        LOG.error("over")
        LOG.debug("too fine")
    lines = file.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line.partition("Z ")[2] for line in lines] == [
        "INFO edgekit.example [export a/onnx tflite:float32] route onnx -> tflite",
        "WARNING edgekit.example [validate a] 100 % done",
        "ERROR edgekit.example [-] over",
    ]


def test_lines_are_appended_and_nothing_is_written_after_the_block(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    for text in ("first", "second"):
        with opened(file):
            LOG.info(text)
    LOG.warning("third")
    assert [line.rpartition(" ")[2] for line in file.read_text().splitlines()] == ["first", "second"]


def test_events_of_steps_are_logged_and_passed_on_once(tmp_path: Path) -> None:
    events = [
        StartEvent("s"),
        NoteEvent("s", "careful", warning=True),
        FinishEvent("s", "3 KB"),
        FailEvent("t", "t: no"),
    ]
    passed: list[object] = []
    listener = logged(logged(passed.append))
    with opened(tmp_path / "log.txt"):
        for event in events:
            listener(event)
    assert passed == events
    told = [line.partition("Z ")[2].split(" ", 2) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [(level, text) for level, _, text in told] == [
        ("INFO", "[s] started"),
        ("WARNING", "[s] careful"),
        ("INFO", "[s] finished: 3 KB"),
        ("ERROR", "[t] failed: t: no"),
    ]


def test_a_record_of_a_worker_keeps_its_time_and_only_edgekits_loggers_are_replayed(tmp_path: Path) -> None:
    with opened(tmp_path / "log.txt"):
        replay(LogEvent("s", logging.INFO, "edgekit.job", "100 %s", 0.5))
        replay(LogEvent("s", logging.ERROR, "root.cause", "no", 0.5))
        replay(LogEvent("s", logging.DEBUG, "edgekit.job", "no", 0.5))
    assert (tmp_path / "log.txt").read_text() == "1970-01-01T00:00:00.500Z INFO edgekit.job [s] 100 %s\n"


HOSTILE = "\x1b]0;owned\x07\r\n::error::\u2028x\x9b31m\udcff"


def test_a_message_stays_in_one_line_without_control_characters(tmp_path: Path) -> None:
    with opened(tmp_path / "log.txt"):
        LOG.info("name %s", HOSTILE, extra={"step": f"export {HOSTILE}"})
    content = (tmp_path / "log.txt").read_text()
    assert content.count("\n") == 1
    assert content.rstrip("\n").isprintable()
    assert "\\x1b]0;owned\\x07\\r\\n::error::\\u2028x\\x9b31m\\udcff" in content


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    with opened(tmp_path / "log.txt"):
        LOG.info("x" * 1_000_000)
    assert len((tmp_path / "log.txt").read_text()) < 3000


def test_an_exception_is_named_without_its_traceback(tmp_path: Path) -> None:
    with opened(tmp_path / "log.txt"):
        try:
            raise ValueError("secret sample")
        except ValueError:
            LOG.info("stopped", exc_info=True)
    content = (tmp_path / "log.txt").read_text()
    assert content.endswith("stopped (ValueError)\n")
    assert content.count("\n") == 1


VARIABLES = {"HOME": "/home/alice", "API_TOKEN": "hunter2-hunter2", "TERM": "xterm-colour", "MY_KEY": "1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wrote /home/alice/work/build/a/model.onnx", "wrote build/a/model.onnx"),
        ("in /home/alice/work", "in ."),
        ("read /home/alice/private/b.npz: no", "read <home>/private/b.npz: no"),
        ("read /home/alice/workshop/b.npz", "read <home>/workshop/b.npz"),
        ("read /home/bob/b.npz", "read <outside>/b.npz"),
        ("cannot read '/srv/data/x y.npz'", "cannot read '<outside>/x y.npz'"),
        ("at https://alice:pw@host:80/a/b?sig=1#x", "at https://host:80/a/b?***"),
        ("at postgresql://u:p@db/x", "at postgresql://db/x"),
        ("at file:///home/alice/runs", "at <home>/runs"),
        ("header hunter2-hunter2 sent, xterm-colour, 1 of 2", "header *** sent, xterm-colour, 1 of 2"),
        ("export a/keras tflite:int8: 1/2, 3 MB/s", "export a/keras tflite:int8: 1/2, 3 MB/s"),
        ("tcp://10.0.0.5:8786 answers", "tcp://10.0.0.5:8786 answers"),
    ],
)
def test_what_is_private_is_removed(text: str, expected: str) -> None:
    assert Redactor(Path("/home/alice/work"), VARIABLES)(text) == expected


def test_the_folder_for_temporary_files_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Redactor(Path("/home/alice"), {})(f"in {tmp_path}/edgekit-1/x") == "in <temporary>/edgekit-1/x"


@pytest.mark.parametrize("kind", ["folder", "missing", "not a folder", "fifo", "null"])
def test_a_path_that_cannot_be_opened_is_refused(kind: str, tmp_path: Path) -> None:
    path = {"folder": tmp_path, "missing": tmp_path / "no" / "log", "not a folder": tmp_path / "file" / "log",
            "fifo": tmp_path / "fifo", "null": tmp_path / "a\0b"}[kind]  # fmt: skip
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match=r"--log-file: cannot open .*; name a file that can be written"), opened(path):
        pass


def test_a_device_is_written_to_and_stays_a_device() -> None:
    with opened(Path(os.devnull)):
        LOG.info("x")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_full_disk_is_told_once_and_ends_the_log_only(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with opened(Path("/dev/full")) as errors:
        LOG.info("x")
        LOG.info("y")
    assert [error.strerror for error in errors] == ["No space left on device"]


def test_lines_before_a_crash_are_in_the_file(tmp_path: Path) -> None:
    code = """
import logging, os, sys
from pathlib import Path
from edgekit.core.logs import log_to_file
with log_to_file(Path(sys.argv[1]), logging.INFO, Path(), print):
    logging.getLogger("edgekit.example").info("last words")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log.txt")], check=False)
    assert (tmp_path / "log.txt").read_text().endswith("last words\n")


def test_without_a_log_file_nothing_is_printed() -> None:
    code = "import logging, edgekit.core.logs; logging.getLogger('edgekit.example').error('x')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_an_unknown_level_is_refused() -> None:
    assert parse_level("WARNING") == logging.WARNING
    with pytest.raises(InputError, match="EDGEKIT_LOG_LEVEL: 'loud' is not a level; use one of debug, info"):
        parse_level("loud")


def test_escapes_leave_other_scripts_readable() -> None:
    assert escape_controls("模型 größe\t") == "模型 größe\\t"


def test_the_file_is_closed_after_the_block(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else None
    with opened(tmp_path / "log.txt"):
        pass
    assert before is None or len(list(Path("/proc/self/fd").iterdir())) == before

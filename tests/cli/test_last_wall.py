"""No exception but ours leaves a command: full and closed outputs, other encodings, and unexpected errors."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _helpers.recorded_project import make_project
from _helpers.support import call

from edgekit.cli import _last_wall
from edgekit.core.environment import user_cache
from edgekit.core.errors import DiskFull, InputError, InternalError, StepFailed, StepOutOfMemory

EDGEKIT = (sys.executable, "-P", "-m", "edgekit")


def shell(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell; `edgekit` in the text stands for it."""
    script = words.replace("edgekit", " ".join(EDGEKIT))
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, errors="replace", env={**os.environ, **environment}
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["models", "models --json", "targets", "--help", "check --help", "--version"])
def test_a_reader_that_leaves_early_is_exit_141_without_a_word(arguments: str) -> None:
    done = shell(f"{{ sleep 0.1; edgekit {arguments}; echo code $? >&2; }} | true")
    assert done.stderr.splitlines() == ["code 141"]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["models", "models --json", "report --help"])
def test_a_full_output_is_exit_4_and_one_sentence(arguments: str) -> None:
    done = shell(f"edgekit {arguments} > /dev/full")
    assert done.returncode == 4
    assert done.stderr == "Error: cannot write to standard output: no space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["models", "models --json", "targets"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_change_no_exit_code(arguments: str, closed: str) -> None:
    done = shell(f"edgekit {arguments} {closed}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_failed_check_with_a_closed_output_is_still_exit_1(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    (folder / "validation.json").unlink()
    assert shell(f"edgekit check --root {tmp_path} >&-").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_an_output_in_another_encoding_is_printed(tmp_path: Path, encoding: str) -> None:
    make_project(tmp_path)
    done = shell(f"edgekit report --root {tmp_path}", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "net" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "inspect", "export", "models show", "report --output", "verify"])
def test_bytes_that_are_no_utf8_in_an_argument_are_exit_2(tmp_path: Path, command: str) -> None:
    done = shell(f"cd {tmp_path}; edgekit {command} $'a\\xff/b'")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4  # click prints its usage


@pytest.mark.parametrize("command", ["check", "inspect", "validate", "verify", "size", "diff"])
def test_a_name_that_is_too_long_is_exit_2(tmp_path: Path, command: str) -> None:
    answer = call(*command.split(), "n" * 300, *([] if command in ("verify",) else ["--root", tmp_path]))
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1


@pytest.mark.slow
def test_a_project_whose_path_is_no_utf8_can_be_reported(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    make_project(root)
    for options in (("check",), ("verify",), ("report", "--json"), ("report", "--format", "markdown")):
        output = ("--output", root / "report.md") if options[-1] == "markdown" else ()
        done = subprocess.run(
            [*EDGEKIT, *options, *output, "--root", root], capture_output=True, text=True, errors="replace"
        )
        assert (done.returncode, done.stderr) == (0, ""), options


def test_deep_toml_is_exit_2(tmp_path: Path) -> None:
    for text in (f"a = {'[' * 5000}{']' * 5000}", f"{'a.' * 5000}b = 1", f"[{'a.' * 5000}b]", "a = " + "{b=" * 5000):
        (tmp_path / "edgekit.toml").write_text(text + "\n")
        answer = call("run", "--root", tmp_path)
        assert answer.code == 2
        assert "edgekit.toml: this pipeline is not valid TOML" in answer.err


# --- unexpected errors


@pytest.fixture
def unexpected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Break a function that commands call; return the cache folder."""
    from edgekit.core.environment import project

    def fail(root: Path) -> None:
        raise KeyError(f"surprise \ud800 in {root.name}\nand a second line")

    monkeypatch.setattr(project, "open_project", fail)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_unexpected_error_is_exit_4_with_a_private_log(unexpected: Path) -> None:
    answer = call("check")
    assert answer.code == 4
    assert len(answer.err.splitlines()) == 1
    (log,) = (unexpected / "logs").iterdir()
    assert f"please report it: the details are in {log}" in answer.err
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "Traceback (most recent call last)" in log.read_text()
    assert "surprise" in log.read_text()


def test_an_unexpected_error_with_json_is_a_document(unexpected: Path) -> None:
    answer = call("check", "--json")
    assert answer.code == 4
    assert answer.data["error"]["type"] == "InternalError"
    assert Path(answer.data["error"]["log"]).is_file()


def test_without_a_cache_the_log_is_in_the_temporary_folder(unexpected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unexpected.write_text("no folder")
    answer = call("check", "--json")
    assert answer.code == 4
    log = Path(answer.data["error"]["log"])
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    log.unlink()


def test_only_the_latest_logs_are_kept(unexpected: Path) -> None:
    for _ in range(25):
        assert call("check").code == 4
    assert len(list((unexpected / "logs").iterdir())) == 20


def test_an_error_outside_of_a_command_is_caught_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "edgekit.cli.check", None)  # its import fails
    answer = call("check")
    assert answer.code == 4
    assert "please report it" in answer.err


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (InputError("x"), InputError, "x"),
        (OSError(errno.EACCES, "Permission denied", "/a"), InputError, "cannot read or write /a: permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", b"/a\xff"), InputError, "cannot read or write /a"),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), DiskFull, "cannot write /a: no space left on device"),
        (OSError(errno.EMFILE, "Too many open files", "/a"), StepFailed, "the system refuses what this command needs"),
        (MemoryError(), StepOutOfMemory, "this command needs more memory than there is"),
        (RecursionError("deep"), InternalError, "unexpected error (RecursionError: deep)"),
    ],
    ids=str,
)
def test_errors_of_the_system_become_typed_ones(
    error: Exception, kind: type, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    typed = _last_wall.from_exception(error)
    assert type(typed) is kind
    assert str(typed).startswith(sentence)


def test_a_lock_that_the_file_system_refuses_is_exit_2(tmp_path: Path) -> None:
    # A pipe stands for a file system without locks only by its error: a descriptor without a file cannot be locked.
    path = os.open(tmp_path, os.O_PATH)

    class Stream:
        def fileno(self) -> int:
            return path

    stream: Any = Stream()
    with pytest.raises(InputError, match=f"cannot lock {tmp_path}: bad file descriptor; use a folder"):
        user_cache.lock_exclusively(stream, tmp_path)
    os.close(path)


def test_a_lock_that_another_process_holds_is_not_an_error(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        user_cache.lock_exclusively(first, tmp_path)
        with pytest.raises(BlockingIOError):
            user_cache.lock_exclusively(second, tmp_path, fcntl.LOCK_NB)


def test_a_surrogate_in_a_record_is_refused(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "notes": ["\ud800"]}))
    answer = call("inspect", folder)
    assert answer.code == 2
    assert "notes[0]: must be a text without lone surrogates" in answer.err

"""Files that the user names for output: links stay links, and devices and FIFOs are written to, not replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from _helpers.support import call, spawn

CARD = ("models", "card", "linear", "--output")
TITLE = "# linear\n"


@pytest.mark.slow
def test_dev_stdout_gets_the_text_in_a_pipe(tmp_path: Path) -> None:
    out, err = spawn(*CARD, "/dev/stdout", "--root", tmp_path).communicate()
    assert out.startswith(TITLE), err
    assert out.endswith("/dev/stdout\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_dev_stdout_gets_the_text_in_a_file_after_what_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    output = tmp_path / "out.txt"
    with output.open("w") as stream:
        stream.write("before\n")
        stream.flush()
        command = [sys.executable, "-P", "-m", "edgekit", *CARD, name]
        subprocess.run(command, cwd=tmp_path, stdout=stream, check=True, timeout=120)
    text = output.read_text()
    assert text.startswith(f"before\n{TITLE}")
    assert text.endswith(f"|\n{name}\n")
    assert (tmp_path / "link").readlink() == Path("/dev/stdout")


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_text()))
    reader.start()
    answer = call(*CARD, fifo, "--root", tmp_path)
    reader.join()
    assert answer.code == 0, answer.err
    assert received[0].startswith(TITLE)
    assert fifo.is_fifo()


def test_a_device_is_written_to(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # not the machine's own: a failure would replace it
        device.write_text("x")
    except PermissionError:
        pytest.skip("creating a device needs rights that this user does not have")
    answer = call(*CARD, device, "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert device.is_char_device()
    assert list(tmp_path.iterdir()) == [device]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link_to_the_new_file(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "card.md"
    if exists:
        target.write_text("old")
        before = target.stat().st_ino
    (tmp_path / "link").symlink_to("elsewhere/card.md")
    answer = call(*CARD, tmp_path / "link", "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert (tmp_path / "link").readlink() == Path("elsewhere/card.md")
    assert target.read_text().startswith(TITLE)
    assert not exists or target.stat().st_ino != before  # it was replaced, as every file is


@pytest.mark.parametrize("target", [".", "loop"])
def test_a_link_to_a_folder_or_to_itself_is_one_sentence(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)
    answer = call(*CARD, tmp_path / "loop", "--root", tmp_path)
    assert answer.code == 2
    assert (tmp_path / "loop").is_symlink()
    assert list(tmp_path.iterdir()) == [tmp_path / "loop"]

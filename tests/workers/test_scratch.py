"""The folders of workers: what a killed process leaves is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.support import spawn

from edgekit.core.environment.process_identity import own_process
from edgekit.workers import scratch

PROGRAM = """
import sys
from edgekit.workers.environment import Environment
from edgekit.workers.process import Child
child = Child(["platform"], Environment())
print(child._scratch, flush=True)
sys.stdin.read()
"""
ENDED = 2**22 + 1  # above the largest process id that Linux can give


def age(path: Path, seconds: float = 3600.0) -> None:
    status = path.lstat()
    os.utime(path, (status.st_atime, status.st_mtime - seconds), follow_symlinks=False)


def start(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def named(process: int | str) -> str:
    return f"edgekit-worker-{scratch._namespace()}-{process}-abc_123"


def test_the_next_process_removes_what_a_killed_one_has_left(tmp_path):
    first, left = start(tmp_path)
    assert left.parent == tmp_path
    assert scratch.collect(tmp_path) == ()  # its process is alive
    kill(first)
    assert left.is_dir()
    assert scratch.collect(tmp_path) == ()  # its workers may still be ending
    age(left)
    second, _ = start(tmp_path)
    kill(second)
    assert not left.exists()


def test_a_command_that_starts_no_worker_removes_them_too(tmp_path):
    left = tmp_path / named(ENDED)
    left.mkdir()
    age(left)
    process = spawn("devices", "--json", "--root", tmp_path, env={"TMPDIR": str(tmp_path)})
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not left.exists()


def test_a_live_process_keeps_its_folder_however_old(tmp_path):
    folder = tmp_path / named(os.getpid())
    folder.mkdir()
    age(folder)
    assert scratch.collect(tmp_path) == ()
    assert folder.is_dir()


def test_a_process_that_was_given_the_id_of_a_killed_one_does_not_keep_its_folder(tmp_path):
    own, left = tmp_path / named(own_process()), tmp_path / named(f"{os.getpid()}.1")
    for folder in (own, left):
        folder.mkdir()
        age(folder)
    assert scratch.collect(tmp_path) == (left,)
    assert own.is_dir()


def test_links_files_and_other_names_are_kept(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    link, file = temporary / named(ENDED), temporary / named(ENDED + 1)
    link.symlink_to(precious, target_is_directory=True)
    file.write_text("x")
    others = [temporary / name for name in ("edgekit-worker-abc", f"edgekit-worker-0-{ENDED}-x", f"x{named(ENDED)}")]
    for folder in others:
        folder.mkdir()
    for path in (link, file, *others):
        age(path)
    assert scratch.collect(temporary) == ()
    assert link.is_symlink()
    assert file.is_file()
    assert (precious / "file").read_text() == "x"
    assert all(folder.is_dir() for folder in others)


def test_a_link_inside_an_abandoned_folder_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    temporary = tmp_path / "tmp"
    abandoned = temporary / named(ENDED)
    abandoned.mkdir(parents=True)
    (abandoned / "link").symlink_to(precious, target_is_directory=True)
    age(abandoned)
    assert scratch.collect(temporary) == (abandoned,)
    assert not abandoned.exists()
    assert (precious / "file").read_text() == "x"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_folders_of_other_users_are_kept(tmp_path):
    folder = tmp_path / named(ENDED)
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    age(folder)
    assert scratch.collect(tmp_path) == ()
    assert folder.is_dir()


INTERRUPTED = """
import os, sys
from edgekit.core.environment.process_identity import own_process
from edgekit.workers import scratch
print(scratch.create(), flush=True)
if os.fork() == 0:
    sys.exit()  # a forked child removes nothing
os.wait()
print(len(os.listdir(sys.argv[1])), flush=True)
"""


def test_a_folder_that_nobody_knows_is_removed_at_the_exit(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    folder, count = done.stdout.split()
    assert (Path(folder).parent, count) == (tmp_path, "1")
    assert not list(tmp_path.iterdir())


def test_a_run_that_starts_no_worker_removes_what_a_killed_one_has_left(tmp_path):
    left = tmp_path / named(ENDED)
    left.mkdir()
    age(left)
    program = "from edgekit.workers.pool import WorkerPool\nWorkerPool()"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, check=True)
    assert not left.exists()

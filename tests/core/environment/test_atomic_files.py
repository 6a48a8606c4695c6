"""Atomic writes, and bad files that become one-line errors."""

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.core.environment import atomic_files
from edgekit.core.environment.atomic_files import move_files
from edgekit.core.environment.process_identity import own_process
from edgekit.core.errors import DiskFull, InputError, StepFailed


def left_over(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(atomic_files.STAGING_PREFIX)]


def make_old_folder(folder):
    folder.mkdir()
    (folder / "old.txt").write_text("old")


def test_a_staged_folder_appears_complete_with_missing_parents(tmp_path):
    final = tmp_path / "a" / "b" / "artifact"
    with atomic_files.staged_folder(final) as staging:
        (staging / "model.bin").write_bytes(b"123")
        assert not final.exists()
    assert (final / "model.bin").read_bytes() == b"123"
    assert left_over(final.parent) == []


def test_a_staged_folder_replaces_the_old_one_entirely(tmp_path):
    final = tmp_path / "artifact"
    make_old_folder(final)
    with atomic_files.staged_folder(final) as staging:
        (staging / "new.txt").write_text("new")
        assert (final / "old.txt").read_text() == "old"
    assert [path.name for path in final.iterdir()] == ["new.txt"]
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_the_old_folder_as_it_was(tmp_path, error):
    final = tmp_path / "artifact"
    make_old_folder(final)
    with pytest.raises(type(error)), atomic_files.staged_folder(final) as staging:
        (staging / "half.txt").write_text("half")
        raise error
    assert [path.name for path in final.iterdir()] == ["old.txt"]
    assert left_over(tmp_path) == []


def test_the_old_folder_is_restored_when_the_new_one_cannot_replace_it(tmp_path, monkeypatch):
    final = tmp_path / "artifact"
    make_old_folder(final)
    rename = Path.rename

    def refuse_the_new_one(self, target):
        if (self / "new.txt").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    with pytest.raises(InputError), atomic_files.staged_folder(final) as staging:
        (staging / "new.txt").write_text("new")
    assert final.is_dir(), "the old folder was lost"
    assert (final / "old.txt").read_text() == "old"


def test_a_staged_folder_has_the_permissions_of_an_ordinary_one(tmp_path):
    with atomic_files.staged_folder(tmp_path / "artifact"):
        pass
    (tmp_path / "ordinary").mkdir()
    assert (tmp_path / "artifact").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    final = tmp_path / "file" / "artifact"
    with pytest.raises(InputError) as caught, atomic_files.staged_folder(final):
        pass
    assert str(caught.value).startswith(f"cannot write {final}: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_its_own(tmp_path, number):
    with pytest.raises(DiskFull) as caught, atomic_files.staged_folder(tmp_path / "artifact"):
        raise OSError(number, os.strerror(number))
    sentence = f"no space left on the disk that holds {tmp_path / 'artifact'}; nothing was changed there"
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 4


def test_write_text_replaces_the_file_and_creates_its_folder(tmp_path):
    path = tmp_path / "deep" / "note.txt"
    atomic_files.write_text(path, "first")
    atomic_files.write_text(path, "zweitens: ä\n")
    assert path.read_text(encoding="utf-8") == "zweitens: ä\n"
    assert left_over(path.parent) == []


def test_a_written_file_has_the_permissions_of_an_ordinary_one(tmp_path):
    atomic_files.write_text(tmp_path / "ours", "x")
    (tmp_path / "ordinary").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        atomic_files.write_text(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_disk_that_fills_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "note.txt"
    atomic_files.write_text(path, "old")

    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull):
        atomic_files.write_text(path, "new")
    assert path.read_text() == "old"
    assert left_over(tmp_path) == []


def test_json_has_stable_keys_and_ends_with_a_line_feed():
    assert atomic_files.to_json({"b": 1, "a": [True, None]}) == atomic_files.to_json({"a": [True, None], "b": 1})
    assert atomic_files.to_json({"b": 1, "a": 2}) == '{\n  "a": 2,\n  "b": 1\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_nan_and_infinity(value):
    with pytest.raises(ValueError):
        atomic_files.to_json({"x": value})


def test_written_json_reads_back(tmp_path):
    atomic_files.write_json(tmp_path / "x.json", {"a": [1, 2.5, "ä", None]})
    assert atomic_files.read_json(tmp_path / "x.json", "thing") == {"a": [1, 2.5, "ä", None]}


def test_a_missing_file_is_a_one_line_error(tmp_path):
    with pytest.raises(InputError) as caught:
        atomic_files.read_bytes(tmp_path / "gone", "manifest")
    assert str(caught.value) == f"{tmp_path / 'gone'}: no such manifest"


def test_an_empty_file_is_a_one_line_error(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(InputError) as caught:
        atomic_files.read_bytes(tmp_path / "empty", "manifest")
    assert str(caught.value) == f"{tmp_path / 'empty'}: this manifest is empty"


def test_a_folder_is_refused_as_a_file(tmp_path):
    with pytest.raises(InputError) as caught:
        atomic_files.read_bytes(tmp_path, "manifest")
    assert str(caught.value) == f"{tmp_path}: cannot read this manifest: is a directory"


@pytest.mark.parametrize(
    "content",
    [b'{"a": ', b"\xff\xfe\x00", b"not json", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"],
    ids=["truncated", "no text", "words", "nested too deeply", "a number too long"],
)
def test_invalid_json_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="this manifest is not valid JSON") as caught:
        atomic_files.read_json(path, "manifest")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("data", "kind"), [([1], "list"), ("x", "str"), (3, "int"), (None, "NoneType")])
def test_json_that_is_not_an_object_is_refused(tmp_path, data, kind):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        atomic_files.read_json(path, "manifest")
    assert str(caught.value) == f"{path}: this manifest must be a JSON object (got {kind})"


def test_the_digest_of_a_file_is_the_sha256_of_its_content(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert atomic_files.sha256_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_error_removes_the_parents_that_were_created_for_the_folder(tmp_path, error):
    with (
        pytest.raises(type(error)),
        atomic_files.staged_folder(tmp_path / "build" / "net" / "torch" / "source") as staging,
    ):
        (staging / "half.txt").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_parents_that_existed_before(tmp_path):
    (tmp_path / "build").mkdir()
    with pytest.raises(RuntimeError), atomic_files.staged_folder(tmp_path / "build" / "net" / "source"):
        raise RuntimeError("broken")
    assert list(tmp_path.rglob("*")) == [tmp_path / "build"]


def test_an_error_keeps_a_created_parent_that_is_not_empty(tmp_path):
    with pytest.raises(RuntimeError), atomic_files.staged_folder(tmp_path / "build" / "net" / "source"):
        (tmp_path / "build" / "note.txt").write_text("mine")
        raise RuntimeError("broken")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["build", "note.txt"]


def make_tree(folder, content):
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


TREE = {"saved_model.pb": b"graph", "variables/data": b"12345", "variables/index": b""}


def test_sha256_path_of_a_file_is_its_sha256_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert atomic_files.sha256_path(tmp_path / "x") == atomic_files.sha256_file(tmp_path / "x")
    assert atomic_files.size_of(tmp_path / "x") == 3


def test_folders_of_the_same_files_have_the_same_digest_and_size(tmp_path):
    first, second = make_tree(tmp_path / "a", TREE), make_tree(tmp_path / "b", dict(reversed(TREE.items())))
    (second / "empty").mkdir()
    assert atomic_files.sha256_path(first) == atomic_files.sha256_path(second)
    assert atomic_files.size_of(first) == atomic_files.size_of(second) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"saved_model.pb": b"grapf"},
        {"variables/index": b"0"},
        {"more": b""},
        {"variables/data": b"1234", "variables/index": b"5"},
    ],
)
def test_a_folder_with_another_file_or_content_has_another_digest(tmp_path, change):
    first, second = make_tree(tmp_path / "a", TREE), make_tree(tmp_path / "b", TREE | change)
    assert atomic_files.sha256_path(first) != atomic_files.sha256_path(second)


def test_a_folder_whose_file_has_another_name_has_another_digest(tmp_path):
    first, second = make_tree(tmp_path / "a", {"x": b"1"}), make_tree(tmp_path / "b", {"y": b"1"})
    assert atomic_files.sha256_path(first) != atomic_files.sha256_path(second)


def test_files_of_killed_processes_are_removed_except_those_of_other_hosts(tmp_path, monkeypatch):
    """Hosts that share a folder cannot see one another's processes."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    other_host = tmp_path / atomic_files._temporary_prefix().replace(own_process(), str(dead.pid))
    monkeypatch.setattr(atomic_files, "_host_digest", lambda: "another")
    stale = tmp_path / atomic_files._temporary_prefix().replace(own_process(), str(dead.pid))
    in_use = tmp_path / atomic_files._temporary_prefix()
    # Its process has ended, and this one has been given its id.
    used_again = tmp_path / in_use.name.replace(own_process(), f"{os.getpid()}.1")
    for folder in (other_host, stale, in_use, used_again):
        folder.mkdir()
    atomic_files.remove_stale_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([other_host, in_use])


def test_files_of_a_worker_are_moved_with_their_folders(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a" / "b").mkdir(parents=True)
    target.mkdir()
    (source / "a" / "b" / "file").write_text("1")
    (source / "model").write_text("2")
    (source / "model").chmod(0o4755)
    move_files(source, target)
    assert (target / "a" / "b" / "file").read_text() == "1"
    assert (target / "model").read_text() == "2"
    (tmp_path / "ordinary").touch()
    assert (target / "model").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_files_are_copied_between_disks(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("1")
    (tmp_path / "target").mkdir()
    monkeypatch.setattr(Path, "rename", refuse)
    move_files(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "1"
    assert list((tmp_path / "source").iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo], ids=["link", "fifo"])
def test_links_and_devices_are_not_moved(tmp_path, make):
    (tmp_path / "source" / "folder").mkdir(parents=True)
    make(tmp_path / "source" / "folder" / "model")
    (tmp_path / "target").mkdir()
    with pytest.raises(StepFailed, match="a worker left model, which is not a file, among its output"):
        move_files(tmp_path / "source", tmp_path / "target")


@pytest.mark.parametrize("kind", ["link", "link to a folder", "fifo"])
def test_sha256_path_refuses_what_is_not_a_file(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "fifo":
        os.mkfifo(folder / "x")
    else:
        (folder / "x").symlink_to("/etc/passwd" if kind == "link" else "/etc")
    with pytest.raises(InputError, match="this is a link or a device"):
        atomic_files.sha256_path(folder)


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_staged_folder_does_not_replace_what_is_no_folder(tmp_path, kind):
    final = tmp_path / "final"
    os.mkfifo(final) if kind == "fifo" else final.write_text("x")
    with pytest.raises(InputError, match="not a directory"), atomic_files.staged_folder(final):
        pass
    assert list(tmp_path.iterdir()) == [final]


def test_a_record_replaces_a_link_and_leaves_its_target(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "record.json").symlink_to("target")
    atomic_files.write_json(tmp_path / "record.json", {})
    assert (tmp_path / "target").read_text() == "mine"
    assert not (tmp_path / "record.json").is_symlink()

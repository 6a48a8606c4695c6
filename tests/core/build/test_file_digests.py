"""Digests are cached while a file's size and times are unchanged, and never used if the file may have changed."""

import hashlib
import json
import os
import time

import pytest

from edgekit.core.build import file_digests
from edgekit.core.build.file_digests import ABSENT, FileDigests
from edgekit.core.records import checksummed_json


def settle(path):
    """Set the modification time to a minute ago; the change time cannot be set."""
    minute_ago = time.time_ns() - 60_000_000_123
    os.utime(path, ns=(minute_ago, minute_ago))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"abc")
    return path


@pytest.fixture
def patient(monkeypatch):
    """Treat every file as old enough to be cached, so that tests need not wait for a tick of the clock."""
    monkeypatch.setattr(file_digests, "_settled", lambda _status, _now_ns: True)


def again(tmp_path):
    """Return the digests of the next run."""
    return FileDigests(tmp_path, tmp_path / "store.json")


def test_the_digest_is_the_sha256_of_the_content(file, tmp_path):
    assert FileDigests(tmp_path).of("weights.bin") == hashlib.sha256(b"abc").hexdigest()
    assert FileDigests(tmp_path).of(str(file)) == hashlib.sha256(b"abc").hexdigest()


def test_a_missing_path_is_absent(tmp_path, file):
    assert FileDigests(tmp_path).of("nothing") == ABSENT
    assert FileDigests(tmp_path).of("weights.bin/below") == ABSENT


def test_an_unchanged_file_is_read_once(file, tmp_path, patient):
    first = again(tmp_path)
    digest = first.of("weights.bin")
    first.save()
    second = again(tmp_path)
    assert second.of("weights.bin") == digest
    assert (first.read, second.read) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"abd"),
        lambda path: path.write_bytes(b"abcd"),
        lambda path: path.replace(path.with_name("old")) and path.write_bytes(b"abd"),
    ],
    ids=["one byte", "longer", "another file in its place"],
)
def test_a_changed_file_is_read_again_even_with_its_old_times(file, tmp_path, patient, change):
    first = again(tmp_path)
    before, status = first.of("weights.bin"), file.stat()
    first.save()
    while time.time_ns() < status.st_ctime_ns + 20_000_000:
        pass  # wait for the next tick of the kernel's clock: _settled() handles changes within a tick
    change(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = again(tmp_path)
    assert second.of("weights.bin") != before
    assert second.read == 1


def test_the_digest_of_a_file_written_just_now_is_not_cached(file, tmp_path):
    """It may be written again within the same tick of the clock, with the same size and times."""
    status = file.stat()
    now_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    assert not file_digests._settled(status, now_ns + 5_000_000)
    assert file_digests._settled(status, now_ns + 3_000_000_000)


def test_a_file_system_with_times_in_seconds_needs_an_older_file(file):
    second = time.time_ns() // 1_000_000_000 * 1_000_000_000
    os.utime(file, ns=(second, second))
    status = file.stat()
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    assert not file_digests._settled(status, latest + 1_500_000_000)
    assert file_digests._settled(status, latest + 2_500_000_000)


def test_a_second_write_within_a_tick_is_noticed(tmp_path, monkeypatch):
    """The same stamp with different content, as if both writes happened within one tick."""
    path = tmp_path / "racy"
    path.write_bytes(b"one")
    monkeypatch.setattr(file_digests, "_stamp", lambda _status: (1, 2, 3, 4, 5))
    first = again(tmp_path)
    before = first.of("racy")
    first.save()
    path.write_bytes(b"two")
    assert again(tmp_path).of("racy") != before


def test_the_digest_of_a_folder_depends_on_the_content_names_and_number_of_its_files(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    digests = {FileDigests(tmp_path).of("photos")}
    (folder / "inner/a").write_bytes(b"A")
    digests.add(FileDigests(tmp_path).of("photos"))
    (folder / "b").rename(folder / "c")
    digests.add(FileDigests(tmp_path).of("photos"))
    (folder / "d").write_bytes(b"")
    digests.add(FileDigests(tmp_path).of("photos"))
    assert len(digests) == 4
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_bytes(b"x")
    assert FileDigests(tmp_path).of("photos") in digests


def test_the_digest_of_some_keys_does_not_depend_on_other_keys(tmp_path):
    path = tmp_path / "model.toml"
    digests = []
    for text in ("a = 1\nb = 1", "a = 1\nb = 2", "a = 2\nb = 2", "# a comment\na = 2\nb = 2"):
        path.write_text(text)
        digests.append(FileDigests(tmp_path).of_part("model.toml", ("a",), ()))
    assert digests[0] == digests[1] != digests[2] == digests[3]


def test_keys_of_inner_tables_can_be_excluded(tmp_path):
    path = tmp_path / "source.json"
    digests = []
    for seconds in (1, 2):
        path.write_text(json.dumps({"training": {"seconds": seconds, "seed": 1}, "history": [seconds]}))
        digests.append(FileDigests(tmp_path).of_part("source.json", (), ("training.seconds", "history")))
    assert digests[0] == digests[1]
    assert digests[0] != FileDigests(tmp_path).of_part("source.json", (), ("history",))


@pytest.mark.parametrize("content", [b"not [ toml", b"\xff\xfe", b"[1, 2]"])
def test_a_file_without_a_table_has_the_digest_of_its_bytes(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert FileDigests(tmp_path).of_part("x.json", (), ("a",)) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"sha256": "0", "files": {}}'])
def test_a_damaged_store_counts_as_empty(file, tmp_path, patient, damage):
    first = again(tmp_path)
    digest = first.of("weights.bin")
    first.save()
    (tmp_path / "store.json").write_bytes(damage)
    second = again(tmp_path)
    assert second.of("weights.bin") == digest
    assert second.read == 1


def test_no_single_flipped_bit_of_the_store_gives_a_wrong_digest(file, tmp_path, patient):
    first = again(tmp_path)
    digest = first.of("weights.bin")
    first.save()
    good = (tmp_path / "store.json").read_bytes()
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << (position % 8)
        (tmp_path / "store.json").write_bytes(flipped)
        assert again(tmp_path).of("weights.bin") == digest


def test_digests_that_are_no_longer_requested_are_dropped(file, tmp_path, patient):
    first = again(tmp_path)
    first.of("weights.bin")
    first.save()
    second = again(tmp_path)
    second.save()
    assert checksummed_json.load(tmp_path / "store.json") == {"files": {}}

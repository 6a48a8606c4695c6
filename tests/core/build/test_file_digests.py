"""Digests that are remembered by a file's stamp, and never believed of a file that may have changed."""

import hashlib
import json
import os
import time

import pytest

from edgekit.core.build import file_digests
from edgekit.core.build.file_digests import ABSENT, FileDigests
from edgekit.core.records import checksummed_json


def settle(path):
    """As old as a file is that nobody has written to for a minute; the change time moves with the clock."""
    minute_ago = time.time_ns() - 60_000_000_123
    os.utime(path, ns=(minute_ago, minute_ago))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"abc")
    return path


@pytest.fixture
def patient(monkeypatch):
    """Every file is old enough to be believed, so that tests need not wait for a tick of the clock."""
    monkeypatch.setattr(file_digests, "_settled", lambda _status, _now_ns: True)


def again(tmp_path):
    """What the next run has."""
    return FileDigests(tmp_path, tmp_path / "store.json")


def test_the_digest_is_the_sha256_of_the_content(file, tmp_path):
    assert FileDigests(tmp_path).of("weights.bin") == hashlib.sha256(b"abc").hexdigest()
    assert FileDigests(tmp_path).of(str(file)) == hashlib.sha256(b"abc").hexdigest()


def test_what_is_not_there_is_absent(tmp_path, file):
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
        pass  # past the tick of the kernel's clock: what comes sooner is the case that _settled is for
    change(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = again(tmp_path)
    assert second.of("weights.bin") != before
    assert second.read == 1


def test_a_file_that_was_written_just_now_is_not_believed_the_next_time(file, tmp_path):
    """It may be written again within the same tick of the clock, with the same size and times."""
    status = file.stat()
    now_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    assert not file_digests._settled(status, now_ns + 5_000_000)
    assert file_digests._settled(status, now_ns + 3_000_000_000)


def test_a_file_system_that_counts_in_seconds_is_given_more_time(file):
    second = time.time_ns() // 1_000_000_000 * 1_000_000_000
    os.utime(file, ns=(second, second))
    status = file.stat()
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    assert not file_digests._settled(status, latest + 1_500_000_000)
    assert file_digests._settled(status, latest + 2_500_000_000)


def test_a_racy_write_is_never_served_from_the_store(tmp_path, monkeypatch):
    """Twice the same stamp with other content: as if both writes fell into one tick."""
    path = tmp_path / "racy"
    path.write_bytes(b"one")
    monkeypatch.setattr(file_digests, "_stamp", lambda _status: (1, 2, 3, 4, 5))
    first = again(tmp_path)
    before = first.of("racy")
    first.save()
    path.write_bytes(b"two")
    assert again(tmp_path).of("racy") != before


def test_a_folder_s_digest_follows_content_names_and_number_of_its_files(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    seen = {FileDigests(tmp_path).of("photos")}
    (folder / "inner/a").write_bytes(b"A")
    seen.add(FileDigests(tmp_path).of("photos"))
    (folder / "b").rename(folder / "c")
    seen.add(FileDigests(tmp_path).of("photos"))
    (folder / "d").write_bytes(b"")
    seen.add(FileDigests(tmp_path).of("photos"))
    assert len(seen) == 4
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_bytes(b"x")
    assert FileDigests(tmp_path).of("photos") in seen


def test_a_part_of_a_toml_file_does_not_follow_its_other_keys(tmp_path):
    path = tmp_path / "model.toml"
    seen = []
    for text in ("a = 1\nb = 1", "a = 1\nb = 2", "a = 2\nb = 2", "# a comment\na = 2\nb = 2"):
        path.write_text(text)
        seen.append(FileDigests(tmp_path).of_part("model.toml", ("a",), ()))
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_keys_of_inner_tables_can_be_left_out(tmp_path):
    path = tmp_path / "source.json"
    seen = []
    for seconds in (1, 2):
        path.write_text(json.dumps({"training": {"seconds": seconds, "seed": 1}, "history": [seconds]}))
        seen.append(FileDigests(tmp_path).of_part("source.json", (), ("training.seconds", "history")))
    assert seen[0] == seen[1]
    assert seen[0] != FileDigests(tmp_path).of_part("source.json", (), ("history",))


@pytest.mark.parametrize("content", [b"not [ toml", b"\xff\xfe", b"[1, 2]"])
def test_what_is_no_table_has_the_digest_of_its_bytes(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert FileDigests(tmp_path).of_part("x.json", (), ("a",)) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"sha256": "0", "files": {}}'])
def test_a_damaged_store_is_an_empty_one(file, tmp_path, patient, damage):
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


def test_what_is_no_longer_asked_for_is_forgotten(file, tmp_path, patient):
    first = again(tmp_path)
    first.of("weights.bin")
    first.save()
    second = again(tmp_path)
    second.save()
    assert checksummed_json.load(tmp_path / "store.json") == {"files": {}}

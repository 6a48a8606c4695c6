"""What a process of a cluster refuses to do."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.errors import InputError, StepFailed
from edgekit.stages.cluster import remote_step
from edgekit.stages.cluster.content_store import ContentStore


def test_a_folder_that_is_not_shared_is_told(tmp_path):
    assert "does not see" in remote_step.incompatibility(str(tmp_path), "build/.edgekit/x.token", {})
    (tmp_path / "x.token").touch()
    assert remote_step.incompatibility(str(tmp_path), "x.token", {"numpy": np.__version__}) == ""
    assert remote_step.incompatibility("", "x.token", {}) == ""


def test_other_versions_are_refused():
    """A figure would be filed under versions that it was not made with."""
    assert remote_step.incompatibility("", "", {"numpy": "0.1"}) == f"has numpy {np.__version__} where this run has 0.1"
    assert (
        remote_step.incompatibility("", "", {"nothing-like-it": "1"})
        == "has nothing-like-it not at all where this run has 1"
    )
    assert "has python" in remote_step.incompatibility("", "", {"python": "2.7"})


def test_a_store_hands_out_what_was_put_there(tmp_path):
    store = ContentStore((tmp_path / "store").as_uri())
    store.probe()
    path = tmp_path / "a.bin"
    path.write_bytes(b"some bytes")
    digest = sha256_file(path)
    for _ in range(2):
        store.put(path, digest)
    store.get(digest, tmp_path / "deep/b.bin")
    assert (tmp_path / "deep/b.bin").read_bytes() == b"some bytes"
    assert len([item for item in (tmp_path / "store").rglob("*") if item.is_file()]) == 1


def test_a_store_hands_out_nothing_damaged_or_gone(tmp_path):
    store = ContentStore(str(tmp_path / "store"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"some bytes")
    digest = sha256_file(path)
    store.put(path, digest)
    kept = next(item for item in (tmp_path / "store").rglob("*") if item.is_file())
    kept.write_bytes(b"some bytez")
    for sentence in ("is damaged", "any more"):
        with pytest.raises(StepFailed, match=sentence):
            store.get(digest, tmp_path / "b.bin")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.bin", "store"]


def test_a_store_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = ContentStore(str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write to the store"):
        store.probe()

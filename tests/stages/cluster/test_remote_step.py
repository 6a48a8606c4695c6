"""Which requests a worker process of a cluster rejects, and how the content store handles damaged files."""

from __future__ import annotations

import dataclasses
import pickle
import threading

import numpy as np
import pytest

from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.environment.project import Project
from edgekit.core.errors import InputError, StepFailed
from edgekit.core.events import ignore
from edgekit.stages.cluster import remote_step
from edgekit.stages.cluster.content_store import ContentStore
from edgekit.stages.context import Context
from edgekit.workers.pool import WorkerPool


def test_a_folder_that_is_not_shared_is_reported(tmp_path):
    assert f"cannot see {tmp_path}" in remote_step.incompatibility(str(tmp_path), "build/.edgekit/x.token", {})
    (tmp_path / "x.token").touch()
    assert remote_step.incompatibility(str(tmp_path), "x.token", {"numpy": np.__version__}) == ""
    assert remote_step.incompatibility("", "x.token", {}) == ""


def test_other_versions_are_refused():
    """Otherwise a result would be recorded with versions that did not produce it."""
    assert (
        remote_step.incompatibility("", "", {"numpy": "0.1"})
        == f"needs numpy 0.1, but {np.__version__} is installed there"
    )
    assert (
        remote_step.incompatibility("", "", {"nothing-like-it": "1"})
        == "needs nothing-like-it 1, but it is not installed there"
    )
    assert "needs python 2.7, but" in remote_step.incompatibility("", "", {"python": "2.7"})


def test_a_store_returns_what_was_put_there(tmp_path):
    store = ContentStore((tmp_path / "store").as_uri())
    store.probe()
    path = tmp_path / "a.bin"
    path.write_bytes(b"some bytes")
    digest = sha256_file(path)
    for _ in range(2):
        store.put(path, digest)
    store.get(digest, tmp_path / "deep/b.bin")
    assert (tmp_path / "deep/b.bin").read_bytes() == b"some bytes"
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 1


def test_a_store_reports_damaged_and_missing_files(tmp_path):
    store = ContentStore(str(tmp_path / "store"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"some bytes")
    digest = sha256_file(path)
    store.put(path, digest)
    stored = next(path for path in (tmp_path / "store").rglob("*") if path.is_file())
    stored.write_bytes(b"some bytez")
    for message in ("was damaged", "no longer has"):
        with pytest.raises(StepFailed, match=message):
            store.get(digest, tmp_path / "b.bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "store"]


def test_a_store_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = ContentStore(str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write to the store"):
        store.probe()


def test_a_run_is_not_stopped_while_a_step_opens_its_session(tmp_path):
    session = remote_step.WorkerSession(Context(Project(tmp_path), WorkerPool(), ignore), None, None)
    thread = threading.Thread(target=remote_step.stop, args=("some run",))
    with remote_step._sessions_lock:  # as a step that opens the session does
        remote_step._sessions["some run"] = session
        thread.start()
        thread.join(0.5)
        assert remote_step._sessions["some run"] is session
    thread.join()
    assert "some run" not in remote_step._sessions


@pytest.mark.parametrize("digest", ["../../../etc/passwd", "", "a" * 63, "A" * 64])
def test_a_store_is_asked_for_digests_only(tmp_path, digest):
    store = ContentStore(str(tmp_path / "store"))
    with pytest.raises(StepFailed, match="is not the sha256 of a file in the store"):
        store.get(digest, tmp_path / "b.bin")
    assert list(tmp_path.iterdir()) == []


def test_an_unforeseen_error_is_an_answer(tmp_path, monkeypatch):
    class Unpicklable(Exception):
        def __reduce__(self):
            raise TypeError("this exception cannot be pickled")

    def fail(request):
        raise Unpicklable("something native")

    monkeypatch.setattr(remote_step, "_open_session", fail)
    names = {field.name: None for field in dataclasses.fields(remote_step.RemoteStep)}
    answer = remote_step.execute({**names, "run": "r", "step": {"name": "export net"}, "root": str(tmp_path)})
    assert answer["error"]["message"] == "export net: the Dask worker failed with Unpicklable: something native"
    assert pickle.loads(pickle.dumps(answer)) == answer

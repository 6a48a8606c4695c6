"""Checkpoints on disk."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.contracts.checkpoint import Checkpoints
from edgekit.core.errors import InputError

SEEDED = settings(derandomize=True, max_examples=40)
FINGERPRINT = {"hyperparameters": {"epochs": 3, "seed": 1}, "data": "d" * 64, "code": "c" * 64, "versions": {}}
STATE = bytes(range(256)) * 4


@pytest.fixture
def store(tmp_path):
    checkpoints = Checkpoints(tmp_path / ".checkpoint", FINGERPRINT)
    checkpoints.save({"epoch": 2, "seconds": 0.5}, STATE)
    return checkpoints


def load_error(store):
    with pytest.raises(InputError) as caught:
        store.load()
    assert caught.value.exit_code == 2
    assert str(caught.value).endswith("; to start over, train without --resume")
    return str(caught.value)


def test_a_checkpoint_is_read_back(store):
    checkpoint = store.load()
    assert (checkpoint.progress, checkpoint.state) == ({"epoch": 2, "seconds": 0.5}, STATE)


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", FINGERPRINT).load() is None


def test_the_next_checkpoint_replaces_the_previous_one(store):
    (store.folder / "state-3.part").write_bytes(b"left behind by a killed process")
    store.save({"epoch": 3}, b"other")
    assert store.load().state == b"other"
    assert sorted(path.name for path in store.folder.iterdir()) == ["checkpoint.json", "state-3"]


def test_a_kill_between_the_two_files_leaves_the_earlier_checkpoint(store):
    (store.folder / "state-3").write_bytes(b"the state of epoch 3, not yet named")
    assert store.load().progress["epoch"] == 2


@SEEDED
@given(st.integers(0, len(STATE) - 1), st.booleans())
def test_a_truncated_or_changed_state_is_detected(tmp_path_factory, at, truncated):
    store = Checkpoints(tmp_path_factory.mktemp("checkpoint"), FINGERPRINT)
    store.save({"epoch": 2}, STATE)
    damaged = STATE[:at] if truncated else STATE[:at] + bytes([STATE[at] ^ 1]) + STATE[at + 1 :]
    (store.folder / "state-2").write_bytes(damaged)
    assert "truncated or damaged (its sha256 differs)" in load_error(store)


def test_a_missing_state_is_detected(store):
    (store.folder / "state-2").unlink()
    assert "state-2: this checkpoint is truncated or damaged" in load_error(store)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"hyperparameters": {"epochs": 4, "seed": 1}}, "epochs was 3, now 4"),
        ({"hyperparameters": {"epochs": 3}}, "seed was 1, now unset"),
        ({"data": "e" * 64}, "different data"),
        ({"code": "e" * 64, "versions": {"torch": "3"}}, "different code, versions"),
    ],
)
def test_a_checkpoint_of_a_different_training_is_refused_and_the_difference_named(store, changes, difference):
    other = Checkpoints(store.folder, {**FINGERPRINT, **changes})
    assert f"this checkpoint belongs to a different training ({difference}); " in load_error(other)


def test_another_schema_version_is_refused(store):
    record = json.loads(store.path.read_text())
    store.path.write_text(json.dumps({**record, "schema_version": 2}))
    assert "this is not a checkpoint of schema version 1" in load_error(store)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_json_file_is_a_one_line_error(store, content):
    store.path.write_text(content)
    with pytest.raises(InputError, match=r"checkpoint\.json: this checkpoint"):
        store.load()

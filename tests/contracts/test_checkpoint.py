"""Checkpoints on disk."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.contracts.checkpoint import Checkpoints
from edgekit.core.errors import InputError

SEEDED = settings(derandomize=True, deadline=None, max_examples=40)
FINGERPRINT = {"hyperparameters": {"epochs": 3, "seed": 1}, "data": "d" * 64, "code": "c" * 64, "versions": {}}
STATE = bytes(range(256)) * 4


@pytest.fixture
def store(tmp_path):
    made = Checkpoints(tmp_path / ".checkpoint", FINGERPRINT)
    made.save({"epoch": 2, "seconds": 0.5}, STATE)
    return made


def refusal(store):
    with pytest.raises(InputError) as caught:
        store.load()
    assert caught.value.exit_code == 2
    assert str(caught.value).endswith("train without --resume to start anew")
    return str(caught.value)


def test_a_checkpoint_is_read_back(store):
    found = store.load()
    assert (found.standing, found.state) == ({"epoch": 2, "seconds": 0.5}, STATE)


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", FINGERPRINT).load() is None


def test_the_next_checkpoint_takes_the_place_of_the_last(store):
    (store.folder / "state-3.part").write_bytes(b"what a kill left")
    store.save({"epoch": 3}, b"other")
    assert store.load().state == b"other"
    assert sorted(path.name for path in store.folder.iterdir()) == ["checkpoint.json", "state-3"]


def test_a_kill_between_the_two_files_leaves_the_earlier_checkpoint(store):
    (store.folder / "state-3").write_bytes(b"the state of epoch 3, not yet named")
    assert store.load().standing["epoch"] == 2


@SEEDED
@given(st.integers(0, len(STATE) - 1), st.booleans())
def test_a_truncated_or_changed_state_is_noticed(tmp_path_factory, at, truncated):
    store = Checkpoints(tmp_path_factory.mktemp("checkpoint"), FINGERPRINT)
    store.save({"epoch": 2}, STATE)
    damaged = STATE[:at] if truncated else STATE[:at] + bytes([STATE[at] ^ 1]) + STATE[at + 1 :]
    (store.folder / "state-2").write_bytes(damaged)
    assert "truncated or damaged: its sha256 differs" in refusal(store)


def test_a_missing_state_is_noticed(store):
    (store.folder / "state-2").unlink()
    assert "state-2: this checkpoint is truncated or damaged" in refusal(store)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hyperparameters": {"epochs": 4, "seed": 1}}, "epochs 3, now 4"),
        ({"hyperparameters": {"epochs": 3}}, "seed 1, now unset"),
        ({"data": "e" * 64}, "other data"),
        ({"code": "e" * 64, "versions": {"torch": "3"}}, "other code, versions"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(store, changes, words):
    other = Checkpoints(store.folder, {**FINGERPRINT, **changes})
    assert f"this checkpoint is of another training: {words}; " in refusal(other)


def test_another_version_is_refused(store):
    record = json.loads(store.path.read_text())
    store.path.write_text(json.dumps({**record, "schema_version": 2}))
    assert "not a checkpoint of version 1" in refusal(store)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_json_file_is_one_sentence(store, content):
    store.path.write_text(content)
    with pytest.raises(InputError, match=r"checkpoint\.json: this checkpoint"):
        store.load()

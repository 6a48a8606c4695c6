"""Step records: damaged ones count as missing, those of a newer edgekit stay unchanged, and one run holds the lock."""

import fcntl
import json
import threading

import pytest

from edgekit.core.build.graph import StepKey, StepRecord
from edgekit.core.build.step_records import StepRecords
from edgekit.core.errors import InputError

RECORD = StepRecord(
    "export x/onnx onnx:int8", "export", StepKey({"a": "1"}, {"o": {"x": [1]}}), {"out": "9"}, 1.5, 1, "so so"
)


@pytest.fixture
def records(tmp_path):
    records = StepRecords(tmp_path)
    with records.locked(lambda _process: None):
        yield records


def path_of(records):
    return next((records.folder / "steps").iterdir())


def test_a_saved_record_is_loaded_unchanged(records):
    records.save(RECORD)
    assert records.load(RECORD.step) == RECORD
    assert list(records.all()) == [RECORD]
    assert records.load("another") is None
    records.forget(RECORD.step)
    assert records.load(RECORD.step) is None


def test_every_flipped_bit_of_a_record_is_detected(records):
    records.save(RECORD)
    path = path_of(records)
    good = path.read_bytes()
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        record = records.load(RECORD.step)
        assert record is None or record == RECORD  # a flipped bit of white space changes nothing


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_record_counts_as_missing(records, share):
    records.save(RECORD)
    path = path_of(records)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert records.load(RECORD.step) is None


def test_records_of_a_newer_edgekit_are_an_error_and_stay_unchanged(tmp_path):
    folder = tmp_path / ".edgekit"
    folder.mkdir()
    (folder / "version.json").write_text('{"schema_version": 99}')
    with pytest.raises(InputError, match=r"a newer edgekit wrote these records \(schema_version 99; this one reads 1"):
        StepRecords(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["version.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 0}'])
def test_a_damaged_or_older_version_file_is_replaced(tmp_path, content):
    folder = tmp_path / ".edgekit"
    folder.mkdir()
    (folder / "version.json").write_text(content)
    with StepRecords(tmp_path).locked(lambda _process: None):
        assert json.loads((folder / "version.json").read_text()) == {"schema_version": 1}


def test_a_second_run_reports_the_first_and_waits(tmp_path):
    reported, order = threading.Event(), []
    StepRecords(tmp_path).folder.mkdir()
    with (tmp_path / ".edgekit/lock").open("w") as first:
        first.write("4711\n")
        first.flush()
        fcntl.flock(first, fcntl.LOCK_EX)

        def second():
            with StepRecords(tmp_path).locked(lambda process: (order.append(process), reported.set())):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        assert reported.wait(10)
        order.append("first")
        fcntl.flock(first, fcntl.LOCK_UN)
        thread.join(10)
    assert order == ["4711", "first", "second"]

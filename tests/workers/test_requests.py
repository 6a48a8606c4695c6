"""Large arrays reach a worker as a mapped file, also when the folder for temporary files is full."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from multiprocessing.connection import Pipe

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.workers import requests

LARGE = requests._MIN_BYTES // 4


def over_a_pipe(value):
    parent, worker = Pipe(duplex=True)
    with parent, worker:
        sender = threading.Thread(target=requests.send, args=(parent, value, os.getpid()))
        sender.start()
        received = requests.receive(worker)
        sender.join()
    return received


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(st.sampled_from([0, 1, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE + 3]), max_size=4), st.booleans())
def test_arrays_of_any_size_arrive_as_they_were(sizes, transposed):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((size, 1)).astype(np.float32) for size in sizes]
    value = {"arrays": [array.T if transposed else array for array in arrays], "text": "x"}
    received = over_a_pipe(value)
    assert received["text"] == "x"
    assert len(received["arrays"]) == len(sizes)
    for before, after in zip(value["arrays"], received["arrays"], strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == before.dtype


def test_the_worker_may_change_a_large_array_and_the_next_request_follows():
    array = np.zeros(LARGE, np.float32)
    parent, worker = Pipe(duplex=True)
    with parent, worker:
        for number in range(2):
            requests.send(parent, (number, array), os.getpid())
            answer, received = requests.receive(worker)
            received += 1
            assert answer == number
            assert received.sum() == LARGE
    assert array.sum() == 0


def test_a_full_temporary_folder_is_no_obstacle(monkeypatch):
    def full(**options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    array = np.arange(LARGE, dtype=np.float32)
    np.testing.assert_array_equal(over_a_pipe(array), array)


def test_a_worker_that_has_ended_is_a_connection_error():
    parent, worker = Pipe(duplex=True)
    worker.close()
    with parent, pytest.raises(ConnectionError):
        requests.send(parent, np.zeros(LARGE, np.float32), os.getpid())

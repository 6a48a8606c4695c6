"""Who prepares beside whom, and who measures."""

import threading
import time

from edgekit.workers.measurement_lock import MeasurementLock


def test_several_prepare_together_and_measure_one_after_another():
    turns, together = MeasurementLock(), threading.Barrier(3)
    now, beside, lock = set(), [], threading.Lock()

    def work(name):
        with turns.preparing():
            together.wait(20)
        with turns.measuring():
            with lock:
                now.add(name)
                beside.append(set(now))
            time.sleep(0.02)
            with lock:
                now.discard(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(len, beside)) == [1, 1, 1]


def test_nobody_prepares_while_somebody_measures_or_waits_to():
    turns = MeasurementLock()
    told, ready = [], threading.Event()

    def measure(name, begin):
        begin.wait(20)
        with turns.measuring():
            told.append(name)
            time.sleep(0.05)

    def prepare():
        with turns.preparing():
            told.append("prepared")

    with turns.preparing():
        waiting = [threading.Thread(target=measure, args=(name, ready)) for name in ("first", "second")]
        for thread in waiting:
            thread.start()
        ready.set()
        while turns._ready < 2:
            time.sleep(0.001)
        late = threading.Thread(target=prepare)
        late.start()
        time.sleep(0.05)
        assert told == []
    for thread in (*waiting, late):
        thread.join(20)
    assert told[-1] == "prepared"


def test_an_error_gives_the_turn_back():
    turns = MeasurementLock()
    for turn in (turns.preparing, turns.measuring, turns.preparing):
        try:
            with turn():
                raise ValueError
        except ValueError:
            pass
    with turns.measuring():
        pass

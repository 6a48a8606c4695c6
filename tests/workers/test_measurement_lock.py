"""Threads prepare together and measure alone."""

import threading
import time

from edgekit.workers.measurement_lock import MeasurementLock


def test_several_prepare_together_and_measure_one_after_another():
    cores, together = MeasurementLock(), threading.Barrier(3)
    measuring, concurrent, lock = set(), [], threading.Lock()

    def work(name):
        with cores.preparing():
            together.wait(20)
        with cores.measuring():
            with lock:
                measuring.add(name)
                concurrent.append(set(measuring))
            time.sleep(0.02)
            with lock:
                measuring.discard(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(len, concurrent)) == [1, 1, 1]


def test_no_thread_prepares_while_another_measures_or_waits_to_measure():
    cores = MeasurementLock()
    order, ready = [], threading.Event()

    def measure(name, begin):
        begin.wait(20)
        with cores.measuring():
            order.append(name)
            time.sleep(0.05)

    def prepare():
        with cores.preparing():
            order.append("prepared")

    with cores.preparing():
        waiting = [threading.Thread(target=measure, args=(name, ready)) for name in ("first", "second")]
        for thread in waiting:
            thread.start()
        ready.set()
        while cores._ready < 2:
            time.sleep(0.001)
        late = threading.Thread(target=prepare)
        late.start()
        time.sleep(0.05)
        assert order == []
    for thread in (*waiting, late):
        thread.join(20)
    assert order[-1] == "prepared"


def test_an_error_releases_the_lock():
    cores = MeasurementLock()
    for hold in (cores.preparing, cores.measuring, cores.preparing):
        try:
            with hold():
                raise ValueError
        except ValueError:
            pass
    with cores.measuring():
        pass

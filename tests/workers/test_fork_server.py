"""Fork servers: processes that load a library once and are forked for each request."""

import gc
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.errors import Interrupted, StepCrashed, StepOutOfMemory, StepTimedOut
from edgekit.workers.environment import Environment
from edgekit.workers.fork_server import ForkedProcess, ForkServerPool
from edgekit.workers.gated_process import GatedProcess
from edgekit.workers.process import stop_all

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork servers exist only on Linux"),
]

MODULE = """\
import os, pathlib, resource, signal, sys, tempfile, threading, time

log = pathlib.Path(__file__).with_name("loaded")
LOADED = None


def preload(word):
    global LOADED
    LOADED = [word, os.getpid()]
    with log.open("a") as file:
        file.write(word + "\\n")
    {preload}


def main():
    if LOADED is None and {forked}:
        sys.exit(77)
    out, ready, go = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    {code}


if __name__ == "__main__":
    main()
"""
WAIT = "os.write(ready, b'1'); os.read(go, 1)"


@pytest.fixture
def fork_servers():
    gc.collect()  # files of earlier tests, which would be closed during this one
    before = open_files()
    pool = ForkServerPool()
    yield pool
    pool.close()
    gc.collect()
    assert open_files() <= before


@pytest.fixture
def prepare(tmp_path, monkeypatch, fork_servers):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "out").mkdir()

    def start(code, *, preload="pass", forked=True, preload_word="it", timeout_s=60.0, environment=None):
        file = tmp_path / "forked_module.py"
        text = MODULE.format(preload=preload, code=code, forked=forked)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        environment = replace(environment or Environment(), writable=(str(tmp_path),))
        start_process = fork_servers.start("forked_module", [preload_word], environment, timeout_s)
        return GatedProcess(start_process, [str(tmp_path / "out")], environment, step="measure it", timeout_s=timeout_s)

    return start


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_each_fork_is_a_process_of_its_own_that_has_the_library_loaded(prepare, tmp_path):
    code = f"{WAIT}; (out / str(os.getpid())).write_text(str(LOADED) + tempfile.gettempdir())"
    with prepare(code) as first, prepare(code) as second:
        assert isinstance(first._process, ForkedProcess)
        assert written(tmp_path) == []
        first.release()
        second.release()
        assert written(tmp_path) == sorted(str(process._process.pid) for process in (first, second))
    loaded = {(tmp_path / "out" / name).read_text() for name in written(tmp_path)}
    assert len(loaded) == 2  # each has a folder of its own for temporary files
    assert len({text.partition("]")[0] for text in loaded}) == 1
    assert not any(Path(text.partition("]")[2]).exists() for text in loaded)
    assert (tmp_path / "loaded").read_text() == "it\n"


def test_a_change_in_one_fork_is_not_visible_in_another(prepare, tmp_path):
    code = f"{WAIT}; LOADED.append(1); (out / str(os.getpid())).write_text(str(len(LOADED)))"
    for _ in range(2):
        with prepare(code) as process:
            process.release()
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["3", "3"]


def test_another_library_or_environment_has_another_fork_server(prepare, tmp_path):
    code = f"{WAIT}; (out / LOADED[0]).write_text(os.environ.get('FLAVOUR', ''))"
    for word, variables in (("a", {}), ("b", {}), ("a", {"FLAVOUR": "sour"})):
        with prepare(code, preload_word=word, environment=Environment.of(variables)) as process:
            process.release()
    assert sorted((tmp_path / "loaded").read_text().split()) == ["a", "a", "b"]
    assert (tmp_path / "out/a").read_text() == "sour"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", StepCrashed, "measure it: its process crashed with SIGSEGV"),
        (f"{WAIT}; os.kill(os.getpid(), signal.SIGKILL)", StepOutOfMemory, "was killed"),
        (f"{WAIT}; sys.exit(3)", StepCrashed, "exit code 3"),
        (f"{WAIT}; sys.exit('no')", StepCrashed, "exit code 1"),
        (f"{WAIT}; raise ValueError('it is bad')", StepCrashed, "exit code 1"),
    ],
)
def test_the_error_says_how_the_fork_ended(prepare, code, error, message):
    with prepare(code) as process, pytest.raises(error, match=message) as caught:
        process.release()
    if "ValueError" in code:
        assert caught.value.stderr_tail.endswith("ValueError: it is bad")


def test_the_memory_of_a_fork_is_limited(prepare):
    limit = Environment(memory_limit_bytes=200_000_000)
    code = f"{WAIT}; bytearray(400_000_000)"
    with prepare(code, environment=limit) as process, pytest.raises(StepOutOfMemory, match="it was allowed 190"):
        process.release()
    with prepare(code) as process:
        process.release()


def test_a_fork_is_pinned_to_its_cores(prepare, tmp_path):
    cpu = min(os.sched_getaffinity(0))
    code = f"{WAIT}; (out / repr(os.sched_getaffinity(0))).touch()"
    with prepare(code, environment=Environment(cpus=(cpu,))) as process:
        process.release()
    assert written(tmp_path) == [repr({cpu})]


@pytest.mark.parametrize("code", ["time.sleep(600)", f"{WAIT}; time.sleep(600)"])
def test_a_fork_that_exceeds_its_time_out_is_stopped(prepare, code):
    with pytest.raises(StepTimedOut, match="measure it: no answer after 1 s"), prepare(code, timeout_s=1.0) as process:
        process.release()


def test_leaving_the_block_ends_the_fork(prepare):
    with prepare(f"{WAIT}; time.sleep(600)") as process:
        child = process._process
    assert gone(child.pid)


def gone(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_a_fork_outlives_its_server(prepare, fork_servers):
    with prepare(f"{WAIT}; (out / 'done').touch()") as process:
        (server,) = fork_servers._servers.values()
        fork_servers.close()
        assert gone(server._child.pid)
        assert not gone_now(process._process.pid)


def gone_now(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_fresh_process_replaces_a_fork_when_the_server_was_killed(prepare, fork_servers, tmp_path):
    code = f"{WAIT}; (out / str(os.getpid())).touch()"
    with prepare(code, forked=False) as process:
        process.release()
    (server,) = fork_servers._servers.values()
    os.kill(server._child.pid, signal.SIGKILL)
    assert server._child.wait(10) == -signal.SIGKILL
    with prepare(code, forked=False) as process:
        assert not isinstance(process._process, ForkedProcess)
        process.release()
    assert len(written(tmp_path)) == 2


@pytest.mark.parametrize(
    "preload",
    [
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "raise ImportError('there is none')",
        "os._exit(1)",
    ],
)
def test_a_fresh_process_replaces_a_fork_when_the_library_cannot_be_forked(prepare, tmp_path, preload):
    for _ in range(2):
        with prepare(f"{WAIT}; (out / 'done').touch()", preload=preload, forked=False) as process:
            assert not isinstance(process._process, ForkedProcess)
            process.release()
    assert written(tmp_path) == ["done"]
    assert (tmp_path / "loaded").read_text() == "it\n"  # preload() ran once


def test_stop_all_ends_forks_and_servers(prepare, fork_servers):
    with prepare(f"{WAIT}; time.sleep(600)") as process:
        (server,) = fork_servers._servers.values()
        stop_all()
        assert process._process.wait(10) == -signal.SIGKILL
        assert server._child.wait(10) == -signal.SIGKILL


def test_a_start_function_from_before_stop_all_raises_interrupted(prepare, fork_servers, tmp_path):
    with prepare(f"{WAIT}; (out / 'done').touch()"):
        pass
    environment = Environment(writable=(str(tmp_path),))
    start_process = fork_servers.start("forked_module", ["it"], environment, 60.0)
    stop_all()
    with pytest.raises(Interrupted):
        GatedProcess(start_process, [str(tmp_path / "out")], environment, step="measure it", timeout_s=60.0)
    with prepare(f"{WAIT}; (out / 'done').touch()") as process:  # a new start function works
        assert isinstance(process._process, ForkedProcess)
        process.release()
    assert written(tmp_path) == ["done"]
    assert (tmp_path / "loaded").read_text() == "it\nit\n"


def test_a_fork_has_the_resident_memory_of_its_server(prepare, fork_servers, tmp_path):
    """Its page tables for the library's files are populated: they do not count as the model's memory."""
    rss = "{line.split()[0]: int(line.split()[1]) for line in open('/proc/self/status') if line[:3] == 'Rss'}"
    with prepare(f"{WAIT}; (out / 'rss').write_text(repr({rss}))", preload="import numpy.random") as process:
        (server,) = fork_servers._servers.values()
        lines = Path(f"/proc/{server._child.pid}/status").read_text().splitlines()
        server_rss = {line.split()[0]: int(line.split()[1]) for line in lines if line[:3] == "Rss"}
        process.release()
    fork = eval((tmp_path / "out/rss").read_text())
    assert server_rss["RssFile:"] > 10_000
    assert fork["RssFile:"] == pytest.approx(server_rss["RssFile:"], rel=0.1)
    assert fork["RssAnon:"] == pytest.approx(server_rss["RssAnon:"], rel=0.1)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "torchscript", "lite-interpreter", "executorch"])
def test_a_process_that_has_loaded_a_runtime_can_be_forked(fork_servers, runtime):
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    fork_servers.start("edgekit.runtimes._runner", [runtime], Environment.of(variables), 120.0)
    assert [server.ready for server in fork_servers._servers.values()] == [True]


def test_a_closed_pool_starts_no_server(prepare, fork_servers, tmp_path):
    with prepare(f"{WAIT}; (out / 'done').touch()"):
        pass
    fork_servers.close()
    with pytest.raises(Interrupted):
        prepare("pass")
    assert (tmp_path / "loaded").read_text() == "it\n"
    assert not fork_servers._servers


def test_a_server_that_starts_while_the_pool_is_closed_is_ended(prepare, fork_servers, tmp_path):
    errors = []

    def start():
        try:
            # The library has loaded when `loaded` exists, and the server waits for `closed`.
            prepare("pass", preload="while not log.with_name('closed').exists(): time.sleep(0.01)")
        except Interrupted as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    while not (tmp_path / "loaded").exists():
        time.sleep(0.01)
    fork_servers.close()
    (tmp_path / "closed").touch()
    thread.join()
    assert len(errors) == 1
    assert not fork_servers._servers  # the fixture asserts that the server's files are closed

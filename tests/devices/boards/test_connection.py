"""Connections to a real sshd, and everything that can go wrong with them: each is one sentence."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from _helpers.boards import know, needs_sshd
from _helpers.support import call, mounts_refused, spawn, with_mounts

from edgekit.config.board import BOARDS
from edgekit.core.errors import DiskFull, EdgekitError, StepCrashed, StepTimedOut
from edgekit.devices.boards import connection as connections
from edgekit.devices.boards.board import Board
from edgekit.devices.boards.connection import Connection
from edgekit.workers.process import stop_all

pytestmark = needs_sshd


def probe():
    answer = call("devices", "probe", "pi", "--json")
    return answer.code, answer.data.get("error", {}).get("message", "") if answer.code else answer.data


def test_a_probe_tells_what_the_board_is_and_has(board):
    code, data = probe()
    assert code == 0
    assert data["architecture"] == os.uname().machine
    assert data["python"][:2] == list(sys.version_info[:2])
    assert len(data["cores"]) == len(os.sched_getaffinity(0))
    assert data["runtimes"]["onnxruntime"]
    assert data["runtimes"]["litert"]
    assert abs(data["clock_skew_s"]) < 10
    assert data["install"] == ""


def test_a_probe_prints_what_is_missing_and_how_to_install_it(board, wrapped):
    wrapped('exec "$PYTHON" -S "$@"')  # without the folder of installed packages
    answer = call("devices", "probe", "pi")
    assert answer.code == 0, answer.err
    assert "litert            missing" in answer.out
    assert "edgekit devices install pi" in answer.out
    assert "-m pip install numpy==" in answer.out


def test_a_greeting_of_the_shell_is_no_reply(board, wrapped):
    wrapped('echo "Welcome to the board"; echo \'{"size": 3}\'; exec "$PYTHON" "$@"')
    assert probe()[0] == 0


def test_another_key_is_refused_in_one_sentence(board, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    assert board.add("pi", "--identity", tmp_path / "other", "--replace").code == 0
    code, message = probe()
    assert code == 2
    assert (
        "accepts none of these keys (root@127.0.0.1: Permission denied (publickey).)".replace(
            "root", BOARDS.load("pi").ssh.partition("@")[0]
        )
        in message
    )
    assert f"ssh-copy-id -p {board.port} -i {tmp_path / 'other'}" in message


def test_a_host_key_that_has_changed_is_refused_and_stays_refused(board):
    try:
        know(board.folder, board.port, "user_key")
        code, message = probe()
    finally:
        know(board.folder, board.port)
    assert code == 2
    assert "the host key of" in message
    assert "has changed" in message
    assert "ssh-keygen -f" in message
    assert "\n" not in message


def test_a_host_key_that_is_not_known_is_not_accepted_by_edgekit(board):
    try:
        (board.folder / "known_hosts").write_text("")
        code, message = probe()
        assert (board.folder / "known_hosts").read_text() == ""
    finally:
        know(board.folder, board.port)
    assert code == 2
    assert f"is not known; connect once by hand: ssh -p {board.port}" in message


def test_the_user_s_own_configuration_decides_about_host_keys(board):
    config = board.ssh_config.read_text()
    try:
        (board.folder / "known_hosts").write_text("")
        board.ssh_config.write_text(f"StrictHostKeyChecking accept-new\n{config}")
        assert probe()[0] == 0
        assert (board.folder / "known_hosts").read_text() != ""
    finally:
        board.ssh_config.write_text(config)
        know(board.folder, board.port)


def test_a_board_without_python_is_told_apart(board):
    assert board.add("pi", "--python", "/nowhere/python3", "--replace").code == 0
    code, message = probe()
    assert code == 3
    assert message.startswith("pi has no Python '/nowhere/python3'; install one there")


def test_a_path_is_never_read_by_the_board_s_shell(board, tmp_path):
    witness = tmp_path / "witness"
    assert board.add("pi", "--python", f"x'; touch {witness}; '$(touch {witness})", "--replace").code == 0
    assert probe()[0] == 3
    assert not witness.exists()


def test_a_python_that_is_too_old_is_told_with_its_version(board, tmp_path):
    old = tmp_path / "old"
    old.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 9, 2)\n"
        "code = sys.argv[sys.argv.index('-c') + 1]\nsys.argv = ['-c']\nexec(code)\n"
    )
    old.chmod(0o755)
    assert board.add("pi", "--python", old, "--replace").code == 0
    code, message = probe()
    assert code == 3
    assert "has Python 3.9.2" in message
    assert "needs 3.11" in message


def test_a_clock_that_is_wrong_is_told_and_does_no_harm(board, tmp_path):
    skewed = tmp_path / "skewed"
    skewed.write_text(
        f"#!{sys.executable}\nimport sys, time\nnow = time.time\ntime.time = lambda: now() - 400 * 86400\n"
        "code = sys.argv[sys.argv.index('-c') + 1]\n"
        "sys.argv = ['-c', *sys.argv[sys.argv.index('-c') + 2 :]]\nexec(code)\n"
    )
    skewed.chmod(0o755)
    assert board.add("pi", "--python", skewed, "--replace").code == 0
    answer = call("devices", "probe", "pi")
    assert answer.code == 0, answer.err
    assert "the clock is 9600 h 0 m behind this host's; measurements do not depend on it" in answer.out


@pytest.mark.parametrize(
    ("destination", "code", "expected"),
    [
        ("pi@none-such.invalid", 2, "the host name of pi@none-such.invalid is not known"),
        ("pi@127.0.0.1:{closed}", 4, "cannot connect to pi@127.0.0.1 port"),
    ],
)
def test_a_board_that_is_not_there_is_one_sentence(board, destination, code, expected):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        target = destination.format(closed=unused.getsockname()[1])
        assert call("devices", "add", "pi", "--ssh", target, "--replace").code == 0
        found, message = probe()
    assert found == code
    assert expected in message
    assert "\n" not in message


@pytest.mark.slow
def test_a_board_that_is_slow_to_answer_is_given_up(board, wrapped, monkeypatch):
    wrapped('sleep 5; exec "$PYTHON" "$@"')
    monkeypatch.setattr(connections, "ANSWER_S", 1.0)
    start = time.monotonic()
    code, message = probe()
    assert code == 4
    assert message.endswith("did not answer in time; it was given up")
    assert time.monotonic() - start < 10


def test_what_is_no_reply_of_edgekit_is_one_sentence(board, wrapped):
    wrapped('printf "edgekit-board-agent 1\\nhello\\n"; cat >/dev/null')
    assert probe() == (4, "pi sent a reply that is none of edgekit's")


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def connection(board):
    with Connection("pi", BOARDS.load("pi")) as opened:
        yield opened


def content_file(folder, content):
    path = folder / "file"
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest(), path


def test_a_file_is_sent_once_and_again_when_its_copy_has_changed(board, connection, tmp_path):
    sha256, path = content_file(tmp_path, os.urandom(1_200_000))
    assert connection.upload({sha256: path}, step="send", timeout_s=60) == 1_200_000
    assert connection.upload({sha256: path}, step="send", timeout_s=60) == 0
    copy = board.store / "files" / sha256
    copy.write_bytes(b"x" * 1_200_000)  # of equal size
    assert connection.upload({sha256: path}, step="send", timeout_s=60) == 1_200_000
    assert copy.read_bytes() == path.read_bytes()


def test_a_file_that_was_cut_off_is_continued(board, connection, tmp_path):
    content = os.urandom(1_000_000)
    sha256, path = content_file(tmp_path, content)
    (board.store / "files").mkdir(parents=True, exist_ok=True)
    (board.store / "files" / f"{sha256}.part").write_bytes(content[:700_000])
    assert connection.upload({sha256: path}, step="send", timeout_s=60) == 300_000
    assert (board.store / "files" / sha256).read_bytes() == content


def test_an_empty_file_is_a_file(board, connection, tmp_path):
    sha256, path = content_file(tmp_path, b"")
    connection.upload({sha256: path}, step="send", timeout_s=60)
    assert (board.store / "files" / sha256).read_bytes() == b""


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_a_path_of_a_request_stays_in_the_run_s_folder(connection, name):
    request = {
        "op": "run", "python": sys.executable, "arguments": ["-c", ""], "paths": [], "files": {}, "texts": {name: ""},
        "variables": {}, "read": [], "output": "", "lock": False, "timeout_s": 5,
    }  # fmt: skip
    with pytest.raises(Exception, match="no path inside of a folder"):
        connection.call(request, step="look")


def test_a_full_disk_is_one_sentence(board, wrapped, tmp_path):
    refused = subprocess.run(with_mounts("mount -t tmpfs none /mnt"), capture_output=True, text=True)
    if mounts_refused(refused.stderr):
        pytest.skip("nothing can be mounted here")
    full = tmp_path / "full"
    full.mkdir()
    wrapped(
        f"export XDG_CACHE_HOME='{full}'\n"
        f'exec unshare -rm sh -c \'mount -t tmpfs -o size=256k none "$0" && exec "$@"\' \'{full}\' "$PYTHON" "$@"'
    )
    sha256, path = content_file(tmp_path, os.urandom(600_000))
    with Connection("pi", BOARDS.load("pi")) as connection, pytest.raises(DiskFull) as caught:
        connection.upload({sha256: path}, step="send", timeout_s=60)
    assert "no space left on pi" in str(caught.value)
    assert caught.value.exit_code == 4


# Ends -----------------------------------------------------------------------------------------------------------------


def sleep_on(board_object, seconds=60.0, timeout_s=60.0, lock=True):
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', sys.argv[1]]); time.sleep(float(sys.argv[1]))"
    arguments = ("-c", code, str(seconds))
    return board_object._python(arguments, step="sleep", timeout_s=timeout_s, lock=lock)


@pytest.fixture
def sleeping(board):
    """A board on which a program and its child sleep, and the thread and errors of the call."""
    errors: list[EdgekitError] = []

    def run(opened: Board) -> None:
        try:
            sleep_on(opened)
        except EdgekitError as error:
            errors.append(error)

    with Board("pi", BOARDS.load("pi")) as opened:
        opened.folders("send")
        thread = threading.Thread(target=run, args=(opened,))
        thread.start()
        wait_for_sleep(board)
        yield opened, thread, errors
        opened.connection._end_session()
        thread.join(20)
        assert not thread.is_alive()


def wait_for_sleep(board):
    deadline = time.monotonic() + 30
    while not any(b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()[:16] for pid in board.processes()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_connection_that_is_cut_leaves_nothing_running(board, sleeping):
    _opened, thread, errors = sleeping
    board.cut()
    thread.join(20)
    (error,) = errors
    assert isinstance(error, StepCrashed)
    assert "the connection to pi was lost" in str(error)
    board.wait_until_idle()
    assert not list((board.store / "runs").glob("*"))


def test_an_agent_that_is_killed_takes_its_program_with_it(board, sleeping):
    _opened, thread, errors = sleeping
    agents = [
        pid
        for pid in board.processes()
        if b"import sys;f=sys.stdin.buffer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    # Not its watcher, a fork of it: nobody would be left to end the program.
    [agent] = [pid for pid in agents if int(Path(f"/proc/{pid}/stat").read_text().split()[3]) not in agents]
    os.kill(agent, signal.SIGKILL)
    thread.join(20)
    assert isinstance(errors[0], StepCrashed)


def test_ctrl_c_does_not_wait_for_a_master_connection_that_hangs(board, sleeping):
    """The client hands its pipes to the master connection; they stay open when the client is ended."""
    opened, thread, errors = sleeping
    connection = opened.connection
    check = subprocess.run(
        [*connection._ssh(), "-O", "check", "--", connection.board.ssh], capture_output=True, text=True, check=True
    )
    master = int(re.search(r"pid=(\d+)", check.stderr).group(1))
    os.kill(master, signal.SIGSTOP)
    try:
        stop_all()
        thread.join(20)
        assert not thread.is_alive()
    finally:
        os.kill(master, signal.SIGKILL)
    assert isinstance(errors[0], StepCrashed)
    assert "the connection to pi was stopped" in str(errors[0])


@pytest.fixture
def impatient(tmp_path, monkeypatch):
    """An agent that gives up a silent client after 2 s."""
    agent = tmp_path / "agent.py"
    source = connections._AGENT.read_text()
    assert "\nSILENCE_S = 30.0\n" in source
    agent.write_text(source.replace("\nSILENCE_S = 30.0\n", "\nSILENCE_S = 2.0\n"))
    monkeypatch.setattr(connections, "_AGENT", agent)
    monkeypatch.setattr(connections, "_PING_S", 0.5)


@pytest.mark.exhaustive
def test_a_cable_that_is_unplugged_is_noticed_on_both_sides(impatient, board, sleeping):
    _opened, thread, errors = sleeping
    time.sleep(2.5)
    assert thread.is_alive()  # the signs of life of this side arrive
    board.signal_sessions(signal.SIGSTOP)
    try:
        board.wait_until_idle()
        thread.join(30)
    finally:
        board.cut()
    assert isinstance(errors[0], StepCrashed)
    assert "the connection to pi was lost" in str(errors[0])


@pytest.mark.slow
def test_a_program_that_takes_too_long_is_ended(board):
    with Board("pi", BOARDS.load("pi")) as opened, pytest.raises(StepTimedOut, match="no answer after 1 s"):
        sleep_on(opened, timeout_s=1.0)
    board.wait_until_idle()


@pytest.mark.slow
def test_a_measurement_waits_for_another_one_and_says_so(board, sleeping):
    told: list[str] = []
    with Board("pi", BOARDS.load("pi")) as second, pytest.raises(StepTimedOut, match="pi is busy"):
        second._python(("-c", ""), step="second", timeout_s=0.5, waiting=lambda: told.append("waiting"))
    assert told == ["waiting"]


def test_a_program_that_is_killed_is_told_as_such(board):
    with Board("pi", BOARDS.load("pi")) as opened, pytest.raises(StepCrashed, match="crashed with SIGSEGV"):
        opened._python(("-c", "import os; os.kill(os.getpid(), 11)"), step="crash", timeout_s=30)


@pytest.mark.slow
def test_the_connection_is_opened_again_after_it_was_cut(board):
    with Board("pi", BOARDS.load("pi")) as opened:
        opened.machine()
        board.cut()
        time.sleep(0.3)
        assert opened.machine().cores


@pytest.mark.slow
def test_no_process_of_ssh_outlives_the_command(board, tmp_path):
    process = spawn("devices", "probe", "pi", env={"TMPDIR": str(tmp_path)})
    process.communicate(timeout=120)
    assert process.returncode == 0
    deadline = time.monotonic() + 5
    while any(str(tmp_path).encode() in _environment(entry) for entry in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "a process was left running"
        time.sleep(0.05)
    assert not list(tmp_path.glob("edgekit-ssh-*"))


def _environment(entry):
    try:
        return (entry / "environ").read_bytes() if (entry / "comm").read_text().strip() == "ssh" else b""
    except OSError:
        return b""

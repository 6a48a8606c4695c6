"""What a model file must not do, as functions that the confinement tests send to workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any


def write(path: str, *, emit: Any) -> None:
    Path(path).write_text("written")


def append_through_link(path: str, *, emit: Any) -> None:
    link = Path(tempfile.mkdtemp(), "link")
    link.symlink_to(path)
    with link.open("a") as stream:
        stream.write("written")


def remove(path: str, *, emit: Any) -> None:
    Path(path).unlink()


def make_folder(path: str, *, emit: Any) -> None:
    Path(path).mkdir()


def rename(path: str, *, emit: Any) -> None:
    Path(path).rename(Path(tempfile.mkdtemp(), "moved"))


def change_mode(path: str, *, emit: Any) -> None:
    Path(path).chmod(0o777)


def change_times(path: str, *, emit: Any) -> None:
    os.utime(path, (1, 1))


def write_in_thread(path: str, *, emit: Any) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            Path(path).write_text("written")
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def run_program(path: str, *, emit: Any) -> None:
    subprocess.run(["/bin/sh", "-c", 'echo written > "$0"', path], check=True)


def run_python(path: str, *, emit: Any) -> None:
    """With Python among the programs that it may start: the program is confined too."""
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('written')"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(13, done.stderr.splitlines()[-1])


def connect(port: int, *, emit: Any) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def connect_unix(path: str, *, emit: Any) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def kill(pid: int, *, emit: Any) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError as error:
        raise PermissionError(13, "kill") from error


def write_by_torch(path: str, *, emit: Any) -> None:
    import torch

    torch.from_file(path, shared=True, size=4, dtype=torch.uint8).fill_(7)


def write_by_tensorflow(path: str, *, emit: Any) -> None:
    import tensorflow as tf

    tf.io.write_file(path, "written")


def write_own_folder(*, emit: Any) -> str:
    path = Path(tempfile.mkdtemp(), "file")
    path.write_text("written")
    return path.read_text()


def write_folder(folder: str, *, emit: Any) -> None:
    Path(folder, "file").write_text("written")


def read(path: str, *, emit: Any) -> str:
    return Path(path).read_text()


class _Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"echo written > {self.path}",)


def answer_with_code(path: str, *, emit: Any) -> Any:
    return _Evil(path)

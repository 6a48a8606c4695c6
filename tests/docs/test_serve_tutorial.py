"""The tutorial of the server: its requests are sent to a server, and are answered as the page shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _helpers.served import TRITON_CLIENT, Server, serving
from _helpers.support import REPOSITORY

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "tutorials" / "serve.md"


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project, "simple_cnn", "--framework", "torch", "--target", "onnx:float32") as running:
        yield running


def at(server: Server, text: str) -> str:
    assert "127.0.0.1:8080" in text
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")


def test_curl_gets_what_the_page_shows(server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    commands = [(line.removeprefix("$ "), lines[index + 1]) for index, line in enumerate(lines) if line[:6] == "$ curl"]
    assert len(commands) == 4
    for command, shown in commands:
        done = subprocess.run(shlex.split(at(server, command)), capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (shown, "")


@pytest.mark.parametrize("index", [0, 1])
def test_the_python_clients_run(server: Server, index: int) -> None:
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[index]
    if "tritonclient" in code and not TRITON_CLIENT.is_dir():
        pytest.skip("needs: make triton-client")
    environment = {**os.environ, "PYTHONPATH": str(TRITON_CLIENT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", at(server, code)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = [float(number) for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", done.stdout)]
    assert len(numbers) == 10
    assert sum(numbers) == pytest.approx(1, abs=1e-3)

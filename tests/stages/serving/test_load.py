"""Ten thousand requests while workers are killed: each is answered once, and rightly."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _helpers.served import WEIGHTS, Server, serving, write_served

pytest.importorskip("fastapi")
pytestmark = pytest.mark.exhaustive

REQUESTS, CONNECTIONS = 10_000, 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_served(tmp_path / "build")
    with serving(tmp_path, "rows", "--workers", 2, "--batch-delay", 1) as running:
        yield running


async def _kill_workers(server: Server, done: asyncio.Event) -> int:
    """Kill one worker after another, which leaves each request a worker for its second attempt."""
    killed = 0
    while not done.is_set():
        for pid in await asyncio.to_thread(server.workers):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
            break
        try:
            await asyncio.wait_for(done.wait(), 5)
        except TimeoutError:
            continue
    return killed


class _Client:
    """Sends requests over one connection, and checks every answer."""

    def __init__(self, server: Server, outcomes: Counter[str]) -> None:
        self._server = server
        self._outcomes = outcomes

    async def run(self, numbers: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        for number in numbers:
            x = [number % 7, number % 11, -number % 13, 1]
            body = json.dumps({"instances": [{"x": x, "n": [number]}]}).encode()
            head = f"POST /v1/models/rows:predict HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            headers = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", headers, re.IGNORECASE)
            assert length is not None, headers
            answer = json.loads(await reader.readexactly(int(length[1])))
            self._outcomes[self._judge(headers, answer, number, x)] += 1
        writer.close()

    @staticmethod
    def _judge(headers: str, answer: dict[str, object], number: int, x: list[int]) -> str:
        status = headers.split()[1]
        if status != "200":
            return f"{status} {answer}"
        (row,) = answer["predictions"]  # type: ignore[misc]
        right = row["m"] == [number] and np.allclose(row["y"], np.array(x) @ WEIGHTS + number, rtol=1e-5)
        return "right" if right else "wrong"


def test_no_request_is_lost_or_wrong_while_workers_are_killed(server: Server) -> None:
    outcomes: Counter[str] = Counter()

    async def load() -> int:
        done = asyncio.Event()
        killer = asyncio.create_task(_kill_workers(server, done))
        numbers = iter(range(REQUESTS))
        await asyncio.gather(*(_Client(server, outcomes).run(numbers) for _ in range(CONNECTIONS)))
        done.set()
        return await killer

    killed = asyncio.run(load())
    assert killed >= 3
    assert outcomes == {"right": REQUESTS}


def test_a_load_generator_sees_no_failed_request(server: Server, tmp_path: Path) -> None:
    if shutil.which("ab") is None:
        pytest.skip("needs: apt-get install apache2-utils")
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [{"x": [1, 2, 3, 4], "n": [7]}]}))
    url = f"http://127.0.0.1:{server.port}/v1/models/rows:predict"
    command = ["ab", "-q", "-k", "-n", str(REQUESTS), "-c", "16", "-p", str(body), "-T", "application/json", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ab:
        os.kill(server.workers()[0], signal.SIGKILL)
        out, _ = ab.communicate(timeout=300)
    assert re.search(rf"Complete requests:\s+{REQUESTS}\n", out), out
    assert re.search(r"Failed requests:\s+0\n", out), out
    assert "Non-2xx" not in out

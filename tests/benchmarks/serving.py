"""Compares `edgekit serve` with MLServer and LitServe on one ONNX model: throughput and latency, as ratios.

Usage: serving.py FOLDER ARTIFACT [REQUESTS]

The rivals are installed into private environments in FOLDER. All servers run the same file by ONNX Runtime with one
thread in one worker process, with their default settings, one after another and in several rounds, and get the same
JSON requests over kept connections from one client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.records.artifact import Artifact, load_artifact

RIVALS = Path(__file__).parent / "serving_rivals"
# MLServer 1.7's workers fail to start with a newer uvloop.
PACKAGES = {"mlserver": ("mlserver==1.7.1", "uvloop==0.21.0"), "litserve": ("litserve==0.2.19",)}
CONNECTIONS, ROUNDS, WARM_UP = (1, 16), 3, 200


@dataclass(frozen=True)
class Rival:
    """A server: how it is started, where it takes requests, and how their answers are read."""

    start: Callable[[Artifact, Path, int], list[str]]
    path: str
    body: Callable[[str, np.ndarray], dict[str, Any]]
    outputs: Callable[[dict[str, Any]], Any]


def rows(_name: str, x: np.ndarray) -> dict[str, Any]:
    return {"instances": x.tolist()}


def tensor(name: str, x: np.ndarray) -> dict[str, Any]:
    data = x.ravel().tolist()
    return {"inputs": [{"name": name, "datatype": "FP32", "shape": list(x.shape), "data": data}]}


def edgekit(artifact: Artifact, _folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "edgekit", "serve", str(artifact.folder.resolve()), "--port", str(port)]


def mlserver(artifact: Artifact, folder: Path, port: int) -> list[str]:
    models = folder / "mlserver-models"
    models.mkdir(exist_ok=True)
    (models / "mlserver_model.py").write_text((RIVALS / "mlserver_model.py").read_text())
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1"}
    (models / "settings.json").write_text(json.dumps({**ports, "debug": False, "parallel_workers": 1}))
    model = {"name": artifact.manifest.model, "implementation": "mlserver_model.Model"}
    (models / "model-settings.json").write_text(
        json.dumps({**model, "parameters": {"uri": str(artifact.path.resolve())}})
    )
    return [str(folder / "mlserver" / "bin" / "mlserver"), "start", str(models)]


def litserve(artifact: Artifact, folder: Path, port: int) -> list[str]:
    return [
        str(folder / "litserve" / "bin" / "python"),
        str(RIVALS / "litserve_server.py"),
        str(artifact.path.resolve()),
        str(port),
    ]


OF_TENSORS = "/v2/models/{model}/infer"
SERVERS = {
    "edgekit v2": Rival(edgekit, OF_TENSORS, tensor, lambda answer: answer["outputs"][0]["data"]),
    "mlserver": Rival(mlserver, OF_TENSORS, tensor, lambda answer: answer["outputs"][0]["data"]),
    "edgekit v1": Rival(edgekit, "/v1/models/{model}:predict", rows, lambda answer: answer["predictions"]),
    "litserve": Rival(litserve, "/predict", rows, lambda answer: answer["predictions"]),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def install(folder: Path) -> None:
    for name, packages in PACKAGES.items():
        environment = folder / name
        if not (environment / "done").exists():
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *packages, "onnxruntime==1.32.0"], check=True)
            (environment / "done").touch()


@contextlib.contextmanager
def running(rival: Rival, artifact: Artifact, folder: Path, x: np.ndarray) -> Iterator[int]:
    """Start a server, and check that it computes the model."""
    port = free_port()
    command = rival.start(artifact, folder, port)
    environment = {**os.environ, "PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}{rival.path.format(model=artifact.manifest.model)}"
        (name,) = (spec.name for spec in artifact.manifest.signature.inputs)
        body = json.dumps(rival.body(name, x)).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        answer = wait_for(request, process)
        expected = next(iter(artifact.golden().outputs.values()))[:1]
        np.testing.assert_allclose(np.ravel(rival.outputs(answer)), expected.ravel(), atol=1e-4)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(request: urllib.request.Request, process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except (OSError, urllib.error.HTTPError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


async def measure(port: int, path: str, body: bytes, count: int, connections: int) -> tuple[float, np.ndarray]:
    """Return the requests per second, and the latency of each in ms."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    message, numbers, latencies = head.encode() + body, iter(range(count)), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in numbers:
            started = time.perf_counter()
            writer.write(message)
            headers = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert headers.startswith("HTTP/1.1 200"), headers
            length = re.search(r"content-length: (\d+)", headers, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length[1]))
            latencies.append((time.perf_counter() - started) * 1000)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    return count / (time.perf_counter() - started), np.array(latencies)


def main(folder: Path, artifact: Artifact, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    install(folder)
    x = next(iter(artifact.golden().inputs.values()))[:1].astype(np.float32)
    (name,) = (spec.name for spec in artifact.manifest.signature.inputs)
    figures: dict[tuple[str, int], list[tuple[float, np.ndarray]]] = {}
    for _ in range(ROUNDS):
        for server, rival in SERVERS.items():
            with running(rival, artifact, folder, x) as port:
                path = rival.path.format(model=artifact.manifest.model)
                body = json.dumps(rival.body(name, x)).encode()
                for connections in CONNECTIONS:
                    asyncio.run(measure(port, path, body, WARM_UP, connections))
                    figures.setdefault((server, connections), []).append(
                        asyncio.run(measure(port, path, body, count, connections))
                    )
    for (ours, theirs), connections in (
        (pair, connections)
        for pair in (("edgekit v2", "mlserver"), ("edgekit v1", "litserve"))
        for connections in CONNECTIONS
    ):
        print(
            f"{theirs}, {connections} connections: {compared(figures[ours, connections], figures[theirs, connections])}"
        )


def compared(ours: list[tuple[float, np.ndarray]], theirs: list[tuple[float, np.ndarray]]) -> str:
    """Return edgekit's figures divided by the other's: medians over the rounds."""
    throughput = np.median([rate for rate, _ in ours]) / np.median([rate for rate, _ in theirs])
    p50, p99 = (
        np.median([np.percentile(latencies, share) for _, latencies in ours])
        / np.median([np.percentile(latencies, share) for _, latencies in theirs])
        for share in (50, 99)
    )
    return f"edgekit has {throughput:.2f} times the throughput, {p50:.2f} of the p50 and {p99:.2f} of the p99"


if __name__ == "__main__":
    main(Path(sys.argv[1]), load_artifact(Path(sys.argv[2])), int(sys.argv[3]) if sys.argv[3:] else 2000)

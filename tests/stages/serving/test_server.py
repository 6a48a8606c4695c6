"""`edgekit serve` as a process, with clients of both protocols, crashes and bad clients."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _helpers.served import FIXTURE, TRITON_CLIENT, Server, onnx_outputs, serving, write_served
from _helpers.support import call

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow

X = np.arange(8, dtype=np.float32).reshape(2, 4)
N = np.array([[7], [9]], np.int64)


def infer_body(x: np.ndarray = X, n: np.ndarray = N, **other: Any) -> dict[str, Any]:
    inputs = [("x", "FP32", x), ("n", "INT64", n)]
    return {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}
            for name, datatype, array in inputs
        ],
        **other,
    }


def scripted(value: float) -> dict[str, Any]:
    return {"instances": [[value, 0]]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_served(folder / "build")
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    limits = ("--max-body", 1, "--transfer-timeout", 2, "--request-timeout", 8, "--max-queue", 4)
    with serving(root, *limits) as running:
        yield running


def metric(server: Server, name: str) -> float:
    lines = server.request("/metrics").body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_health_and_metadata(server: Server) -> None:
    assert server.request("/v2").data["name"] == "edgekit"
    assert server.request("/v2/health/live").status == 200
    assert server.request("/v2/health/ready").data == {"ready": True}
    assert server.request("/v2/models/rows/versions/1/ready").data == {"ready": True}
    assert [model["name"] for model in server.request("/v2/repository/index", {}).data] == [
        "fixed",
        "quantized",
        "rows",
        "scripted",
    ]
    metadata = server.request("/v2/models/rows").data
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    (status,) = server.request("/v1/models/rows").data["model_version_status"]
    assert status["state"] == "AVAILABLE"
    definition = server.request("/v1/models/rows/versions/1/metadata").data["metadata"]["signature_def"]
    assert definition["signature_def"]["serving_default"]["inputs"]["n"]["dtype"] == "DT_INT64"


def test_the_openapi_document_lists_both_protocols(server: Server) -> None:
    paths = server.request("/openapi.json").data["paths"]
    assert "post" in paths["/v2/models/{name}/infer"]
    assert "post" in paths["/v1/models/{name}:predict"]
    assert not any("version" in path for path in paths)


def test_both_protocols_compute_what_the_model_computes(server: Server) -> None:
    expected = onnx_outputs(X, N)
    answer = server.request("/v2/models/rows/infer", infer_body(id="a")).data
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("rows", "1", "a")
    for output in answer["outputs"]:
        np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected[output["name"]], rtol=1e-6)
    rows = [{"x": x.tolist(), "n": n.tolist()} for x, n in zip(X, N, strict=True)]
    predictions = server.request("/v1/models/rows/versions/1:predict", {"instances": rows}).data["predictions"]
    np.testing.assert_allclose([row["y"] for row in predictions], expected["y"], rtol=1e-6)
    columns = server.request("/v1/models/fixed:predict", {"inputs": {"x": X.tolist(), "n": N.tolist()}}).data
    np.testing.assert_allclose(columns["outputs"]["y"], expected["y"], rtol=1e-6)


def test_a_quantized_model_takes_and_returns_real_values_or_its_own_integers(server: Server) -> None:
    rows = [[0.5, -3.0, 4.0, 0.26], [-0.5, 1.0, 2.0, 3.0]]  # 0.26 is rounded to 0.5, a multiple of the scale
    relu = [[0.5, 0.0, 4.0, 0.5], [0.0, 1.0, 2.0, 3.0]]
    assert server.request("/v1/models/quantized:predict", {"instances": rows}).data == {"predictions": relu}
    stored = {"name": "x", "datatype": "INT8", "shape": [1, 4], "data": [-9, -16, -2, -10]}
    (output,) = server.request("/v2/models/quantized/infer", {"inputs": [stored]}).data["outputs"]
    assert output == {"name": "y", "datatype": "INT8", "shape": [1, 4], "data": [-9, -10, -2, -10]}


def test_tritons_own_client(server: Server) -> None:
    if not TRITON_CLIENT.is_dir():
        pytest.skip("needs: make triton-client")
    script = Path(__file__).with_name("triton_client.py")
    environment = {**os.environ, "PYTHONPATH": str(TRITON_CLIENT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, script, f"127.0.0.1:{server.port}"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all answers are right\n"


def test_curl(server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    url = f"http://127.0.0.1:{server.port}/v1/models/quantized:predict"
    done = subprocess.run(
        ["curl", "-sS", "-d", '{"instances": [[1.0, -1.0, 2.0, 0.0]]}', url], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == {"predictions": [[1.0, 0.0, 2.0, 0.0]]}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v2/models/other/infer", {}, 404, "there is no model 'other'; this server has fixed, quantized, rows"),
        ("/v1/models/other:predict", {}, 404, "there is no model 'other'"),
        ("/v2/models/other", None, 404, "there is no model 'other'"),
        ("/v2/models/rows/versions/2/infer", {}, 404, "the model rows has no version '2', only 1"),
        ("/v1/models/rows:classify", {}, 405, "'/v1/models/rows:classify' does not take POST"),
        ("/v2/models/rows/infer", None, 405, "does not take GET requests"),
        ("/favicon.ico", None, 404, "/openapi.json lists all"),
        ("/v2/models/rows/infer", b'{"inputs": [NaN]}', 400, "contains NaN"),
        ("/v2/models/rows/infer", b"\x00", 400, "the request is not JSON"),
        ("/v1/models/scripted:predict", scripted(667), 500, "the runtime rejected this request: index 9 is out of"),
        ("/v1/models/scripted:predict", scripted(668), 500, "the output y has values that are NaN or infinite"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(server: Server, path: str, body: Any, status: int, words: str) -> None:
    reply = server.request(path, body)
    assert reply.status == status
    assert words in reply.error


def test_a_body_may_be_compressed(server: Server) -> None:
    content = gzip.compress(json.dumps(infer_body()).encode())
    headers = {"Content-Encoding": "gzip"}
    assert server.request("/v2/models/rows/infer", content, headers).status == 200
    bomb = gzip.compress(bytes(4 * 1024**2))
    assert server.request("/v2/models/rows/infer", bomb, headers).status == 413
    assert "incomplete" in server.request("/v2/models/rows/infer", content[:-9], headers).error
    assert "not gzip data" in server.request("/v2/models/rows/infer", b"{}", headers).error
    assert server.request("/v2/models/rows/infer", b"{}", {"Content-Encoding": "br"}).status == 415


def test_a_body_beyond_the_limit_is_refused_however_it_is_sent(server: Server) -> None:
    reply = server.request("/v2/models/rows/infer", bytes(3 * 1024**2))
    assert (reply.status, reply.error) == (413, "the request is larger than 1 MiB, the limit of this server")
    with server.connect() as client:
        client.sendall(b"POST /v2/models/rows/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            client.sendall(b"100000\r\n" + bytes(0x100000) + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert b" 413 " in received(client)
    with server.connect() as client:  # 100 MB that are announced, and never sent
        client.sendall(
            b"POST /v2/models/rows/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert b" 413 " in received(client)


def received(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    content = b""
    while part := client.recv(65536):
        content += part
    return content


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST /v2/models/rows/infer HTTP/1.1\r\nHost: h\r\nX-Slow: ",
        b"POST /v2/models/rows/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n",
        b"POST /v2/models/rows/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\nGET /v2 HTTP/1.1\r\n",
    ],
    ids=["silence", "headers", "body", "large body", "second request"],
)
def test_a_client_that_sends_a_byte_a_second_is_cut_off(server: Server, start: bytes) -> None:
    with server.connect() as client:
        client.sendall(start)
        stop = time.monotonic() + 10
        answer = b""
        client.settimeout(0.5)
        while time.monotonic() < stop:
            try:
                part = client.recv(65536)
                answer += part
                if not part:
                    break
            except TimeoutError:
                client.sendall(b"a" if start else b"")
            except ConnectionResetError:  # a byte reached the socket after it was closed, and took the answer with it
                answer = b" 408 "
                break
        else:
            raise AssertionError("the connection is still open")
    assert b" 408 " in answer
    assert server.request("/v2/health/live").status == 200


def test_a_worker_that_is_killed_is_replaced_and_no_request_is_lost(server: Server, root: Path) -> None:
    before = metric(server, "edgekit_worker_restarts_total")
    busy = ThreadPoolExecutor(1).submit(server.request, "/v1/models/scripted:predict", scripted(1.0))
    time.sleep(0.3)
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    # One was computing: its request is tried again. The others were idle.
    assert busy.result().data == {"predictions": [[2.0, 0.0]]}
    assert server.request("/v2/models/rows/infer", infer_body()).status == 200
    assert metric(server, "edgekit_worker_restarts_total") == before + 1


def test_a_request_that_crashes_the_runtime_is_answered_and_the_next_one_too(server: Server) -> None:
    reply = server.request("/v1/models/scripted:predict", scripted(666))
    assert reply.status == 503
    assert reply.error == "the runtime of the model scripted crashed twice while it computed this request"
    assert reply.headers["retry-after"] == "1"
    assert server.request("/v1/models/scripted:predict", scripted(-1)).data == {"predictions": [[-2.0, 0.0]]}


def test_a_full_queue_and_a_slow_model_are_503_and_504(server: Server) -> None:
    server.request("/v1/models/scripted:predict", scripted(-1))  # the worker waits for requests
    with ThreadPoolExecutor(8) as clients:
        # The first occupies the worker beyond the limit of 8 s; the others wait.
        slow = clients.submit(server.request, "/v1/models/scripted:predict", scripted(20))
        time.sleep(0.5)
        waiting = [clients.submit(server.request, "/v1/models/scripted:predict", scripted(-1)) for _ in range(6)]
        replies = [future.result() for future in waiting]
        assert slow.result().status == 504
        assert "no answer within 8 s" in slow.result().error
    full = [reply for reply in replies if reply.status == 503]
    assert len(full) == 2
    assert full[0].error == "4 requests already wait for the model scripted"
    assert server.request("/v1/models/scripted:predict", scripted(-1)).status == 200


def test_metrics_count_answers_by_status_and_no_unknown_names(server: Server) -> None:
    server.request("/v2/models/rows/infer", infer_body())
    server.request("/v2/models/made-up/infer", {})
    text = server.request("/metrics").body.decode()
    assert 'edgekit_requests_total{model="rows",protocol="v2",status="200"}' in text
    assert 'edgekit_model_ready{model="rows"} 1.0' in text
    assert 'edgekit_requests_total{model="",protocol="v2",status="404"}' in text
    assert "made-up" not in text


def test_requests_that_wait_together_share_an_inference_and_get_their_own_rows(root: Path) -> None:
    with serving(root, "rows", "--batch-delay", 300, "--max-batch", 8) as server, ThreadPoolExecutor(8) as clients:
        rows = [(X[:1] + index, N[:1] + index) for index in range(8)]
        replies = list(clients.map(lambda row: server.request("/v2/models/rows/infer", infer_body(*row)), rows))
        for (x, n), reply in zip(rows, replies, strict=True):
            output = next(output for output in reply.data["outputs"] if output["name"] == "y")
            np.testing.assert_allclose(np.reshape(output["data"], (1, 3)), onnx_outputs(x, n)["y"], rtol=1e-6)
        assert metric(server, "edgekit_inferences_total") < 8
        assert metric(server, "edgekit_inference_rows_sum") == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)])
def test_a_signal_ends_the_server_after_its_requests(root: Path, number: int) -> None:
    with serving(root, "scripted") as server:
        answers: list[Any] = []
        client = threading.Thread(
            target=lambda: answers.append(server.request("/v1/models/scripted:predict", scripted(1.5)))
        )
        client.start()
        time.sleep(0.5)
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
        client.join()
        assert answers[0].data == {"predictions": [[3.0, 0.0]]}
        assert server.workers() == []
        _, err = server.process.communicate()
        assert err == ""


def test_a_port_in_use_a_bad_address_and_a_changed_file_are_one_sentence(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = call("serve", "rows", "--port", port, "--root", root)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"Error: cannot listen on port {port} of 127.0.0.1 (Address already in use) (see --port)\n"
    answer = call("serve", "rows", "--host", "no.such.host.invalid", "--root", root)
    assert answer.code == 2
    assert "the address 'no.such.host.invalid' is unknown" in answer.err
    copy = shutil.copytree(root, tmp_path / "copy")
    (copy / "build/rows/onnx/onnx-float32/model.onnx").write_bytes(b"other")
    answer = call("serve", "rows", "--root", copy)
    assert answer.code == 2
    assert "truncated or was replaced" in answer.err


def test_what_happens_to_workers_is_on_stderr_for_a_journal(root: Path) -> None:
    with serving(root, "scripted") as server:
        assert server.request("/v1/models/scripted:predict", scripted(666)).status == 503
        assert server.request("/v1/models/scripted:predict", scripted(-1)).status == 200
        server.process.terminate()
        _, err = server.process.communicate(timeout=60)
    assert err == "warning serve scripted: its process crashed with SIGABRT\n" * 2


def test_what_is_not_equivalent_is_not_served(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FIXTURE))
    copy = shutil.copytree(root, tmp_path / "copy")
    golden = copy / "build/quantized/keras/tflite-int8/golden.npz"
    arrays = dict(np.load(golden))
    np.savez(golden, **{**arrays, "output/y": -arrays["output/y"]})
    answer = call("serve", "quantized", "--validate", "--root", copy)
    assert answer.code == 1
    assert answer.err.startswith("Error: quantized is not equivalent to its source: ")


def test_without_the_extra_the_command_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = call("serve", "rows", "--root", root)
    assert answer.code == 3
    assert answer.err == "Error: edgekit serve needs uvicorn; install it with: pip install 'edgekit[serve]'\n"


def test_names_are_as_short_as_they_can_be(root: Path, tmp_path: Path) -> None:
    from edgekit.core.records.artifact import load_artifact
    from edgekit.stages.serving.serve import served_names

    rows = load_artifact(root / "build/rows/onnx/onnx-float32")
    fixed = load_artifact(root / "build/fixed/onnx/onnx-float32")
    assert list(served_names([rows, fixed])) == ["rows", "fixed"]
    half = type(rows)(rows.folder, type(rows.manifest)(**{**vars(rows.manifest), "precision": "float16"}))
    keras = type(rows)(rows.folder, type(rows.manifest)(**{**vars(rows.manifest), "source": {"kind": "keras"}}))
    assert list(served_names([rows, half])) == ["rows-onnx-float32", "rows-onnx-float16"]
    assert list(served_names([rows, half, keras])) == [
        "rows-onnx-onnx-float32",
        "rows-onnx-float16",
        "rows-keras-onnx-float32",
    ]

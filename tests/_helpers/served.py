"""Artifacts that are made without a conversion, and a server process that serves them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from _helpers.support import REPOSITORY, processes_with, spawn
from edgekit.core.records.artifact import Manifest, describe_files, write_manifest
from edgekit.core.records.samples import Samples
from edgekit.core.values.specs import Quantization, Signature, TensorSpec

FIXTURE = REPOSITORY / "tests" / "fixtures" / "scripted_runtime"
TRITON_CLIENT = REPOSITORY / "build" / "tools" / "tritonclient"
"""Triton's client, which `make triton-client` installs beside the environment: it wants other versions of packages."""
INT8 = Quantization((0.5,), (-10,))
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def write_artifact(
    folder: Path, content: bytes, signature: Signature, golden: Samples, *, target: str, precision: str, runtime: str
) -> Path:
    """Write an artifact of one file, as an export would."""
    folder.mkdir(parents=True)
    file = f"model.{'tflite' if target == 'tflite' else 'onnx'}"
    (folder / file).write_bytes(content)
    (described,) = describe_files(folder, [file])
    golden.save(folder / "golden.npz")
    manifest = Manifest(
        folder.parent.parent.name,
        target,
        precision,
        runtime,
        file,
        described.sha256,
        described.size,
        signature,
        {"kind": folder.parent.name},
        (folder.parent.name, target),
        golden={"sha256": golden.digest(), "samples": golden.count},
    )
    write_manifest(folder, manifest)
    return folder


def onnx_model(batch: int | str = "batch") -> tuple[bytes, Signature]:
    """y = x W + n, and the number n of each row as a second output."""
    from onnx import TensorProto, helper, numpy_helper

    inputs = [("x", TensorProto.FLOAT, (batch, 4)), ("n", TensorProto.INT64, (batch, 1))]
    outputs = [("y", TensorProto.FLOAT, (batch, 3)), ("m", TensorProto.INT64, (batch, 1))]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Cast", ["n"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["product", "real"], ["y"]),
        helper.make_node("Identity", ["n"], ["m"]),
    ]
    graph = helper.make_graph(
        nodes,
        "served",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    dtypes = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}
    sides = [tuple(TensorSpec(name, shape, dtypes[kind]) for name, kind, shape in side) for side in (inputs, outputs)]
    return model.SerializeToString(), Signature(*sides)


def onnx_outputs(x: np.ndarray, n: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": x @ WEIGHTS + n, "m": n}


def tflite_relu() -> tuple[bytes, Signature]:
    """y = ReLU(x), an int8 file with a batch of one."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: bytes) -> Any:
        value = schema.TensorT()
        value.name, value.shape, value.type, value.buffer = name, [1, 4], schema.TensorType.INT8, 0
        value.quantization = schema.QuantizationParametersT()
        value.quantization.scale, value.quantization.zeroPoint = list(INT8.scale), list(INT8.zero_point)
        return value

    code, operator, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 2
    operator.inputs, operator.outputs = [0], [1]
    graph.tensors, graph.operators = [tensor(b"x"), tensor(b"y")], [operator]
    graph.inputs, graph.outputs = [0], [1]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    specs = [TensorSpec(name, (1, 4), "int8", None, INT8) for name in ("x", "y")]
    return bytes(builder.Output()), Signature(tuple(specs[:1]), tuple(specs[1:]))


def write_served(build: Path) -> None:
    """Write the artifacts `rows` (ONNX), `fixed` (ONNX for exactly two rows), `quantized` (TFLite) and `scripted`."""
    rng = np.random.default_rng(0)
    x, n = rng.standard_normal((8, 4)).astype(np.float32), np.arange(8, dtype=np.int64).reshape(8, 1)
    golden = Samples({"x": x, "n": n}, {"y": (x @ WEIGHTS + n).astype(np.float32), "m": n})
    for name, batch in (("rows", "batch"), ("fixed", 2)):
        options = {"target": "onnx", "precision": "float32", "runtime": "onnxruntime"}
        write_artifact(build / name / "onnx" / "onnx-float32", *onnx_model(batch), golden, **options)
    content, signature = tflite_relu()
    x = np.rint(x * 4) / 2  # multiples of the scale
    golden = Samples({"x": x}, {"y": np.maximum(x, 0)})
    write_artifact(
        build / "quantized" / "keras" / "tflite-int8",
        content,
        signature,
        golden,
        target="tflite",
        precision="int8",
        runtime="litert",
    )
    spec = TensorSpec("x", ("batch", 2), "float32")
    golden = Samples({"x": -np.ones((4, 2), np.float32)}, {"y": -2 * np.ones((4, 2), np.float32)})
    write_artifact(
        build / "scripted" / "onnx" / "onnx-float32",
        b"content",
        Signature((spec,), (replace(spec, name="y"),)),
        golden,
        target="onnx",
        precision="float32",
        runtime="scripted",
    )


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error."""
        assert self.status >= 400, self.body
        assert list(self.data) == ["error"]
        message: str = self.data["error"]
        assert message and len(message.splitlines()) == 1 and "Traceback" not in message
        return message


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@dataclass(frozen=True)
class Server:
    """A server process.

    Attributes:
        process: The process.
        port: Its port on 127.0.0.1.
        marker: A text in the environment of the process and of its workers.
    """

    process: subprocess.Popen[str]
    port: int
    marker: str

    def request(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """GET a page, or POST to it: bytes as they are, anything else as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content, dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Reply(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, _lower(error.headers), error.read())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def workers(self) -> list[int]:
        """The ids of the worker processes."""
        return [pid for pid in processes_with(self.marker) if pid != self.process.pid]


@contextmanager
def serving(root: Path, *arguments: object) -> Iterator[Server]:
    """Serve artifacts of a project until the end of the block."""
    marker = f"EDGEKIT_TEST_SERVER={root}-{os.getpid()}-{'-'.join(map(str, arguments))}"
    name, _, value = marker.partition("=")
    env = {name: value, "PYTHONPATH": str(FIXTURE), "PYTHONWARNINGS": ""}
    process = spawn("serve", *arguments, "--port", 0, "--json", "--root", root, env=env)
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            text += line
        yield Server(process, int(json.loads(text)["url"].rpartition(":")[2]), marker)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)

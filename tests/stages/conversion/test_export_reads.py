"""What an export reads: the description of the source once, and every model file is hashed once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.slow

# Imported by Python at its start, in the process of the command and in its workers.
RECORDER = """\
import hashlib, os, sys

_log = os.open(os.environ["EXPORT_READS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_file_digest = hashlib.file_digest


def _record(what, path):
    os.write(_log, f"{what} {os.path.abspath(path)}\\n".encode())


def _audit(event, arguments):
    # os.open() has no mode: its flags say whether it reads.
    if event != "open" or isinstance(arguments[0], int):
        return
    if arguments[1] == "r" or (arguments[1] is None and not arguments[2] & 3):
        _record("read", os.fspath(arguments[0]))


def file_digest(stream, name):
    _record("hash", os.readlink(f"/proc/self/fd/{stream.fileno()}"))
    return _file_digest(stream, name)


hashlib.file_digest = file_digest
sys.addaudithook(_audit)
"""


def write_model(path: Path) -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_an_export_reads_the_source_json_once_and_hashes_each_model_file_once(tmp_path: Path) -> None:
    write_model(tmp_path / "net.onnx")
    (tmp_path / "recorder").mkdir()
    (tmp_path / "recorder/sitecustomize.py").write_text(RECORDER)
    log = tmp_path / "log"
    variables = {"PYTHONPATH": str(tmp_path / "recorder"), "EXPORT_READS_LOG": str(log)}
    targets = ("--target", "onnx:float32", "--target", "onnx:float16")
    command = [sys.executable, "-c", "from edgekit.cli import main; main()", "export", "net.onnx", *targets]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, check=True, capture_output=True)
    events = Counter(log.read_text().splitlines())
    source = tmp_path / "build/net/onnx/source"
    assert events[f"read {source / 'source.json'}"] == 1
    hashed = Counter({event: count for event, count in events.items() if event.startswith("hash ")})
    assert hashed[f"hash {source / 'model.onnx'}"] == 1
    # The import and each of the two exports also hash what they write, in a temporary folder.
    assert sum(event.endswith("/model.onnx") for event in hashed) == 4
    assert set(hashed.values()) == {1}

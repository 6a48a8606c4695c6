"""The environment variables of worker processes."""

from pathlib import Path

import pytest

from edgekit.devices.emulation import setup
from edgekit.stages.context import source_environment, training_environment
from edgekit.workers.environment import Environment
from edgekit.workers.process import run_module


def test_a_worker_has_one_openmp_thread_unless_a_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Environment().child_variables()["OMP_NUM_THREADS"] == "1"
    assert source_environment("torch").child_variables()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Environment().child_variables()["OMP_NUM_THREADS"] == "3"
    assert Environment.of({"OMP_NUM_THREADS": "2"}).child_variables()["OMP_NUM_THREADS"] == "2"


def test_training_uses_every_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("edgekit.devices.host_machine.available_cpus", lambda: (0, 1, 2, 3, 4))
    assert training_environment("torch").child_variables()["OMP_NUM_THREADS"] == "5"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert training_environment("torch").child_variables()["OMP_NUM_THREADS"] == "3"


def test_onnx_runtime_sends_no_telemetry(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """With telemetry it has another thread, and a database in the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    model = Path(setup.__file__).with_name("one_op.onnx")
    (tmp_path / "creates_session.py").write_text(
        "import os, pathlib, sys, onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = 1\n"
        f"onnxruntime.InferenceSession({str(model)!r}, options)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(len(os.listdir('/proc/self/task'))))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = Environment((("OPENBLAS_NUM_THREADS", "1"),), writable=(str(tmp_path),))
    run_module("creates_session", [str(tmp_path / "threads")], environment, step="use it", timeout_s=120)
    assert (tmp_path / "threads").read_text() == "2"  # the main thread, and the one that watches the parent
    assert not (tmp_path / ".cache").exists()

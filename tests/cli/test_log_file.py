"""--log-file, with the real commands on a small ONNX model: what decided, and nothing private."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from _helpers.support import call
from onnx import TensorProto, helper, numpy_helper

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?P<level>DEBUG|INFO|WARNING|ERROR) (?P<logger>edgekit[.\w]*)"
    r" \[(?P<step>[^\]]*)\] (?P<message>.*)"
)
PIPELINE = """\
variants = ["onnx:float32"]

[[models]]
path = "dense.onnx"
"""


def records(file: Path) -> list[dict[str, str]]:
    matches = [LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert matches
    assert all(matches)
    return [match.groupdict() for match in matches if match]


def messages(file: Path, step: str = "") -> list[str]:
    return [record["message"] for record in records(file) if not step or record["step"] == step]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def root(tmp_path: Path, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home" / "alice" / "project"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "dense.onnx")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "alice"))
    monkeypatch.setenv("MY_API_TOKEN", "hunter2-hunter2")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("cold_workers")
def test_export_and_validate_tell_route_workers_and_runtime(root: Path) -> None:
    log = root / "run.log"
    answer = call("export", "dense.onnx", "--target", "onnx:float32", "--log-file", log)
    assert answer.code == 0, answer.err
    step = "export dense/onnx onnx:float32"
    assert "route onnx -> onnx chosen: the shortest of 2" in messages(log, step)
    assert any(text.startswith("finished: ") for text in messages(log, step))
    (loaded,) = [record for record in records(log) if record["logger"].endswith("convert_job")]
    assert loaded["step"] == step  # from the worker, by the pipe
    assert loaded["message"] == "source dense: loaded as onnx, since this worker has loaded none"
    texts = messages(log)
    started = [text for text in texts if re.match(r"worker \d+ started", text)]
    ended = [text for text in texts if re.match(r"worker \d+ ended", text)]
    assert len(started) == len(ended) > 0
    assert re.fullmatch(r"edgekit \S+, Python 3\.\d+\.\d+\S*: export starts", texts[0])
    assert texts[-1] == "export ends with exit code 0"

    assert call("validate", "dense", "--log-file", log).code == 0
    assert messages(log)[: len(texts)] == texts  # appended
    step = "validate dense/onnx onnx:float32"
    assert "run by executor host with runtime onnxruntime" in messages(log, step)
    content = log.read_text()
    assert "alice" not in content
    assert "hunter2" not in content
    assert str(root) not in content


@pytest.mark.slow
def test_run_tells_why_each_step_runs_and_that_it_is_up_to_date(root: Path, tmp_path: Path) -> None:
    (root / "edgekit.toml").write_text(PIPELINE)
    # Not in the project: a new file there could be a module of the same name, and the plan is made again.
    first, second, third = (tmp_path / f"{name}.log" for name in ("first", "second", "third"))
    answer = call("run", "--log-file", first)
    assert answer.code == 0, answer.err
    assert "pipeline: planned anew: no saved plan fits the present files, packages and machine" in messages(first)
    runs = [record["step"] for record in records(first) if record["message"].startswith("has to run: ")]
    assert "validate dense/onnx onnx:float32" in runs
    assert len(runs) == len(set(runs))
    assert "alice" not in first.read_text()

    assert call("run", "--log-file", second).code == 0
    assert "pipeline: taken from the saved plan" in messages(second)
    up_to_date = [record["step"] for record in records(second) if record["message"].startswith("up to date: ")]
    assert up_to_date == sorted(runs, key=up_to_date.index)
    assert not any("worker" in text for text in messages(second))

    shutil.rmtree(next((root / "build").glob("dense/onnx/onnx-float32")))
    assert call("run", "export *", "--log-file", third).code == 0
    reasons = [text for text in messages(third, "export dense/onnx onnx:float32") if text.startswith("has to run: ")]
    assert len(reasons) == 1


def test_errors_and_exit_codes_are_logged_without_folders(root: Path) -> None:
    log = root / "run.log"
    (root / "damaged.onnx").write_bytes(b"no protobuf")
    answer = call("export", root / "damaged.onnx", "--target", "onnx", "--log-file", log)
    assert answer.code != 0
    assert messages(log)[-1] == f"export ends with exit code {answer.code}"
    assert [record for record in records(log) if record["level"] == "ERROR"]
    assert "alice" not in log.read_text()


@pytest.mark.slow
def test_levels_come_from_verbose_and_from_the_variable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = root / "run.log"
    assert call("export", "dense.onnx", "--target", "onnx:float32", "-v", "--log-file", log).code == 0
    assert {"DEBUG", "INFO"} == {record["level"] for record in records(log)}
    monkeypatch.setenv("EDGEKIT_LOG_LEVEL", "error")
    before = log.read_text()
    assert call("validate", "--log-file", log).code == 0
    assert log.read_text() == before
    monkeypatch.setenv("EDGEKIT_LOG_LEVEL", "loud")
    answer = call("validate", "--log-file", log)
    assert (answer.code, answer.out) == (2, "")
    assert "EDGEKIT_LOG_LEVEL: 'loud' is not a level" in answer.err


@pytest.mark.parametrize("command", [("targets",), ("devices", "show", "raspberry-pi-4b"), ("check",)])
def test_a_log_that_cannot_be_opened_is_exit_2(command: tuple[str, ...], root: Path) -> None:
    answer = call(*command, "--log-file", root / "no" / "log")
    assert answer.code == 2
    assert re.fullmatch(r"Error: --log-file: cannot open .*/no/log: no such file or directory; .*\n", answer.err)


def test_a_subcommand_takes_the_option_before_or_after_its_name(root: Path) -> None:
    for place in (
        ("models", "--log-file", "a.log", "show", "linear"),
        ("models", "show", "linear", "--log-file", "b.log"),
    ):
        assert call(*place).code == 0
    for name in ("a.log", "b.log"):
        assert messages(root / name)[-1] == "models show ends with exit code 0"


def test_a_fifo_with_a_reader_is_written_to_and_stays(root: Path) -> None:
    fifo = root / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    thread = threading.Thread(target=lambda: read.append(os.read(reader, 1 << 16).decode()))
    assert call("targets", "--log-file", fifo).code == 0
    thread.start()
    thread.join()
    os.close(reader)
    assert read[0].endswith("targets ends with exit code 0\n")
    assert fifo.is_fifo()


def test_a_full_disk_is_one_warning_and_the_command_goes_on(root: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    answer = call("targets", "--log-file", "/dev/full")
    assert answer.code == 0
    assert answer.err == "warning --log-file: No space left on device; nothing more is logged\n"
    assert "tflite" in answer.out

"""Benches, validations and checks on a board that is a real sshd on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from _helpers.boards import needs_sshd
from _helpers.emulation import one_op
from _helpers.support import call, spawn

from edgekit.config.board import BOARDS
from edgekit.contracts.executor import ExecutionSession, Place
from edgekit.core.environment.atomic_files import sha256_file
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.validation import load_validation
from edgekit.devices.emulation.folders import PLUGIN_SOURCE
from edgekit.devices.executors.ssh import EXECUTOR
from edgekit.reports._shared.cells import device_cells
from edgekit.stages.gates.baseline import regressions
from edgekit.stages.tracking.mlflow_mapping import _measurement_figures as measurement_figures
from edgekit.testing.contract import ExecutorContract
from edgekit.workers.pool import WorkerPool

pytestmark = needs_sshd

QUICK = ("--min-duration", "0", "--min-runs", "3")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project with an ONNX and a TFLite artifact."""
    root = tmp_path_factory.mktemp("project")
    one_op(root, "onnx")
    one_op(root)
    return root


def bench(root, *arguments):
    return call("bench", "one_op", "--target", "onnx", "--device", "pi", *QUICK, "--root", root, *arguments)


@pytest.fixture(scope="module")
def benched(sshd, built, tmp_path_factory):
    """The answer of a bench on the board, whose record the other tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.mktemp("configuration")))
        assert sshd.add().code == 0
        answer = bench(built, "--per-op", "--json")
    assert answer.code == 0, answer.err
    return answer.data


@pytest.mark.slow
def test_a_bench_has_what_the_board_measured_beside_this_host(benched, built):
    (measurement,) = benched["measurements"]
    (execution,) = measurement["executions"]
    assert (execution["executor"], execution["tier"], measurement["device"]) == ("ssh", "device", "pi")
    assert set(measurement["latency_ms"]) == {"device", "host"}
    assert measurement["latency_ms"]["device"] == execution["latency_ms"]
    assert execution["low_ms"] <= execution["latency_ms"] <= execution["high_ms"]
    assert execution["wall"]["p50_ms"] <= execution["wall"]["p90_ms"] <= execution["wall"]["p99_ms"]
    assert execution["peak_memory_bytes"] > 0
    assert any("throttl" in note for note in execution["notes"])
    assert [operator["kind"] for operator in execution["operators"]] == ["MatMul"]
    record = load_measurement(built / "build" / "one_op" / "keras" / "onnx-float32" / "bench-pi.json")
    assert set(record.operators_by_tier) == {"device", "host"}


@pytest.mark.slow
def test_outputs_of_the_board_are_compared_with_the_source_and_with_this_host(board, built):
    answer = call("validate", "one_op", "--device", "pi", "--root", built, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.data["validations"]) == 2
    for validation in answer.data["validations"]:
        assert (validation["device"], validation["executor"], validation["passed"]) == ("pi", "ssh", True)
        assert validation["comparisons"]
        assert validation["against_host"]


@pytest.mark.parametrize(("limit", "code"), [("device=5s", 0), ("device=0.000001ms", 1), ("device=0.000001", 1)])
def test_a_latency_of_the_board_is_held_against_a_limit(board, benched, built, limit, code):
    answer = call("check", "--device", "pi", "--target", "onnx", "--max-latency", limit, "--root", built, "--json")
    rules = {verdict["rule"]: verdict["passed"] for verdict in answer.data["verdicts"]}
    assert rules["latency_ms.device"] == (code == 0)
    assert answer.code == 1 if code else rules["latency_ms.device"]


def test_a_limit_that_is_no_duration_is_refused(built):
    answer = call("check", "--max-latency", "device=5 parsecs", "--root", built)
    assert answer.code == 2
    assert "write it TIER=MS, for example host=5 or device=5ms" in answer.err


def test_budgets_of_the_board_s_profile_hold_on_the_board(board, benched, built):
    assert board.add("pi", "--profile", "raspberry-pi-4b", "--replace").code == 0
    answer = call("check", "--device", "pi", "--root", built, "--json")
    assert "peak_memory_bytes" in {verdict["rule"] for verdict in answer.data["verdicts"]}


@pytest.mark.slow
def test_a_runtime_that_the_board_lacks_is_named_with_the_command_that_installs_it(board, built, wrapped):
    wrapped('exec "$PYTHON" -S "$@"')
    answer = bench(built)
    assert answer.code == 3
    assert "pi has no numpy and no onnxruntime" in answer.err
    assert "edgekit devices install pi --runtime onnxruntime" in answer.err


@pytest.mark.parametrize("command", ["bench", "validate"])
def test_a_board_that_is_not_there_fails_before_anything_runs(board, built, command):
    assert call("devices", "add", "pi", "--ssh", "pi@none-such.invalid", "--replace").code == 0
    answer = call(command, "one_op", "--device", "pi", "--root", built)
    assert answer.code == 2
    assert "the host name of pi@none-such.invalid is not known" in answer.err
    assert "one_op/keras" not in answer.err


def test_a_device_that_is_no_board_is_not_reached_by_ssh(built):
    answer = call("validate", "one_op", "--executor", "ssh", "--device", "raspberry-pi-4b", "--root", built)
    assert answer.code == 2
    assert "unknown board 'raspberry-pi-4b'" in answer.err


@pytest.mark.parametrize("arguments", [(), ("--device", "raspberry-pi-4b"), ("--device", "no-such")])
def test_a_search_in_the_tier_device_needs_a_board(built, arguments):
    answer = call("tune", "simple_cnn", "--max-drop", "1%", "--tier", "device", *arguments, "--root", built)
    assert answer.code == 2
    assert "the tier device needs a board or a phone" in answer.err


def test_a_name_of_a_profile_and_of_a_board_is_ambiguous(built):
    BOARDS.folder.mkdir(parents=True, exist_ok=True)
    file = BOARDS.folder / "raspberry-pi-4b.toml"
    file.write_text('ssh = "pi"\n')
    try:
        answer = call("bench", "one_op", "--device", "raspberry-pi-4b", *QUICK, "--root", built)
    finally:
        file.unlink()
    assert answer.code == 2
    assert "is both a device profile" in answer.err


# Everything that can go wrong while a model runs ----------------------------------------------------------------------

SLOW_RUNNER = 'case "$*" in *edgekit.runtimes._runner*) sleep 60 & wait;; esac; exec "$PYTHON" "$@"'


@pytest.fixture
def slow_bench(board, wrapped, built):
    """A bench of one artifact, as a process of its own, whose model does not come to an end on the board."""
    wrapped(SLOW_RUNNER)
    process = spawn("bench", "one_op", "--target", "onnx", "--device", "pi", *QUICK, "--root", built)
    board.wait_for_runner()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_on_the_board(board, slow_bench):
    slow_bench.send_signal(signal.SIGINT)
    _out, err = slow_bench.communicate(timeout=30)
    assert slow_bench.returncode == 130
    assert "Traceback" not in err
    board.wait_until_idle()
    assert not list((board.store / "runs").glob("*"))


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_on_the_board(board, slow_bench):
    slow_bench.kill()
    board.wait_until_idle()


@pytest.mark.slow
def test_a_connection_that_is_cut_in_the_middle_is_one_sentence(board, slow_bench):
    board.cut()
    _out, err = slow_bench.communicate(timeout=60)
    assert slow_bench.returncode == 4
    assert "bench one_op/keras onnx:float32 on pi: the connection to pi was lost" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_model_that_is_killed_in_the_middle_is_one_sentence(board, slow_bench):
    os.kill(board.wait_for_runner(), signal.SIGKILL)
    _out, err = slow_bench.communicate(timeout=60)
    assert slow_bench.returncode == 4
    assert "its process was killed (SIGKILL), most likely because memory ran out" in err


@pytest.mark.slow
def test_a_board_that_is_too_slow_is_one_sentence(board, wrapped, built):
    wrapped(SLOW_RUNNER)
    answer = bench(built, "--timeout", "2")
    assert answer.code == 4
    assert "on pi: no answer after 2 s; it was stopped" in answer.err
    board.wait_until_idle()


def test_a_damaged_model_is_one_sentence(board, tmp_path):
    artifact = one_op(tmp_path, "onnx")
    artifact.path.write_bytes(b"no model")
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    digest = sha256_file(artifact.path)
    manifest |= {"sha256": digest, "size_bytes": 8}
    manifest["files"] = [{**file, "sha256": digest, "size": 8} for file in manifest["files"]]
    (artifact.folder / "manifest.json").write_text(json.dumps(manifest))
    answer = call("validate", "one_op", "--device", "pi", "--root", tmp_path)
    assert answer.code == 4
    (line,) = [line for line in answer.err.splitlines() if line.strip()]
    assert "validate one_op/keras onnx:float32 on pi: " in line


class TestSshExecutor(ExecutorContract):
    """The suite that every executor passes."""

    executor = EXECUTOR

    @pytest.fixture
    def place(self, board):
        return Place("pi")

    @pytest.fixture
    def artifact(self, built):
        return load_artifact(built / "build" / "one_op" / "keras" / "onnx-float32")

    @pytest.fixture
    def session(self, board):
        with WorkerPool() as pool:
            yield ExecutionSession("execute", pool)


# A pipeline, and comparisons with earlier runs ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_validates_and_benches_on_the_board_and_repeats_nothing(board, tmp_path):
    shutil.copy(PLUGIN_SOURCE.with_name("one_op.onnx"), tmp_path / "one.onnx")
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32))
    (tmp_path / "edgekit.toml").write_text(
        'variants = ["onnx:float32"]\nvalidate_on = ["pi"]\n[[models]]\nname = "one"\npath = "one.onnx"\n'
        'sample = "s.npz"\n[bench]\ndevices = ["pi"]\nmin_duration_s = 0.0\nmin_runs = 3\n[[budgets]]\nmodel = "*"\n'
        'latency_ms = { device = 5000 }\n[[reports]]\nformat = "markdown"\npath = "r.md"\n'
    )
    answer = call("run", "--root", tmp_path)
    assert answer.code == 0, answer.err
    folder = tmp_path / "build" / "one" / "onnx" / "onnx-float32"
    assert load_measurement(folder / "bench-pi.json").execution("device") is not None
    assert load_validation(folder / "validation-pi-ssh.json").passed
    verdicts = json.loads((folder / "check.json").read_text())["verdicts"]
    rules = {verdict["rule"]: verdict["device"] for verdict in verdicts}
    assert rules["latency_ms.device"] == "pi"
    report = (tmp_path / "r.md").read_text()
    assert "## Validation on devices" in report
    assert "device: measured on" in report
    assert "nothing to do" in call("run", "--root", tmp_path).out
    (tmp_path / "edgekit.toml").write_text((tmp_path / "edgekit.toml").read_text().replace('"pi"', '"no-such"'))
    answer = call("run", "--root", tmp_path)
    assert answer.code == 2
    assert "unknown device 'no-such'" in answer.err


def of_device(measurement, latency_ms, low_ms, high_ms, **changes):
    """The measurement with another latency of the device."""
    execution = replace(measurement.executions[0], latency_ms=latency_ms, low_ms=low_ms, high_ms=high_ms, **changes)
    latencies = {**measurement.latency_ms, "device": latency_ms}
    return replace(measurement, executions=(execution,), latency_ms=latencies)


@pytest.mark.parametrize(
    ("now", "passed"),
    [
        ((1.10, 1.05, 1.12), True),  # within 2 % and the noise of both
        ((1.25, 1.24, 1.26), False),
        ((0.50, 0.50, 0.50), True),
    ],
)
def test_a_baseline_allows_what_the_board_s_own_noise_explains(benched, built, now, passed):
    record = load_measurement(built / "build" / "one_op" / "keras" / "onnx-float32" / "bench-pi.json")
    old, new = of_device(record, 1.0, 0.97, 1.03), of_device(record, *now)
    verdicts = {verdict.rule: verdict.passed for verdict in regressions((old,), (new,), 0.02, "main.json")}
    assert verdicts == {"size_bytes": True, "latency_ms.device": passed}


def test_a_prediction_is_shown_beside_the_measurement(benched, built):
    record = load_measurement(built / "build" / "one_op" / "keras" / "onnx-float32" / "bench-pi.json")
    measured = of_device(record, 2.0, 1.9, 2.1)
    assert device_cells(measured)[-1] == "-"
    predicted = replace(measured, latency_ms={**measured.latency_ms, "emulated": 2.12})
    cells = device_cells(predicted)
    assert cells[-1] == "2.12 ms (+6 %)"
    assert cells[4] == "1.9 ms .. 2.1 ms"


@pytest.mark.slow
def test_threads_and_runtime_of_a_bench_are_those_of_the_board(board, built):
    answer = bench(built, "--threads", "2", "--runtime", "onnxruntime", "--json")
    assert answer.code == 0, answer.err
    (execution,) = answer.data["measurements"][0]["executions"]
    assert execution["threads"] == min(2, len(os.sched_getaffinity(0)))
    assert answer.data["measurements"][0]["runtime"] == "onnxruntime"


@pytest.fixture
def predicted(benched, built, tmp_path):
    """A project with a measurement of the board, and a prediction for it that is 6 % higher."""
    root = tmp_path / "predicted"
    shutil.copytree(built, root)
    file = root / "build" / "one_op" / "keras" / "onnx-float32" / "bench-pi.json"
    record = json.loads(file.read_text())
    record["latency_ms"]["emulated"] = 1.06 * record["latency_ms"]["device"]
    file.write_text(json.dumps(record))
    return root


@pytest.mark.parametrize("form", ["console", "markdown", "html"])
def test_reports_show_the_prediction_beside_the_measurement(board, predicted, form, tmp_path):
    output = tmp_path / "report"
    answer = call("report", "--format", form, "--output", output, "--root", predicted)
    assert answer.code in (0, 1), answer.err  # one artifact was not validated
    text = output.read_text()
    assert "(+6 %)" in text
    assert "device" in text
    assert any(verdict in text for verdict in ("not throttled", "THROTTLED", "throttling cannot be seen"))


def test_a_latency_of_the_board_is_tracked_with_its_interval_and_memory(predicted):
    record = load_measurement(predicted / "build" / "one_op" / "keras" / "onnx-float32" / "bench-pi.json")
    figures, execution = measurement_figures(record), record.execution("device")
    assert figures["pi/latency_device_ms"] == execution.latency_ms
    assert figures["pi/latency_device_low_ms"] <= execution.latency_ms <= figures["pi/latency_device_high_ms"]
    assert figures["pi/peak_memory_device_bytes"] == execution.peak_memory_bytes
    assert figures["pi/latency_emulated_ms"] == pytest.approx(1.06 * execution.latency_ms)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_search_compares_latencies_that_the_board_measured(board, broken, tmp_path):
    source = "build/broken/keras/source"
    shutil.copytree(broken / source, tmp_path / source)
    arguments = ("--target", "onnx", "--max-drop", "5%", "--tier", "device", "--device", "pi")
    answer = call("tune", "broken", *arguments, "--max-latency", "5s", "--root", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert answer.data["winner"]["latency_ms"] > 0

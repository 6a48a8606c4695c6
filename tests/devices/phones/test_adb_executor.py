"""Benches, validations and checks on a phone, for which a stand-in of the adb server serves the real adb client."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from _helpers.emulation import SIGNATURE, one_op
from _helpers.phones import SERIAL, needs_adb
from _helpers.support import call, spawn

from edgekit.config.phone import PHONES
from edgekit.contracts.executor import BenchRequest, ExecutionSession, InferRequest, ModelFiles, Place
from edgekit.core.errors import StepCrashed, StepFailed, StepOutOfMemory, StepTimedOut
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.validation import load_validation
from edgekit.core.values.specs import Quantization, Signature, TensorSpec
from edgekit.devices.emulation.folders import PLUGIN_SOURCE
from edgekit.devices.executors.adb import EXECUTOR, raw_calls
from edgekit.devices.phones.benchmark_model import pack_calls
from edgekit.devices.phones.phone import SUPERVISE, Phone
from edgekit.testing.contract import ExecutorContract
from edgekit.workers.pool import WorkerPool

pytestmark = needs_adb

QUICK = ("--min-duration", "0", "--min-runs", "3")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project with a TFLite and an ONNX artifact."""
    root = tmp_path_factory.mktemp("project")
    one_op(root)
    one_op(root, "onnx")
    return root


def bench(root, *arguments):
    return call("bench", "one_op", "--target", "tflite", "--device", "phone", *QUICK, "--root", root, *arguments)


@pytest.mark.slow
def test_a_phone_is_measured_validated_and_held_against_a_limit(phone, built):
    answer = bench(built, "--per-op", "--json")
    assert answer.code == 0, answer.err
    (measurement,) = answer.data["measurements"]
    (execution,) = measurement["executions"]
    assert (execution["executor"], execution["tier"], measurement["device"]) == ("adb", "device", "phone")
    assert measurement["latency_ms"]["device"] == execution["latency_ms"]
    assert execution["low_ms"] <= execution["latency_ms"] <= execution["high_ms"]
    assert execution["peak_memory_bytes"] > 0
    assert execution["load_ms"] > 0
    assert "Acme Phone 1" in execution["description"]
    assert "Cortex-X1 2850 MHz" in execution["description"]
    assert [operator["kind"] for operator in execution["operators"]][:1] == ["FULLY_CONNECTED"]
    notes = "; ".join(execution["notes"])
    assert "over 3 runs" in notes
    assert "not throttled" in notes
    sent = len(phone.pushed)
    assert sent == 3  # the runner, the model and the inputs
    record = built / "build" / "one_op" / "keras" / "tflite-float32" / "bench-phone.json"
    assert load_measurement(record).execution("device").executor == "adb"

    assert bench(built).code == 0
    assert len(phone.pushed) == sent, "a file of the same content was sent again"

    for limit, code in (("device=5s", 0), ("device=0.000001ms", 1)):
        answer = call(
            "check", "--device", "phone", "--target", "tflite", "--max-latency", limit, "--root", built, "--json"
        )
        verdicts = {verdict["rule"]: verdict["passed"] for verdict in answer.data["verdicts"]}
        assert verdicts["latency_ms.device"] == (code == 0)

    answer = call("validate", "one_op", "--device", "phone", "--root", built, "--json")
    assert answer.code == 0, answer.err
    (validation,) = answer.data["validations"]
    assert (validation["device"], validation["executor"], validation["passed"]) == ("phone", "adb", True)
    assert validation["against_host"]
    assert "onnx:float32 on phone" in answer.err
    assert "runs .tflite files in LiteRT only" in answer.err
    assert load_validation(record.with_name("validation-phone-adb.json")).passed
    assert not list((phone.store / "runs").iterdir())

    answer = call("devices", "remove", "phone")
    assert answer.code == 0, answer.err
    assert not phone.store.exists()
    assert "phone" not in PHONES.files()


@pytest.mark.slow
def test_outputs_of_a_runner_that_does_not_write_them_are_said_not_to_be_compared(phone, built):
    phone.variables["EDGEKIT_TEST_OLD_RUNNER"] = "1"
    answer = bench(built, "--json")
    assert answer.code == 0, answer.err
    notes = "; ".join(answer.data["measurements"][0]["executions"][0]["notes"])
    assert "outputs cannot be compared on the phone: its runner has no --output_filepath" in notes
    assert "the latency is a mean" in notes
    answer = call("validate", "one_op", "--target", "tflite", "--device", "phone", "--root", built)
    assert answer.code == 3
    assert "outputs cannot be compared on the phone" in answer.err
    assert "cannot be compared" in call("devices", "probe", "phone").out


@pytest.mark.slow
def test_a_wrong_output_fails_the_validation(phone, built, tmp_path):
    runner = tmp_path / "benchmark_model"
    runner.write_text(runner.read_text().replace('b"".join(contents)', 'b"".join(contents)[::-1]'))
    answer = call("validate", "one_op", "--target", "tflite", "--device", "phone", "--root", built)
    assert answer.code == 1
    assert "NOT EQUIVALENT" in answer.err


@pytest.mark.slow
def test_tensors_whose_names_a_shell_reads_otherwise_and_sample_order(phone, tmp_path):
    artifact = one_op(tmp_path)
    model = ModelFiles.of(artifact)
    odd = tmp_path / "it's $(touch owned); `id` %.tflite"
    odd.write_bytes(model.path.read_bytes())
    with WorkerPool() as pool:
        session = ExecutionSession("$(touch owned)", pool)
        inputs = {"x": np.arange(24, dtype=np.float32).reshape(3, 8)}
        found = EXECUTOR.infer(session, replace(model, path=odd, files=(odd,)), Place("phone"), InferRequest(inputs))
        symbolic = Signature(
            *((replace(spec, shape=("N", *spec.shape[1:])),) for spec in (SIGNATURE.inputs[0], SIGNATURE.outputs[0]))
        )
        batches = EXECUTOR.infer(
            session, replace(model, signature=symbolic), Place("phone"), InferRequest(inputs, batch=2)
        )
    expected = np.repeat(inputs["x"].sum(axis=1, keepdims=True), 4, axis=1)
    np.testing.assert_array_equal(found.outputs["y"], expected)
    np.testing.assert_array_equal(batches.outputs["y"], expected)
    assert not list(phone.folder.rglob("owned"))
    assert all(path.startswith("/data/local/tmp/edgekit/files/") and "owned" not in path for path in phone.pushed)


def test_inputs_are_quantized_and_put_into_the_order_of_the_file(tmp_path):
    scale = Quantization((0.5,), (1,))
    a, b = TensorSpec("a", (1, 2), "int8", None, scale), TensorSpec("b", (1,), "float32")
    model = replace(ModelFiles.of(one_op(tmp_path)), signature=Signature((a, b), ()))
    inputs = {"a": np.float32([[1, 2], [3, 4]]), "b": np.float32([7, 8])}
    calls = raw_calls(model, Signature((b, a), ()), inputs)
    assert [[array.tolist() for array in call] for call in calls] == [[[7.0], [[3, 5]]], [[8.0], [[7, 9]]]]
    assert calls[0][1].dtype == np.int8
    assert len(raw_calls(model, Signature((b, a), ()), inputs, limit=1)) == 1


class TestAdbExecutor(ExecutorContract):
    """The suite that every executor passes."""

    executor = EXECUTOR

    @pytest.fixture
    def place(self, phone):
        return Place("phone")

    @pytest.fixture
    def artifact(self, built):
        return load_artifact(built / "build" / "one_op" / "keras" / "tflite-float32")

    @pytest.fixture
    def session(self, phone):
        with WorkerPool() as pool:
            yield ExecutionSession("execute", pool)


# What can go wrong before anything runs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"state": "absent"}, 2, f"phone: no phone {SERIAL} is connected; adb lists EMULATOR"),
        ({"state": "unauthorized"}, 2, f"the phone {SERIAL} does not allow this computer; unlock it and allow USB"),
        ({"state": "offline"}, 4, f"the phone {SERIAL} is offline; connect it again"),
        ({"duplicated": True}, 2, f"several devices have the serial number {SERIAL}"),
        ({"full": True}, 4, "no space left on phone"),
        ({"damages": True}, 4, "a file arrived damaged on phone"),
    ],
)
def test_a_fault_of_the_phone_is_one_sentence(phone, built, change, code, message):
    for name, value in change.items():
        setattr(phone, name, value)
    answer = bench(built)
    assert answer.code == code, answer.err
    assert message in answer.err
    assert "one_op/keras" not in answer.err, "something ran before the fault was noticed"


def test_a_server_that_cannot_be_reached_is_one_sentence(phone, built, monkeypatch):
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:127.0.0.2:1")  # of another host, where adb does not start one
    answer = bench(built)
    assert answer.code == 4
    assert "the adb server cannot be reached" in answer.err
    assert "adb start-server" in answer.err


def test_a_missing_adb_is_named_with_what_installs_it(phone, built, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = call("devices", "probe", "phone")
    assert answer.code == 3
    assert "phones need adb; install it with: apt-get install adb" in answer.err


def test_a_missing_runner_is_named_with_the_option(phone, built):
    (PHONES.folder / "phone.toml").write_text(f'adb = "{SERIAL}"\n')
    answer = bench(built)
    assert answer.code == 3
    assert "phone has no runner /data/local/tmp/benchmark_model" in answer.err
    assert "edgekit devices add phone --runner FILE --replace" in answer.err
    phone.write_runner(phone.storage / "benchmark_model")
    assert "can be compared: the runner writes them" in call("devices", "probe", "phone").out


def elf(path, bits, machine):
    path.write_bytes(b"\x7fELF" + bytes([bits, 1]) + bytes(12) + machine.to_bytes(2, "little") + bytes(64))
    path.chmod(0o755)
    return path


def test_a_runner_of_another_architecture_is_not_sent(phone, built, tmp_path):
    runner = elf(tmp_path / "x86", 2, 62)
    assert call("devices", "add", "phone", "--runner", runner, "--replace").code == 0
    answer = bench(built)
    assert answer.code == 2
    assert f"{runner} is built for x86_64, and phone runs arm64-v8a, armeabi-v7a" in answer.err
    assert not phone.pushed
    # What the phone claims to run and does not.
    assert call("devices", "add", "phone", "--runner", elf(tmp_path / "arm", 2, 183), "--replace").code == 0
    answer = bench(built)
    assert answer.code == 3
    assert f"phone cannot run {tmp_path / 'arm'}" in answer.err


def test_another_program_is_no_runner(phone, built, tmp_path):
    runner = tmp_path / "other"
    runner.write_text("#!/bin/sh\necho hello\n")
    assert call("devices", "add", "phone", "--runner", runner, "--replace").code == 0
    answer = bench(built)
    assert answer.code == 2
    assert f"{runner} is no benchmark_model: it has no flag --graph" in answer.err


def test_a_device_that_is_no_phone_is_not_reached_by_adb(built):
    answer = call("validate", "one_op", "--executor", "adb", "--device", "raspberry-pi-4b", "--root", built)
    assert answer.code == 2
    assert "unknown phone 'raspberry-pi-4b'" in answer.err


# What can go wrong while a model runs ---------------------------------------------------------------------------------


@pytest.fixture
def slow_bench(phone, built):
    """A bench of one artifact, as a process of its own, whose model does not come to an end on the phone."""
    phone.variables["EDGEKIT_TEST_RUNNER_HANGS"] = "1"
    process = spawn("bench", "one_op", "--target", "tflite", "--device", "phone", *QUICK, "--root", built)
    phone.wait_for_runner()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_on_the_phone(phone, slow_bench):
    slow_bench.send_signal(signal.SIGINT)
    _out, err = slow_bench.communicate(timeout=30)
    assert slow_bench.returncode == 130
    assert "Traceback" not in err
    phone.wait_until_idle()
    assert not list((phone.store / "runs").iterdir())


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_on_the_phone(phone, slow_bench):
    slow_bench.kill()
    phone.wait_until_idle()


@pytest.fixture
def slow_measurement(phone):
    """A measurement whose runner does not come to an end; the function takes the limit in seconds."""
    phone.variables["EDGEKIT_TEST_RUNNER_HANGS"] = "1"
    inputs = pack_calls([[np.zeros((1, 8), np.float32)]])
    model = PLUGIN_SOURCE.with_name("one_op.tflite")
    with Phone("phone", PHONES.load("phone")) as opened:
        yield partial(opened.measure, model, inputs, (), (0,), step="bench one_op")


def test_a_cable_that_is_pulled_in_the_middle_is_one_sentence(phone, slow_measurement):
    with ThreadPoolExecutor() as threads:
        future = threads.submit(slow_measurement, timeout_s=60.0)
        phone.wait_for_runner()
        phone.cut()
        with pytest.raises(
            StepCrashed, match="bench one_op: the connection to phone was lost; what ran there was ended"
        ):
            future.result()
    phone.wait_until_idle()
    assert not list((phone.store / "runs").iterdir())


def test_a_runner_that_is_killed_in_the_middle_is_one_sentence(phone, slow_measurement):
    with ThreadPoolExecutor() as threads:
        future = threads.submit(slow_measurement, timeout_s=60.0)
        os.kill(phone.wait_for_runner(), signal.SIGKILL)
        with pytest.raises(StepOutOfMemory, match=r"bench one_op on phone: its process was killed \(SIGKILL\)"):
            future.result()


@pytest.mark.slow
def test_a_model_that_is_too_slow_is_one_sentence(phone, slow_measurement):
    with pytest.raises(StepTimedOut, match="bench one_op: no answer from phone after 2 s; it was stopped"):
        slow_measurement(timeout_s=2.0)
    phone.wait_until_idle()


def test_a_phone_that_does_not_answer_is_one_sentence(phone, monkeypatch):
    phone.silent = True
    with Phone("phone", PHONES.load("phone")) as opened, pytest.raises(StepTimedOut, match="did not answer in time"):
        opened.adb.shell("true", step="", timeout_s=1.0)


@pytest.mark.slow
def test_a_measurement_waits_for_another_one(phone, built):
    said = []
    with Phone("phone", PHONES.load("phone")) as opened, (phone.storage / "edgekit-measurement.lock").open("w") as lock:
        program = opened.runner().path
        fcntl.flock(lock, fcntl.LOCK_EX)

        def waiting():
            said.append("waiting")
            fcntl.flock(lock, fcntl.LOCK_UN)

        done = opened.adb.run(SUPERVISE, [program, "--help=true"], step="", timeout_s=20.0, waiting=waiting)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StepTimedOut, match="phone is busy: another measurement did not end within 1 s"):
            opened.send([Path(__file__)], step="", timeout_s=1.0)
    assert said == ["waiting"]
    assert "--graph=" in done.log


@pytest.mark.slow
def test_a_damaged_model_is_one_sentence_in_the_runner_s_words(phone, tmp_path):
    artifact = one_op(tmp_path)
    model = ModelFiles.of(artifact)
    with WorkerPool() as pool:
        session = ExecutionSession("bench", pool)
        with EXECUTOR.prepare(session, model, Place("phone"), BenchRequest(timeout_s=60.0)) as prepared:
            (phone.store / "files").joinpath(artifact.manifest.sha256).write_bytes(b"no model")
            damaged = replace(prepared, model=replace(model, path=tmp_path / "damaged.tflite"))
            (tmp_path / "damaged.tflite").write_bytes(b"no model")
            with pytest.raises(StepFailed, match="bench on phone: the runner failed \\(Failed to load model"):
                damaged.run()
            prepared._measure()  # the file of another content was sent again


# A pipeline -----------------------------------------------------------------------------------------------------------


def pipeline(folder, *options):
    """A project whose one artifact of two runs on phones, and the answer of a run of it."""
    folder.mkdir(exist_ok=True)
    shutil.copy(PLUGIN_SOURCE.with_name("one_op.onnx"), folder / "one.onnx")
    np.savez(folder / "s.npz", x=np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32))
    (folder / "edgekit.toml").write_text(
        'variants = ["tflite:float32", "onnx:float32"]\nvalidate_on = ["phone"]\n[[models]]\nname = "one"\n'
        'path = "one.onnx"\nsample = "s.npz"\n[bench]\ndevices = ["phone"]\nmin_duration_s = 0.0\nmin_runs = 3\n'
        '[[budgets]]\nmodel = "*"\nvariant = "tflite:float32"\nlatency_ms = { device = 60000 }\n'
    )
    return call("run", "--root", folder, *options)


def test_a_pipeline_plans_what_runs_on_the_phone(phone, tmp_path):
    answer = pipeline(tmp_path / "project", "--dry-run")
    assert answer.code == 0, answer.err
    assert "validate one/onnx tflite:float32 on phone" in answer.out
    assert "bench one/onnx tflite:float32 on phone" in answer.out
    assert "validate one/onnx onnx:float32 on phone" not in answer.out
    assert "runs .tflite files in LiteRT only, not onnxruntime" in answer.err


def test_another_runner_is_another_phone_for_a_pipeline(phone, tmp_path):
    before = EXECUTOR.identity(Place("phone"))
    assert SERIAL in before
    runner = tmp_path / "benchmark_model"
    runner.write_text(f"{runner.read_text()}\n")
    assert EXECUTOR.identity(Place("phone")) != before


@pytest.mark.exhaustive
def test_a_run_validates_and_benches_on_the_phone_and_repeats_nothing(phone, tmp_path):
    answer = pipeline(tmp_path / "project")
    assert answer.code == 0, answer.err
    folder = tmp_path / "project" / "build" / "one" / "onnx" / "tflite-float32"
    assert load_measurement(folder / "bench-phone.json").execution("device") is not None
    assert load_validation(folder / "validation-phone-adb.json").passed
    sent = len(phone.pushed)
    assert "nothing to do" in pipeline(tmp_path / "project").out
    assert len(phone.pushed) == sent

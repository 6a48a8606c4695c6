"""The emulated tier with a real QEMU: set-up in the user's cache folder, counts, outputs, crashes and gates.

Skipped where QEMU, a compiler or apt is not installed. The first run downloads some 65 MB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from _helpers.emulation import DEVICE, needs_emulator, one_op
from _helpers.support import call

import edgekit
from edgekit.config.device_profile import load_profile
from edgekit.contracts.executor import ModelFiles
from edgekit.core.environment.project import open_project
from edgekit.core.errors import StepCrashed, StepOutOfMemory, StepTimedOut
from edgekit.core.events import ignore
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.emulated_measurement import emulation_file, load_emulation
from edgekit.devices.emulation import emulator
from edgekit.devices.emulation.folders import PLUGIN_SOURCE, home, record
from edgekit.runtimes._runner import COUNTED
from edgekit.stages.benchmark.emulated_bench import EmulationOptions, emulate_all
from edgekit.stages.context import Context
from edgekit.workers.pool import WorkerPool

ONNXRUNTIME_PIN = "onnxruntime==1.32.0"
pytestmark = [needs_emulator, pytest.mark.exhaustive, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with two artifacts, on a machine whose emulation is set up."""
    root = tmp_path_factory.mktemp("emulated")
    one_op(root)
    one_op(root, "onnx")
    answer = call("devices", "setup", DEVICE, "--root", root)
    assert answer.code == 0, answer.err
    return root


@pytest.fixture(scope="module")
def guest(root):
    return emulator.open_guest(DEVICE, load_profile(open_project(root).device_file(DEVICE)))


@pytest.fixture(scope="module")
def benches(root):
    """Two benches of the same artifacts, one after the other."""
    return [bench(root) for _ in range(2)]


@pytest.fixture(scope="module")
def per_op(root, benches):
    """Two benches with costs per operator."""
    return [bench(root, "--per-op") for _ in range(2)]


def bench(root, *arguments):
    answer = call(
        "bench", "one_op", "--device", DEVICE, "--tier", "emulated", "--min-duration", "0", "--min-runs", "3",
        *arguments, "--root", root, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return {measurement["target"]: measurement for measurement in answer.data["measurements"]}


def test_the_thread_pool_of_the_runtime_is_observed(root, guest, tmp_path):
    """Without these symbols, or with another thread pool, predictions of several threads would be a guess."""
    model = ModelFiles.of(load_artifact(root / "build/one_op/keras/tflite-float32"))
    counted = emulator.count(guest, model, 1, "count", 600, also=(2, 4))
    assert any(region.tiled for region in counted.regions)
    assert 0 < sum(region.instructions for region in counted.regions) < counted.counts.instructions
    assert set(counted.memory_misses) == {2, 4}


def test_versions_of_a_runtime_are_compared_by_operator_and_gated(root, guest):
    arguments = ("bench", "one_op", "--device", DEVICE, "--root", root)
    older = ("--with", "onnxruntime==1.30.0")
    answer = call(*arguments, *older, "--per-op", "--json")
    assert answer.code == 0, answer.err
    (compared,) = answer.data["runtime_versions"]  # the TFLite file has another runtime
    assert "skipped: no version of litert was named" in answer.err
    assert [version["requirement"] for version in compared["versions"]] == [ONNXRUNTIME_PIN, "onnxruntime==1.30.0"]
    pinned, other = (version["emulated"]["counts"]["instructions"] for version in compared["versions"])
    assert pinned != other
    assert all(version["emulated"]["operators"] for version in compared["versions"])
    # The version that is measured otherwise counts what a bench counts.
    plain = bench(root, "--target", "onnx")["onnx"]["emulated"]["counts"]["instructions"]
    assert pinned == pytest.approx(plain, rel=1e-3)
    text = call("report", "--root", root).out
    assert "onnxruntime==1.30.0" in text
    ascending = (ONNXRUNTIME_PIN, "onnxruntime==1.30.0")
    ascending = ascending if pinned < other else ascending[::-1]
    gate = [word for version in ascending for word in ("--with", version)]
    gated = call(*arguments, *gate, "--max-regression", "0%")
    assert gated.code == 1
    assert f"REGRESSION  one_op/keras onnx:float32 on {DEVICE}: {ascending[1]} executes" in gated.out
    missing = call(*arguments, "--with", "onnxruntime==0.0.1")
    assert missing.code == 4
    assert "downloading onnxruntime==0.0.1 for arm64" in missing.err


def test_setting_up_again_does_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in home().iterdir()}
    answer = call("devices", "setup", DEVICE, "--root", root, "--json")
    assert (answer.code, answer.data["made"]) == (0, [])
    assert {path: path.stat().st_mtime_ns for path in home().iterdir()} == before


def test_downloads_are_recorded_with_their_hashes(root, guest):
    packages = record(guest.installed.folders.root)["packages"]
    assert any(name.startswith("python3.") and name.endswith("_arm64.deb") for name in packages)
    wheels = record(guest.installed.sites["base"].parent)["wheels"]
    assert len(wheels) == 3
    assert all(len(digest) == 64 for digest in (*packages.values(), *wheels.values()))


def test_the_guest_sees_the_device_s_cores_and_not_this_host_s(guest, tmp_path):
    code = "import os, pathlib; print(open('/proc/cpuinfo').read(), os.uname().machine, file=open(os.sys.argv[1], 'w'))"
    out = tmp_path / "out"
    emulator.run_python(guest, "litert", ("-c", code, str(out)), step="look", folder=tmp_path, timeout_s=120)
    cpuinfo = out.read_text()
    assert cpuinfo.endswith("aarch64\n")
    assert "CPU part\t: 0xd08" in cpuinfo
    assert cpuinfo.count("processor\t") == 4


def test_the_guest_s_packages_are_the_guest_s_own(guest, tmp_path):
    code = "import numpy, edgekit, os; print(numpy.__file__, numpy.__version__, file=open(os.sys.argv[1], 'w'))"
    out = tmp_path / "out"
    emulator.run_python(guest, "litert", ("-c", code, str(out)), step="look", folder=tmp_path, timeout_s=120)
    file, version = out.read_text().split()
    assert Path(file).is_relative_to(guest.installed.sites["base"])
    assert version == "2.3.5"


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_counts_of_two_benches_agree_within_a_thousandth(benches, target):
    first, second = (bench[target]["emulated"]["counts"]["instructions"] for bench in benches)
    assert first > 1000
    assert abs(first - second) <= 0.001 * first


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_bench_holds_the_emulated_tier_beside_the_others(benches, target):
    measured = benches[0][target]
    emulated = measured["emulated"]
    counts = emulated["counts"]
    kinds = ("loads", "stores", "branches", "fmla", "dot", "simd", "other")
    assert sum(counts[kind] for kind in kinds) == pytest.approx(counts["instructions"])
    assert counts["fmla"] >= 8 * 4 / 4  # 32 products, four to an instruction
    assert counts["dot"] == 0  # the Cortex-A72 has no such instruction
    assert emulated["cpu"] == "cortex-a72"
    assert measured["latency_ms"]["emulated"] == emulated["latency_ms"]
    assert set(measured["latency_ms"]) >= {"host", "emulated"}
    assert 4096 <= emulated["peak_memory_bytes"] <= 20_000_000


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_operators_make_up_the_whole_and_repeat(per_op, benches, target):
    first, second = (bench[target]["emulated"] for bench in per_op)
    (kind,) = {operator["kind"] for operator in first["operators"]}
    assert kind == {"tflite": "FULLY_CONNECTED", "onnx": "MatMul"}[target]
    counted = sum(operator["instructions"] for operator in first["operators"])
    assert counted == pytest.approx(first["counts"]["instructions"], rel=0.05)  # of so little, calling is a part
    assert counted == pytest.approx(sum(operator["instructions"] for operator in second["operators"]), rel=0.001)
    assert benches[0][target]["emulated"]["operators"] == []


def test_a_regression_names_the_operators(root, per_op, tmp_path):
    before = per_op[0]["tflite"]
    for figures in (before["emulated"], *before["emulated"]["operators"]):
        figures["latency_ms"] /= 2
    before["latency_ms"]["emulated"] /= 2
    (tmp_path / "main.json").write_text(json.dumps({"measurements": [before]}))
    answer = call(
        "bench", "one_op", "--target", "tflite", "--device", DEVICE, "--tier", "emulated", "--min-duration", "0",
        "--min-runs", "3", "--per-op", "--baseline", tmp_path / "main.json", "--max-regression", "20%", "--root", root,
    )  # fmt: skip
    assert answer.code == 1
    (line,) = [line for line in answer.out.splitlines() if line.startswith("REGRESSION")]
    assert "latency_ms.emulated" in line
    assert "; FULLY_CONNECTED " in line
    assert " -> " in line
    assert "operators of one_op/keras tflite:float32 (emulated)" in answer.out


def test_concurrent_counts_equal_sequential_counts(root, guest, benches):
    """Both artifacts twice, on as many emulators as there are cores."""
    artifacts = [load_artifact(path) for path in open_project(root).artifact_folders()]
    context = Context(open_project(root), WorkerPool(timeout_s=120), ignore)
    together = emulate_all(
        context, [(artifact, guest) for artifact in (*artifacts, *artifacts)], EmulationOptions(threads=4)
    )
    context.pool.close()
    alone = {name: bench["emulated"]["counts"]["instructions"] for name, bench in benches[0].items()}
    for artifact, emulation in zip((*artifacts, *artifacts), together, strict=True):
        assert emulation.emulated.counts.instructions == pytest.approx(alone[artifact.manifest.target], rel=0.001)
        assert load_emulation(artifact.folder / emulation_file(DEVICE)).emulated.threads == 4


def test_a_count_does_not_depend_on_whether_edgekit_was_compiled_before(root, guest, benches, tmp_path, monkeypatch):
    """In a fresh clone the guest's Python compiles it, and its memory looks otherwise afterwards."""
    copy = tmp_path / "edgekit"
    shutil.copytree(Path(edgekit.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(edgekit, "__file__", str(copy / "__init__.py"))
    for path in open_project(root).artifact_folders():
        artifact = load_artifact(path)
        fresh = emulator.count(guest, ModelFiles.of(artifact), 4, "count", 300)
        before = benches[0][artifact.manifest.target]["emulated"]
        assert fresh.counts.instructions == pytest.approx(before["counts"]["instructions"], rel=0.001)
        assert fresh.inferences == before["inferences"] == COUNTED


def test_a_bench_without_the_tier_has_no_emulated_figure(root, benches):
    answer = call(
        "bench", "one_op", "--device", DEVICE, "--min-duration", "0", "--min-runs", "3", "--root", root, "--json"
    )
    assert answer.code == 0
    assert [item["emulated"] for item in answer.data["measurements"]] == [None, None]
    assert all("emulated" not in item["latency_ms"] for item in answer.data["measurements"])


def test_outputs_of_the_guest_are_compared_with_the_source_and_with_this_host(root):
    answer = call("validate", "one_op", "--device", DEVICE, "--root", root, "--json")
    assert answer.code == 0, answer.err
    for validation in answer.data["validations"]:
        assert (validation["device"], validation["passed"]) == (DEVICE, True)
        assert len(validation["comparisons"]) == len(validation["against_host"]) == 1
    file = root / "build/one_op/keras/tflite-float32" / f"validation-{DEVICE}.json"
    assert json.loads(file.read_text())["device"] == DEVICE


def test_check_evaluates_the_guest_s_outputs_and_junit_reports_them(root):
    assert call("validate", "one_op", "--device", DEVICE, "--root", root).code == 0
    call("validate", "one_op", "--root", root)
    answer = call("check", "one_op", "--target", "tflite", "--root", root, "--json")
    passed = {(verdict["rule"], verdict["device"]): verdict["passed"] for verdict in answer.data["verdicts"]}
    assert passed["equivalence", None] is passed["equivalence", DEVICE] is True
    file = root / "build/one_op/keras/tflite-float32" / f"validation-{DEVICE}.json"
    report = call("report", "--format", "junit", "--root", root).out
    assert f'name="equivalence on {DEVICE}"' in report
    original = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(original), "artifact_sha256": "0" * 64}))
        stale = call("check", "one_op", "--target", "tflite", "--root", root)
        assert stale.code == 1
        assert f"the validation is of an earlier model file; run: edgekit validate --device {DEVICE}" in stale.out
    finally:
        file.write_text(original)


def test_a_run_validates_on_the_cores_that_its_file_names_and_only_once(root, tmp_path):
    shutil.copy(PLUGIN_SOURCE.with_name("one_op.onnx"), tmp_path / "net.onnx")
    np.savez(tmp_path / "inputs.npz", x=np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32))
    model = '[[models]]\npath = "net.onnx"\nsample = "inputs.npz"\n'
    (tmp_path / "edgekit.toml").write_text(f'variants = ["onnx:float32"]\nvalidate_on = ["{DEVICE}"]\n{model}')
    first, second = (call("run", "--root", tmp_path, "--json") for _ in range(2))
    assert (first.code, second.code) == (0, 0), first.err
    on_core = f"validate net/onnx onnx:float32 on {DEVICE}"
    assert {item["step"]: item["state"] for item in first.data["steps"]}[on_core] == "done"
    assert {item["state"] for item in second.data["steps"]} == {"up to date"}
    (check,) = (tmp_path / "build/net/onnx/onnx-float32").glob("check.json")
    assert DEVICE in [item["device"] for item in json.loads(check.read_text())["verdicts"]]


def test_a_wrong_answer_in_the_guest_fails_the_validation(root, monkeypatch):
    infer = emulator.infer
    monkeypatch.setattr(
        emulator, "infer", lambda *arguments: {name: array + 1 for name, array in infer(*arguments).items()}
    )
    answer = call("validate", "one_op", "--target", "tflite", "--device", DEVICE, "--root", root)
    assert answer.code == 1
    assert "against this host: output y: max_abs_error 1" in answer.err


CRASHES = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": (StepCrashed, "its process crashed with SIGSEGV"),
    "import sys; sys.exit(7)": (StepCrashed, "its process ended with exit code 7 and no answer"),
    "b'x' * (1 << 35)": (StepOutOfMemory, "its process ran out of memory (it was allowed 1.5 GiB)"),
    "while True: pass": (StepTimedOut, "no answer after 10 s; it was stopped"),
}


@pytest.mark.parametrize("code", CRASHES)
def test_a_guest_that_crashes_or_hangs_is_reported_in_one_sentence(guest, tmp_path, code):
    error, sentence = CRASHES[code]
    limit = 10 if error is StepTimedOut else 120
    with pytest.raises(error) as caught:
        emulator.run_python(guest, "litert", ("-c", code), step="try it", folder=tmp_path, timeout_s=limit)
    assert str(caught.value) == f"try it: {sentence}"
    assert caught.value.exit_code == 4


def test_the_emulator_ends_with_the_command_that_started_it(guest, tmp_path):
    """Even if that is ended by SIGKILL, which no process can catch."""
    code = (
        "import sys, pathlib\n"
        "from edgekit.core.environment.project import open_project\n"
        "from edgekit.config.device_profile import load_profile\n"
        "from edgekit.devices.emulation import emulator\n"
        f"profile = load_profile(open_project(pathlib.Path('.')).device_file({DEVICE!r}))\n"
        f"guest = emulator.open_guest({DEVICE!r}, profile)\n"
        "emulator.run_python(guest, 'litert', ('-c', 'import os, time; open(os.sys.argv[1], \"w\").write(str(1));"
        " time.sleep(600)', sys.argv[1]), step='wait', folder=pathlib.Path(sys.argv[2]), timeout_s=600)\n"
    )
    started = tmp_path / "started"
    parent = subprocess.Popen([os.sys.executable, "-c", code, str(started), str(tmp_path)], cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert emulators(tmp_path)
    parent.kill()
    parent.wait()
    while emulators(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert emulators(tmp_path) == []


def emulators(folder):
    """Return the process ids of emulators whose command line names the folder."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"qemu-aarch64" in words.split(b"\0")[0] and str(folder).encode() in words:
            pids.append(int(entry.name))
    return pids


def test_budgets_on_the_emulated_tier_are_evaluated(root, benches):
    instructions = benches[-1]["tflite"]["emulated"]["counts"]["instructions"]
    bench(root, "--target", "tflite")
    call("validate", "one_op", "--root", root)
    selection = ("one_op", "--target", "tflite", "--device", DEVICE, "--root", root, "--json")
    loose = call("check", *selection, "--max-instructions", int(2 * instructions), "--max-latency", "emulated=1000")
    rules = {item["rule"]: item["passed"] for item in loose.data["verdicts"]}
    assert (rules["instructions"], rules["latency_ms.emulated"]) == (True, True)
    broken = call("check", *selection, "--max-instructions", int(instructions / 2))
    assert broken.code == 1
    (verdict,) = [item for item in broken.data["verdicts"] if item["rule"] == "instructions"]
    assert "exceeds the limit" in verdict["sentence"]
    # The memory that the budget limits is that of the emulated process.
    tight = call("check", *selection, "--max-peak-memory", "1 B")
    (verdict,) = [item for item in tight.data["verdicts"] if item["rule"] == "peak_memory_bytes"]
    measured = json.loads(next(root.glob(f"build/one_op/keras/tflite*/bench-{DEVICE}.json")).read_text())
    assert (tight.code, verdict["figure"]) == (1, measured["emulated"]["peak_memory_bytes"])
    assert verdict["figure"] != max(measured["peak_memory_load_bytes"], measured["peak_memory_run_bytes"])


def test_a_regression_against_a_baseline_is_exit_1_and_is_named(root, tmp_path):
    answer = call(
        "bench", "one_op", "--target", "tflite", "--device", DEVICE, "--tier", "emulated", "--min-duration", "0",
        "--min-runs", "3", "--root", root, "--json",
    )  # fmt: skip
    baseline = tmp_path / "baseline.json"
    baseline.write_text(answer.out)
    same = ("bench", "one_op", "--target", "tflite", "--device", DEVICE, "--tier", "emulated", "--min-duration", "0",
            "--min-runs", "3", "--root", root, "--baseline", baseline)  # fmt: skip
    assert call(*same, "--max-regression", "2%").code == 0
    data = json.loads(baseline.read_text())
    data["measurements"][0]["emulated"]["counts"]["instructions"] *= 0.97
    baseline.write_text(json.dumps(data))
    worse = call(*same, "--max-regression", "2%")
    assert worse.code == 1
    assert f"REGRESSION  one_op/keras tflite:float32 on {DEVICE}: instructions" in worse.out
    assert call(*same, "--max-regression", "4%").code == 0

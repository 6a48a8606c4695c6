"""`edgekit micro`: TFLite artifacts in TensorFlow Lite Micro."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from _helpers.support import call
from ai_edge_litert.interpreter import Interpreter

from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.errors import MissingDependency
from edgekit.stages.benchmark.device_fit import estimate_code_size

pytest.importorskip("tflite_micro")


@pytest.fixture(scope="module")
def fits(project: Path):
    selection = ("--target", "tflite:int8", "--target", "tflite:float32", "--target", "tflite:dynamic")
    return call("micro", "simple_cnn", *selection, "--device", "stm32l4r5-nucleo", "--root", project, "--json")


def test_both_frameworks_run_in_a_small_arena_and_compute_the_same(fits):
    artifacts = {artifact["artifact"]: artifact for artifact in fits.data["artifacts"]}
    for kind in ("keras", "torch"):
        int8 = artifacts[f"simple_cnn/{kind} tflite:int8"]
        # The largest two tensors are 26 x 26 x 32 and 13 x 13 x 32 bytes.
        assert int8["peak"]["size_bytes"] == 26 * 26 * 32 + 13 * 13 * 32
        assert int8["peak"]["size_bytes"] <= int8["arena"]["total_bytes"] < 40_000
        assert int8["arena"]["head_bytes"] + int8["arena"]["tail_bytes"] <= int8["arena"]["total_bytes"]
        assert int8["comparisons"][0]["figures"]
        assert {"FULLY_CONNECTED", "SOFTMAX"} <= set(int8["operators"])
        assert artifacts[f"simple_cnn/{kind} tflite:float32"]["passed"]


def test_int8_models_have_the_latency_that_published_timings_allow(project: Path, fits):
    latencies = {artifact["artifact"]: artifact["latency"] for artifact in fits.data["artifacts"]}
    assert latencies["simple_cnn/keras tflite:float32"] is None  # no timings of float kernels are published
    latency = latencies["simple_cnn/keras tflite:int8"]
    # A convolution of 3 x 3 to 26 x 26 x 32, and dense layers of 5,408 to 64 to 10, at 120 MHz.
    macs, outputs = 26 * 26 * 32 * 9 + 5408 * 64 + 64 * 10, 26 * 26 * 32 + 64 + 10
    assert latency["latency_ms"] == pytest.approx((3.565 * macs + 37.98 * outputs) / 120e3)
    assert latency["low_ms"] < latency["latency_ms"] < latency["high_ms"]
    arguments = (
        "micro",
        "simple_cnn",
        "--framework",
        "keras",
        "--target",
        "tflite:int8",
        "--root",
        project,
        "--device",
    )
    shown = call(*arguments, "stm32l4r5-nucleo")
    assert "ms +-5 %" in shown.out
    assert (
        "latency: analytic, 3.56 cycles per multiply-accumulate and 38 per output, fitted to 4 MLPerf Tiny" in shown.out
    )
    assert "uncalibrated" in call(*arguments, "stm32h7a3-nucleo").out
    measured = call("bench", *arguments[1:], "stm32l4r5-nucleo", "--json").data["measurements"][0]
    assert measured["latency_ms"]["analytic"] == latency["latency_ms"]
    assert any("fitted to 4 MLPerf Tiny v1.0 timings of NUCLEO-L4R5ZI" in note for note in measured["notes"])


def test_float_activations_with_int8_weights_are_refused_in_a_sentence(fits):
    assert fits.code != 0
    assert "TensorFlow Lite Micro cannot load this file" in fits.err
    assert "Traceback" not in fits.err


def test_a_model_that_does_not_fit_is_reported_with_its_largest_tensor(project: Path, tmp_path: Path):
    profile = (Path(__file__).parents[2] / "device_profiles/stm32l4r5-nucleo.toml").read_text()
    (tmp_path / "device_profiles").mkdir()
    small = profile.replace('ram = "640 KiB"', 'ram = "20 KiB"')
    (tmp_path / "device_profiles/tiny.toml").write_text(small)
    shutil.copytree(project / "build/simple_cnn/keras", tmp_path / "build/simple_cnn/keras")
    chosen = ("simple_cnn", "--target", "tflite:int8", "--device", "tiny", "--root", tmp_path)
    (item,) = call("micro", *chosen, "--json").data["artifacts"]
    (problem,) = item["problems"]
    assert "it needs at least 27 KB of 20.5 KB RAM; the largest tensor at the peak is" in problem
    assert call("micro", *chosen).code == 1
    answer = call("bench", *chosen)
    assert answer.code == 2
    assert "skipped: it needs at least 27 KB of 20.5 KB RAM" in answer.err


def test_the_code_that_the_operators_take_is_counted(project: Path, tmp_path: Path):
    chosen = ("micro", "simple_cnn", "--framework", "keras", "--target", "tflite:int8")
    (item,) = call(*chosen, "--root", project, "--json").data["artifacts"]
    code = item["code"]
    assert dict(code["operators"]).keys() == set(item["operators"])
    assert 20_000 < code["interpreter_bytes"] < code["low_bytes"] < code["code_bytes"] < code["high_bytes"] < 80_000
    shown = call(*chosen, "--root", project, "-v").out
    assert "code: estimated from the reference kernels for x86-64" in shown
    assert "  FULLY_CONNECTED  " in shown
    # The file alone fits into flash, but not together with its code.
    profile = (Path(__file__).parents[2] / "device_profiles/stm32l4r5-nucleo.toml").read_text()
    (tmp_path / "device_profiles").mkdir()
    flash = (item["flash_bytes"] + code["low_bytes"]) // 1024
    (tmp_path / "device_profiles/tiny.toml").write_text(profile.replace('"2 MiB"', f'"{flash} KiB"'))
    shutil.copytree(project / "build/simple_cnn/keras", tmp_path / "build/simple_cnn/keras")
    full = call(*chosen, "--device", "tiny", "--root", tmp_path)
    assert full.code == 1
    assert "by estimate, are larger than" in full.err
    unmeasured = call("bench", *chosen[1:], "--device", "tiny", "--root", tmp_path)
    assert unmeasured.code == 2
    assert "skipped: its file of" in unmeasured.err
    assert "by estimate, are larger than" in unmeasured.err


def test_without_the_packages_that_count_code_a_note_says_so():
    class Lacking:
        def call(self, *_arguments, **_named):
            raise MissingDependency("the size of code needs capstone: pip install 'edgekit[micro]'")

    events = []
    context = SimpleNamespace(pool=Lacking(), emit=events.append)
    assert estimate_code_size(context, RUNTIMES.load("tflite-micro"), ("CONV_2D",), "micro it") is None
    (note,) = events
    assert note.detail == "code size is unknown: the size of code needs capstone: pip install 'edgekit[micro]'"


def test_c_files_are_written_for_each(project: Path, tmp_path: Path):
    chosen = ("--framework", "keras", "--target", "tflite:int8", "--root", project)
    answer = call("micro", "simple_cnn", *chosen, "--emit-c", tmp_path / "firmware", "--json")
    (folder,) = map(Path, answer.data["written"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "simple_cnn_keras_int8.c",
        "simple_cnn_keras_int8.h",
        "simple_cnn_keras_int8_ops.h",
    ]


THREE = """\
import keras

def build():
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((4,), name=name) for name in ("zeta", "alpha", "mid")}
    outputs = {
        "scores": keras.layers.Dense(3, name="first")(inputs["zeta"]),
        "boxes": keras.layers.Dense(3, name="second")(inputs["alpha"]),
        "angle": keras.layers.Dense(3, name="third")(inputs["mid"]),
    }
    return keras.Model(inputs, outputs)
"""
SCALES = """\
#include <stdio.h>
#include "net_keras_int8.h"
#define SHOW(side) printf("%.9g %d\\n", NET_KERAS_INT8_##side##_SCALE, NET_KERAS_INT8_##side##_ZERO_POINT)
int main(void) {
    SHOW(INPUT_0); SHOW(INPUT_1); SHOW(INPUT_2); SHOW(OUTPUT_0); SHOW(OUTPUT_1); SHOW(OUTPUT_2);
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_tensors_of_equal_shape_have_the_numbers_of_the_interpreter(tmp_path: Path):
    """The converter reorders tensors; a firmware that follows the header gives each of them its own data."""
    (tmp_path / "net.py").write_text(THREE)
    rng = np.random.default_rng(0)
    widths = {"zeta": 1.0, "alpha": 5.0, "mid": 0.1}
    np.savez(tmp_path / "x.npz", **{name: rng.uniform(-width, width, (300, 4)) for name, width in widths.items()})
    where = ("--root", tmp_path)
    chosen = ("--target", "tflite:int8", "--target", "tflite:float32")
    answer = call(
        "export", tmp_path / "net.py:build", "--framework", "keras", "--sample", tmp_path / "x.npz", *chosen, *where
    )
    assert answer.code == 0, answer.err
    assert call("validate", *where).code == 0
    answer = call("micro", "--emit-c", tmp_path / "c", "--json", *where)
    assert answer.code == 0, answer.err
    assert all(artifact["passed"] for artifact in answer.data["artifacts"])

    file = tmp_path / "build/net/keras/tflite-int8/model.tflite"
    interpreter = Interpreter(str(file))
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    sources = tmp_path / "c" / "net_keras_int8"
    (tmp_path / "main.c").write_text(SCALES)
    command = ["cc", "-I", sources, tmp_path / "main.c", "-o", tmp_path / "program"]
    subprocess.run(command, check=True)
    shown = subprocess.run([tmp_path / "program"], check=True, capture_output=True, text=True).stdout.split("\n")
    assert len({line for line in shown if line}) == 6
    for line, detail in zip(filter(None, shown), details, strict=True):
        scale, zero_point = line.split()
        assert float(scale) == pytest.approx(detail["quantization"][0], rel=1e-6)
        assert int(zero_point) == detail["quantization"][1]
    described = call("inspect", file.parent, "--json", *where).data["description"]["signature"]
    named = [*described["inputs"], *described["outputs"]]
    assert [spec["quantization"]["scale"][0] for spec in named] == [detail["quantization"][0] for detail in details]


def test_an_export_writes_c_files_beside_the_artifact(project: Path, tmp_path: Path):
    shutil.copytree(project / "build/linear/keras/source", tmp_path / "build/linear/keras/source")
    chosen = ("--framework", "keras", "--target", "tflite:int8", "--target", "onnx:float32", "--root", tmp_path)
    answer = call("export", "linear", *chosen, "--emit", "c", "--json")
    assert answer.code == 0, answer.err
    (folder,) = map(Path, answer.data["c"])
    assert folder == tmp_path / "build/linear/keras/tflite-int8-c"
    header = (folder / "linear_keras_int8.h").read_text()
    assert "#define LINEAR_KERAS_INT8_INPUT_0_ELEMENTS 1" in header
    assert call("report", "--root", tmp_path, "--json").code == 0  # the folder is not mistaken for an artifact
    other = ("--framework", "keras", "--target", "onnx:float16", "--root", tmp_path)
    refused = call("export", "linear", *other, "--emit", "c")
    assert refused.code == 2
    assert not (tmp_path / "build/linear/keras/onnx-float16").exists()
    assert "no TFLite artifact is selected: microcontrollers run TFLite only" in refused.err


def test_tensor_lifetimes_are_shown(project: Path):
    chosen = ("--framework", "keras", "--target", "tflite:int8", "--root", project)
    answer = call("micro", "simple_cnn", *chosen, "-v")
    assert "* " in answer.out
    assert "of live tensors, in operator 1" in answer.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "tflite:int8", "--device", "pixel-3a"), "not a microcontroller"),
        (("--target", "onnx:int8"), "no TFLite artifact is selected: microcontrollers run TFLite only"),
        (("--device", "stm32"), "stm32"),
    ],
)
def test_wrong_use_is_one_sentence(project: Path, arguments, sentence):
    answer = call("micro", "simple_cnn", *arguments, "--root", project)
    assert answer.code == 2
    assert sentence in answer.err


def test_vela_estimates_cycles_and_memory(project: Path):
    pytest.importorskip("ethosu.vela")
    chosen = ("--framework", "keras", "--target", "tflite:int8", "--root", project, "--npu", "ethos-u55-128")
    answer = call("micro", "simple_cnn", *chosen, "--json")
    (found,) = answer.data["npu"]
    assert found["cycles"] > 541_440 / 128  # no schedule beats the peak
    assert found["latency_ms"] == pytest.approx(found["cycles"] / found["clock_mhz"] / 1e3, rel=1e-3)
    assert found["flash_bytes"] > 100_000  # the dense layer's weights, as Vela compresses them
    assert found["on_npu"] == 1.0
    shown = call("micro", "simple_cnn", *chosen, "-v").out
    assert "estimated by Vela" in shown


def test_an_unknown_accelerator_is_one_sentence(project: Path):
    answer = call("micro", "simple_cnn", "--target", "tflite:int8", "--npu", "ethos-u1", "--root", project)
    assert answer.code == 2
    assert "ethos-u55-128" in answer.err

"""What LiteRT's benchmark_model prints and reads: texts of several versions of it."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from edgekit.core.errors import InputError, StepFailed
from edgekit.devices.phones import benchmark_model as runner

# LiteRT 1.0 on a phone, with the profiler.
NEW = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t   3.730\t    3.640\t 16.512%\t 16.936%\t     0.000\t        1\t[a/Relu;a/Conv2D]:1
\t  Fully Connected (NC, F32) GEMM\t 0.1\t 0.2\t 1.0%\t 17.0%\t     0.000\t        1\tDelegate/Fully Connected:2

============================== Top by Computation Time ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t   3.730\t    3.640\t 16.512%\t 16.936%\t     0.000\t        1\t[a/Relu;a/Conv2D]:1
"""  # noqa: E501 - what the runner prints
# TensorFlow 2.4, without percentiles and levels.
OLD = """\
STARTING!
Initialized session in 0.335ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=5 first=3600 curr=3500 min=3400 max=3700 avg=3550 std=90

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 curr=2490 (all same)

Inference timings in us: Init: 335, First inference: 3600, Warmup (avg): 3550, Inference (avg): 2490
Peak memory footprint (MB): init=4.92969 overall=138.809
"""


def test_the_output_of_a_new_runner_is_read():
    result = runner.parse_output(NEW)
    assert (result.load_ms, result.first_inference_ms, result.warm_up_runs, result.runs) == (5.579, 1357.602, 1, 50)
    assert (result.min_ms, result.p5_ms, result.median_ms) == (1238.588, 1238.753, 1239.807)
    assert (result.p95_ms, result.max_ms, result.mean_ms) == (1247.415, 1252.566, 1240.27)
    assert result.latency_ms == 1239.807
    assert result.peak_memory_load_bytes == int(6.36328 * 2**20)
    assert result.peak_memory_run_bytes == int(109.832 * 2**20)
    assert [(cost.kind, cost.name, cost.latency_ms) for cost in result.operators] == [
        ("CONV_2D", "a/Relu;a/Conv2D", 3.64),
        ("Fully Connected (NC, F32) GEMM", "Delegate/Fully Connected", 0.2),
    ]


def test_the_output_of_an_old_runner_is_read():
    result = runner.parse_output(OLD)
    assert (result.load_ms, result.first_inference_ms, result.warm_up_runs, result.runs) == (0.335, 3.6, 5, 50)
    assert (result.latency_ms, result.min_ms, result.max_ms, result.median_ms) == (2.49, 2.49, 2.49, None)
    assert result.peak_memory_run_bytes == int(138.809 * 2**20)
    assert result.operators == ()


@pytest.mark.parametrize(
    "text", ["", "count=50 curr=3", NEW.replace("count=50", "count=0"), "count=1 curr=x", "count=1"]
)
def test_an_output_without_figures_is_an_error(text):
    with pytest.raises(ValueError, match=r"it |could not"):
        runner.parse_output(text)


def test_an_error_of_the_runner_is_its_own_words():
    text = "INFO: STARTING!\nERROR: Failed to load model x\nERROR: Benchmarking failed.\n"
    assert runner.runner_error(text) == "Failed to load model x"
    assert runner.runner_error("ERROR: Benchmarking failed.") == "Benchmarking failed."
    assert runner.runner_error("") == "it printed nothing"


def test_calls_are_packed_without_names_and_the_same_way_each_time():
    calls = [[np.arange(3, dtype=np.float32).reshape(1, 3), np.ones((1, 2), np.int8)] for _ in range(2)]
    content = runner.pack_calls(calls)
    assert content == runner.pack_calls(calls)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
        shapes = archive.extractfile("call000001/shapes").read()
    assert names == [f"call00000{call}/{name}" for call in (0, 1) for name in ("i0", "i1", "shapes")]
    assert shapes == b"--input_layer_shape=1,3:1,2"
    assert runner.input_words(2) == ["--input_layer=i0,i1", "--input_layer_value_files=i0:i0,i1:i1"]


def test_an_input_of_rank_0_is_refused():
    with pytest.raises(InputError, match="rank 0"):
        runner.pack_calls([[np.float32(1).reshape(())]])


def packed(*contents):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, content in enumerate(contents):
            entry = tarfile.TarInfo(f"call{number:06d}/out")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_outputs_are_split_in_the_order_of_the_file():
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.int8).reshape(1, 4)
    content = packed(first.tobytes() + second.tobytes(), (first + 1).tobytes() + second.tobytes())
    calls = runner.unpack_outputs(content, ["float32", "int8"], [[(2, 3), (1, 4)]] * 2)
    np.testing.assert_array_equal(calls[0][0], first)
    np.testing.assert_array_equal(calls[1][0], first + 1)
    np.testing.assert_array_equal(calls[1][1], second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "damaged"),
        (packed(b"1234"), "outputs of 1 calls, and 2 were made"),
        (packed(b"12345", b"1234"), "5 bytes of outputs, and the model has 4"),
    ],
)
def test_outputs_of_another_size_are_refused(content, message):
    with pytest.raises(StepFailed, match=message):
        runner.unpack_outputs(content, ["float32"], [[(1,)]] * 2)

"""A stand-in for LiteRT's benchmark_model: the same flags and texts, with LiteRT's interpreter for Python.

It is copied with `#!` and the path of Python before it, so it imports nothing of the tests.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

FLAGS = {
    "graph": "", "num_threads": "-1", "num_runs": "50", "min_secs": "1", "max_secs": "150", "warmup_runs": "1",
    "warmup_min_secs": "0.5", "input_layer": "", "input_layer_shape": "", "input_layer_value_files": "",
    "enable_op_profiling": "false", "output_filepath": "", "help": "false",
}  # fmt: skip
# An old runner has no file of outputs, and prints no percentiles.
OLD = "EDGEKIT_TEST_OLD_RUNNER" in os.environ


def log(text: str) -> None:
    print(f"INFO: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    print(f"ERROR: {text}\nERROR: Benchmarking failed.", file=sys.stderr, flush=True)
    sys.exit(1)


def parse() -> dict[str, str]:
    """The values of the flags; what it does not know is only reported."""
    values = {name: value for name, value in FLAGS.items() if not (OLD and name == "output_filepath")}
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        if name in values:
            values[name] = value
        else:
            print(f"WARN: Unconsumed cmdline flags: {word}", file=sys.stderr)
    return values


def statistics(times_us: list[int]) -> str:
    if not times_us:
        return "count=0"
    ordered = sorted(times_us)
    percentiles = "" if OLD else "".join(
        f" {name}={ordered[min(len(ordered) - 1, int(share * len(ordered)))]}"
        for name, share in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))
    )  # fmt: skip
    if len(set(times_us)) == 1:
        return f"count={len(times_us)} curr={times_us[0]}{percentiles}"
    mean = sum(times_us) / len(times_us)
    deviation = (sum((value - mean) ** 2 for value in times_us) / len(times_us)) ** 0.5
    return (
        f"count={len(times_us)} first={times_us[0]} curr={times_us[-1]} min={ordered[0]} max={ordered[-1]}"
        f" avg={mean:g} std={deviation:.0f}{percentiles}"
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(flags: dict[str, str]) -> Any:
    """An interpreter with the inputs of the flags."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=flags["graph"], num_threads=max(1, int(flags["num_threads"])))
    except (ValueError, RuntimeError):
        fail(f"Failed to load model {flags['graph']}")
    names, shapes = flags["input_layer"].split(","), flags["input_layer_shape"].split(":")
    files = dict(pair.split(":") for pair in flags["input_layer_value_files"].split(","))
    details = interpreter.get_input_details()
    if not len(names) == len(shapes) == len(details):
        fail("The number of items in --input_layer_shape must match the number of items in --input_layer")
    for detail, name, shape in zip(details, names, shapes, strict=True):
        if detail["name"] != name:
            text = f"WARN: Tensor # {detail['index']} is named {detail['name']} but flags call it {name}"
            print(text, file=sys.stderr)
        interpreter.resize_tensor_input(detail["index"], [int(size) for size in shape.split(",")])
    interpreter.allocate_tensors()
    for detail, name in zip(interpreter.get_input_details(), names, strict=True):
        data, needed = Path(files[name]).read_bytes(), np.zeros(detail["shape"], detail["dtype"]).nbytes
        if len(data) != needed:
            fail(f"The size of {files[name]} is {len(data)} bytes. It should be {needed} bytes.")
        interpreter.set_tensor(detail["index"], np.frombuffer(data, detail["dtype"]).reshape(detail["shape"]))
    return interpreter


def run(interpreter: Any, runs: int, seconds: float, most: str) -> list[int]:
    """The times of some inferences, in microseconds."""
    log(f"Running benchmark for at least {runs} iterations and at least {seconds} seconds but terminate if exceeding"
        f" {most} seconds.")  # fmt: skip
    begun, times = time.perf_counter(), []
    while len(times) < runs or time.perf_counter() - begun < seconds:
        before = time.perf_counter_ns()
        interpreter.invoke()
        times.append((time.perf_counter_ns() - before) // 1000)
    log(statistics(times) + "\n")
    return times


def measure(flags: dict[str, str]) -> None:
    log("STARTING!")
    log(f"Graph: [{flags['graph']}]")
    import ai_edge_litert.interpreter  # noqa: F401 - a native runner contains it

    start_mib, start = peak_mib(), time.perf_counter_ns()
    interpreter = load(flags)
    load_us, load_mib = (time.perf_counter_ns() - start) // 1000, peak_mib() - start_mib
    log(f"Initialized session in {load_us / 1e3}ms.")
    # As the loop of the real runner, which compares times: 0 seconds are over at once.
    warm_up = run(interpreter, int(flags["warmup_runs"]), float(flags["warmup_min_secs"]) or -1, flags["max_secs"])
    times = run(interpreter, int(flags["num_runs"]), float(flags["min_secs"]) or -1, flags["max_secs"])
    first, warm_up_mean = (warm_up[0], sum(warm_up) / len(warm_up)) if warm_up else (0, 0.0)
    log(f"Inference timings in us: Init: {load_us}, First inference: {first}, Warmup (avg): {warm_up_mean:g}, "
        f"Inference (avg): {sum(times) / len(times):g}")  # fmt: skip
    log("Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual"
        " memory footprint of the model at runtime. Take the information at your discretion.")  # fmt: skip
    log(f"Memory footprint delta from the start of the tool (MB): init={load_mib:g} overall={peak_mib() - start_mib:g}")
    if flags["enable_op_profiling"] == "true":
        profile(interpreter, sum(times) / len(times) / 1e3)
    if flags.get("output_filepath"):
        details = interpreter.get_output_details()
        contents = [interpreter.get_tensor(detail["index"]).tobytes() for detail in details]
        Path(flags["output_filepath"]).write_bytes(b"".join(contents))


def main() -> None:
    flags = parse()
    if flags["help"] == "true":
        usage = "".join(f"\t--{name}={value}\tstring\toptional\t...\n" for name, value in flags.items())
        print(f"ERROR: usage: {sys.argv[0]} <flags>\nFlags:\n{usage}", file=sys.stderr)
        sys.exit(1)
    if os.environ.get("EDGEKIT_TEST_RUNNER_HANGS"):
        time.sleep(120)
    if not flags["graph"]:
        fail("Please specify the name of your TF Lite input file with --graph")
    measure(flags)


def profile(interpreter: Any, mean_ms: float) -> None:
    """Print the two tables of the profiler; the time of each operator is not its own here."""
    header = ("[node type]", "[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]", "[times called]", "[Name]")
    titles = {
        "Profiling Info for Benchmark Initialization:": [("AllocateTensors", "AllocateTensors/0")],
        "Operator-wise Profiling Info for Regular Benchmark Runs:": [
            (operator["op_name"], f"[{operator['index']}]:{operator['index']}")
            for operator in interpreter._get_ops_details()
        ],
    }
    for title, rows in titles.items():
        table = ["\t".join(("", *(f"{cell:>16}" for cell in header)))]
        for kind, name in rows:
            cells = (kind, "0.1", f"{mean_ms / len(rows):.3f}", "50.0%", "50.0%", "0.000", "1", name)
            table.append("\t".join(("", *(f"{cell:>16}" for cell in cells))))
        print(f"{title}\n============================== Run Order ==============================", file=sys.stderr)
        print("\n".join(table), file=sys.stderr)
        print(
            "\n============================== Top by Computation Time ==============================", file=sys.stderr
        )
        print("\n".join(table) + f"\n\nNumber of nodes executed: {len(rows)}", file=sys.stderr)


main()

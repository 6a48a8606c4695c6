"""The command line and the output of LiteRT's benchmark_model, and of other runners with the same interface.

Flags and texts are those of tflite/tools/benchmark of LiteRT, and of TensorFlow since 2.4.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.core.errors import InputError, StepFailed
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.operator_costs import OperatorCost

# Where LiteRT's documentation puts the runner.
DEFAULT_PATH = "/data/local/tmp/benchmark_model"
# Without it, outputs cannot be compared. It was added in July 2022 (TensorFlow's pull request 55493).
OUTPUT_FLAG = "output_filepath"
# What a call reads and writes, in a folder of its own.
SHAPES_FILE, OUTPUT_FILE = "shapes", "out"
# Prints the mean time of each operator, which slows the whole down.
PROFILE_WORD = "--enable_op_profiling=true"
_MIB = 1 << 20
_WARM_UP_S = 0.5

_FLAG = re.compile(r"--(\w+)=")
_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
# A line of statistics in microseconds. Where all values are equal, as of a single run, there is only `curr`.
_STATISTICS = re.compile(r"\bcount=(\d+)((?: \w+=\S+)*)")
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
    rf"Inference \(avg\): {_NUMBER}"
)
# The growth of ru_maxrss since the start of the tool; older runners call it a peak.
_MEMORY = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init={_NUMBER} overall={_NUMBER}"
)
_PROFILE = "Operator-wise Profiling Info for Regular Benchmark Runs"
# The machines of ELF, by the name that Android gives their binary interface: (32 or 64 bits, e_machine).
_ABIS = {
    (1, 40): "armeabi-v7a",
    (2, 183): "arm64-v8a",
    (1, 3): "x86",
    (2, 62): "x86_64",
    (2, 243): "riscv64",
}


@dataclass(frozen=True)
class RunnerResult:
    """What the runner has measured. Percentiles are None where it is too old to print them.

    Attributes:
        load_ms: The time to load the model and to allocate its tensors, in ms.
        first_inference_ms: The time of the first inference in ms; None without a warm-up.
        warm_up_runs: The number of inferences before the measured ones.
        runs: The number of measured inferences.
        mean_ms: Their mean in ms.
        min_ms: The shortest one in ms.
        max_ms: The longest one in ms.
        median_ms: The median in ms.
        p5_ms: The 5th percentile in ms.
        p95_ms: The 95th percentile in ms.
        peak_memory_load_bytes: The growth of the peak memory until the model was loaded, in bytes.
        peak_memory_run_bytes: The same until the end.
        operators: The mean time of each operator; empty if it was not requested.
    """

    load_ms: float
    first_inference_ms: float | None
    warm_up_runs: int
    runs: int
    mean_ms: float
    min_ms: float
    max_ms: float
    median_ms: float | None
    p5_ms: float | None
    p95_ms: float | None
    peak_memory_load_bytes: int | None
    peak_memory_run_bytes: int | None
    operators: tuple[OperatorCost, ...] = ()

    @property
    def latency_ms(self) -> float:
        """The median, or the mean of a runner that prints no median."""
        return self.mean_ms if self.median_ms is None else self.median_ms


def read_flags(usage: str) -> frozenset[str]:
    """Return the flags that a runner knows.

    Args:
        usage: What it prints for `--help=true`.
    """
    return frozenset(_FLAG.findall(usage))


def elf_abi(file: Path) -> str:
    """Return the binary interface that a program is built for.

    Args:
        file: The program.

    Returns:
        Android's name, such as `arm64-v8a`; empty for a script, which starts with `#!`.

    Raises:
        InputError: The file cannot be read, or is no program.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(20)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; name the runner, LiteRT's benchmark_model for Android") from None
    if head.startswith(b"#!"):
        return ""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        raise InputError(f"{file} is no program for Android; name the runner, LiteRT's benchmark_model")
    machine = struct.unpack_from("<H", head, 18)[0]
    return _ABIS.get((head[4], machine), f"machine {machine} of ELF")


def pack_calls(calls: Iterable[Sequence[Array]]) -> bytes:
    """Return an archive with a folder for each call: its tensors as raw bytes, and their shapes as a flag.

    The archive is the same for the same values, and contains no name of a tensor.

    Args:
        calls: The raw inputs of each call, in the order of the model file.

    Returns:
        A tar archive.

    Raises:
        InputError: An input has rank 0, which the runner's flags cannot describe.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, arrays in enumerate(calls):
            if any(array.ndim == 0 for array in arrays):
                raise InputError("the model has an input of rank 0, which benchmark_model cannot be given")
            shapes = ":".join(",".join(map(str, array.shape)) for array in arrays)
            files = {f"i{index}": array.tobytes() for index, array in enumerate(arrays)}
            for name, content in {**files, SHAPES_FILE: f"--input_layer_shape={shapes}".encode()}.items():
                entry = tarfile.TarInfo(f"call{number:06d}/{name}")
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def input_words(n_inputs: int) -> list[str]:
    """Return the flags that name the files of a call, relative to its folder.

    The runner takes inputs in the order of the file, and only remarks that their names are others than the file's. So
    a tensor's own name, which may contain what the flags or a shell read as something else, is never written.

    Args:
        n_inputs: The number of the model's inputs.
    """
    names = [f"i{index}" for index in range(n_inputs)]
    return [
        f"--input_layer={','.join(names)}",
        f"--input_layer_value_files={','.join(f'{name}:{name}' for name in names)}",
    ]


def measure_words(threads: int, min_runs: int, min_duration_s: float, max_s: float, warm_up_max_s: float) -> list[str]:
    """Return the flags of a measurement.

    Args:
        threads: The number of threads.
        min_runs: The smallest number of measured inferences.
        min_duration_s: The shortest duration in seconds.
        max_s: The longest duration in seconds.
        warm_up_max_s: The longest duration of the warm-up in seconds.
    """
    return [
        f"--num_threads={threads}",
        f"--num_runs={min_runs}",
        f"--min_secs={min_duration_s:g}",
        f"--max_secs={max_s:g}",
        "--warmup_runs=1",
        f"--warmup_min_secs={min(_WARM_UP_S, warm_up_max_s):g}",
    ]


def infer_words() -> list[str]:
    """Return the flags of a single inference from the model's initial state, whose outputs are written."""
    once = ["--num_threads=1", "--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
    return [*once, f"--{OUTPUT_FLAG}={OUTPUT_FILE}"]


def parse_output(text: str) -> RunnerResult:
    """Decode what the runner has printed.

    Args:
        text: Its stdout and stderr.

    Returns:
        The measurement.

    Raises:
        ValueError: A line is missing or of another form.
    """
    statistics = [(int(match[1]), _values(match[2])) for match in _STATISTICS.finditer(text)]
    timings, memory = _TIMINGS.search(text), _MEMORY.search(text)
    if timings is None or not statistics:
        raise ValueError("it printed no timings")
    runs, values = statistics[-1]
    if not runs:
        raise ValueError("it measured nothing")
    mean_us = float(timings[4])
    single = values.get("curr", mean_us)
    warm_up_runs = statistics[0][0] if len(statistics) > 1 else 0
    return RunnerResult(
        load_ms=float(timings[1]) / 1e3,
        first_inference_ms=float(timings[2]) / 1e3 if warm_up_runs else None,
        warm_up_runs=warm_up_runs,
        runs=runs,
        mean_ms=mean_us / 1e3,
        min_ms=values.get("min", single) / 1e3,
        max_ms=values.get("max", single) / 1e3,
        median_ms=_milliseconds(values, "median"),
        p5_ms=_milliseconds(values, "p5"),
        p95_ms=_milliseconds(values, "p95"),
        peak_memory_load_bytes=int(float(memory[1]) * _MIB) if memory is not None else None,
        peak_memory_run_bytes=int(float(memory[2]) * _MIB) if memory is not None else None,
        operators=_operators(text),
    )


def _values(text: str) -> dict[str, float]:
    pairs = (word.split("=") for word in text.split())
    return {key: float(value) for key, value in pairs}


def _milliseconds(values: dict[str, float], key: str) -> float | None:
    return values[key] / 1e3 if key in values else None


def _operators(text: str) -> tuple[OperatorCost, ...]:
    """Return the operators in the order of computation, from the table of the profiler, whose cells tabs separate."""
    _, _, profile = text.partition(_PROFILE)
    lines = iter(profile.splitlines())
    next((line for line in lines if "Run Order" in line), None)
    header = [cell.strip() for cell in next(lines, "").split("\t") if cell.strip()]
    if "[avg ms]" not in header or "[Name]" not in header:
        return ()
    operators = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if len(cells) != len(header):
            break
        row = dict(zip(header, cells, strict=True))
        name = re.sub(r":\d+\Z", "", row["[Name]"]).strip("[]")
        operators.append(OperatorCost(row["[node type]"], name, float(row["[avg ms]"])))
    return tuple(operators)


def runner_error(text: str) -> str:
    """Return why the runner has failed, in its own words.

    Args:
        text: Its stdout and stderr.
    """
    lines = [line.removeprefix("ERROR: ").strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line or "ailed" in line or "annot" in line]
    # The last line only says that benchmarking failed.
    reasons = [line for line in errors if line != "Benchmarking failed."] or errors or lines
    return reasons[0][:300] if reasons else "it printed nothing"


def unpack_outputs(
    content: bytes, dtypes: Sequence[str], shapes: Sequence[Sequence[Sequence[int]]]
) -> list[list[Array]]:
    """Split what the runner has written into the outputs of each call.

    Args:
        content: A tar archive with a file for each call.
        dtypes: The types of the outputs, in the order of the model file.
        shapes: For each call, the shapes of its outputs in the same order.

    Returns:
        For each call, its raw outputs.

    Raises:
        StepFailed: The archive is damaged, or has other sizes than the model's outputs.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = sorted((entry for entry in archive.getmembers() if entry.isfile()), key=lambda entry: entry.name)
            files = [stream.read() for entry in members if (stream := archive.extractfile(entry)) is not None]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise StepFailed(f"the outputs of the runner are damaged ({error})") from None
    if len(files) != len(shapes):
        raise StepFailed(f"the runner wrote the outputs of {len(files)} calls, and {len(shapes)} were made")
    return [_split(data, dtypes, sizes) for data, sizes in zip(files, shapes, strict=True)]


def _split(data: bytes, dtypes: Sequence[str], shapes: Sequence[Sequence[int]]) -> list[Array]:
    counts = [math.prod(shape) for shape in shapes]
    expected = sum(count * np.dtype(dtype).itemsize for count, dtype in zip(counts, dtypes, strict=True))
    if len(data) != expected:
        raise StepFailed(f"the runner wrote {len(data)} bytes of outputs, and the model has {expected}")
    arrays, start = [], 0
    for dtype, count, shape in zip(dtypes, counts, shapes, strict=True):
        array = np.frombuffer(data, dtype, count, start).reshape(shape)
        arrays.append(array)
        start += array.nbytes
    return arrays

"""A campaign: mutate the seeds of each format, let edgekit read the results, and collect what must not happen.

A read must end with a value or with an InputError of one sentence. A worker that crashes in native code is contained,
and only counted. Anything else is a fault: another exception, a raw error of a framework, a time-out, too much memory,
a canary that was touched or whose content shows up.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from _helpers.fuzzing.mutations import Mutator
from _helpers.hostile_names import write_hostile_project
from _helpers.support import WORKER_PATH
from _helpers.worker_side.function_call import FunctionCall, call_function
from edgekit.config.device_profile import load_profile
from edgekit.config.model import load_model_spec
from edgekit.config.project import load_project
from edgekit.config.recipe import read_recipe
from edgekit.core.errors import EdgekitError, InputError, StepCrashed, StepOutOfMemory
from edgekit.core.numerics.array_files import load_arrays
from edgekit.core.records.artifact import load_artifact
from edgekit.core.records.layer_errors import load_layers
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.source import load_source
from edgekit.core.records.validation import load_validation
from edgekit.core.values.specs import TensorSpec
from edgekit.devices.emulation import setup
from edgekit.stages.context import source_environment
from edgekit.stages.conversion.describe_job import FileRequest, describe_file
from edgekit.stages.models.import_job import ImportRequest, import_user_model
from edgekit.workers import answers
from edgekit.workers.environment import Environment
from edgekit.workers.pool import WorkerPool

REPOSITORY = Path(__file__).parents[3]
CORPUS = REPOSITORY / "tests/fixtures/fuzz"
"""Inputs that once were faults: one folder a format."""

# The bounds of a single case.
MAX_SECONDS = 60.0
MAX_MEMORY_BYTES = 2 * 1024**3
SECRET = "the-content-of-a-file-that-nobody-may-read"


@dataclass(frozen=True)
class Format:
    """A kind of file that edgekit reads.

    Attributes:
        name: The name, which is also the folder in the corpus.
        file: The name of the file that `read` opens, below a fresh folder.
        seeds: Intact contents.
        mutate: A method of `Mutator`.
        read: Reads the file; returns what edgekit would show of it.
        beside: Intact files beside it, by their relative names.
        weight: The share of cases, relative to other formats: readers in workers are slow.
    """

    name: str
    file: str
    seeds: tuple[bytes, ...]
    mutate: Callable[[Mutator, bytes], bytes]
    read: Callable[[Path], object]
    weight: int = 1
    beside: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a campaign found.

    Attributes:
        cases: Format -> result (`read`, `refused`, `crashed` or `fault`) -> number of cases.
        faults: One sentence a fault; the input is in the folder of faults.
        slowest_s: Format -> the longest time of a case, in s.
    """

    cases: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    slowest_s: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(count for counter in self.cases.values() for count in counter.values())


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Campaign:
    """Formats, workers and canaries. Use it in a `with` block."""

    def __init__(self, faults: Path) -> None:
        """Prepare the seeds.

        Args:
            faults: The folder for the inputs of faults.
        """
        self.faults = faults
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-fuzz-"))
        self._canaries = self._folder / "canaries"
        self._canaries.mkdir()
        self.canary = self._canaries / "touched"
        (self._canaries / "secret").write_text(SECRET)
        self._pool = WorkerPool(timeout_s=MAX_SECONDS)
        self.formats = {entry.name: entry for entry in self._formats()}

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, *, seconds: float | None, cases: int | None, seed: int, only: tuple[str, ...] = ()) -> Outcome:
        """Run cases of every format.

        Args:
            seconds: End after this time; None for no limit.
            cases: Cases a format, times its weight; None for no limit.
            seed: The seed of all mutations.
            only: The formats; empty for all.

        Returns:
            The outcome.
        """
        outcome = Outcome()
        chosen = [self.formats[name] for name in only or self.formats]
        mutators = {entry.name: Mutator(seed, str(self.canary)) for entry in chosen}
        end = None if seconds is None else time.monotonic() + seconds
        rounds = 0
        while (cases is None or rounds < cases) and (end is None or time.monotonic() < end):
            rounds += 1
            for entry in chosen:
                for _ in range(entry.weight):
                    mutator = mutators[entry.name]
                    try:
                        content = entry.mutate(mutator, mutator.random.choice(entry.seeds))
                    except (RecursionError, UnicodeError, OverflowError, ValueError, struct.error):
                        continue  # the mutation has no form in this format
                    self.case(entry, content, outcome)
        return outcome

    def case(self, entry: Format, content: bytes, outcome: Outcome) -> None:
        """Let edgekit read one input, and note how it ended."""
        folder = self._folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        path = folder / entry.file
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        for name, data in entry.beside.items():
            (path.parent / name).parent.mkdir(exist_ok=True)
            (path.parent / name).write_bytes(data)
        start = time.monotonic()
        result, shown, problem = self._read(entry, path)
        elapsed = time.monotonic() - start
        if elapsed > MAX_SECONDS:
            problem = problem or f"{elapsed:.0f} s"
        problem = self._touched_canary(shown) or problem
        if problem:
            result = "fault"
            self._keep(entry, content, problem, outcome)
        outcome.cases.setdefault(entry.name, Counter())[result] += 1
        outcome.slowest_s[entry.name] = max(elapsed, outcome.slowest_s.get(entry.name, 0.0))

    def _read(self, entry: Format, path: Path) -> tuple[str, str, str]:
        """Read a file; return the result, what edgekit showed, and what is wrong with that."""
        try:
            with _time_limit(MAX_SECONDS + 30):
                return "read", repr(entry.read(path)), ""
        except InputError as error:
            return "refused", str(error), ""
        except (StepCrashed, StepOutOfMemory) as error:
            return "crashed", str(error), ""
        except Exception as error:  # noqa: BLE001 - everything else is what we look for
            return "fault", str(error), f"{type(error).__name__}: {str(error)[:300]}"

    def _touched_canary(self, shown: str) -> str:
        """Return what happened to the canaries, and put them back."""
        problem = "the content of another file was read" if SECRET in shown else ""
        if sorted(path.name for path in self._canaries.iterdir()) != ["secret"]:
            problem = "a canary was touched: the file was executed, or wrote a file"
            for path in self._canaries.iterdir():
                if path.name != "secret":
                    path.unlink()
        return problem

    def _keep(self, entry: Format, content: bytes, problem: str, outcome: Outcome) -> None:
        name = hashlib.sha256(content).hexdigest()[:12]
        folder = self.faults / entry.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        outcome.faults.append(f"{entry.name}/{name}: {problem}")

    # Readers.

    def _describe(self, target: str, runtime_environment: Environment) -> Callable[[Path], object]:
        def read(path: Path) -> object:
            return self._pool.call(
                describe_file, FileRequest(target, str(path)), step="inspect", environment=runtime_environment
            )

        return read

    def _import(self, kind: str) -> Callable[[Path], object]:
        def read(path: Path) -> object:
            output = Path(tempfile.mkdtemp(dir=self._pool.folder))
            model = path.parent if path.name == "saved_model.pb" else path
            # TorchScript alone keeps no shapes.
            inputs = (TensorSpec("x", ("batch", 4), "float32"),) if kind == "torchscript" else ()
            request = ImportRequest("model", kind, "/", str(model), inputs=inputs, folder=str(output))
            environment = source_environment(kind)
            try:
                return self._pool.call(import_user_model, request, step="import", environment=environment)
            finally:
                shutil.rmtree(output, ignore_errors=True)

        return read

    def _formats(self) -> Iterator[Format]:
        project = write_hostile_project(self._folder / "project", "x")
        for name, load in (
            ("manifest.json", lambda path: load_artifact(path.parent)),
            ("validation.json", load_validation),
            ("bench-host.json", load_measurement),
            ("layers.json", load_layers),
        ):
            yield Format(name, name, ((project / name).read_bytes(),), Mutator.tree, load, 20)
        source = json.dumps(_SOURCE).encode()
        yield Format("source.json", "source.json", (source,), Mutator.tree, lambda path: load_source(path.parent), 20)
        yield Format(
            "edgekit.toml", "edgekit.toml", (_PROJECT,), Mutator.text, lambda path: load_project(path.parent), 20
        )
        specs = tuple(path.read_bytes() for path in sorted(REPOSITORY.glob("models/*/model.toml"))[:3])
        yield Format("model.toml", "net/model.toml", specs, Mutator.text, lambda path: load_model_spec(path.parent), 20)
        profiles = tuple(path.read_bytes() for path in sorted(REPOSITORY.glob("device_profiles/*.toml"))[:3])
        yield Format("device profile", "device.toml", profiles, Mutator.text, load_profile, 20)
        yield Format("recipe", "recipe.json", (_RECIPE,), Mutator.tree, read_recipe, 20)
        yield Format(
            "samples", "samples.npz", self._npz(), _npz_mutation, lambda path: load_arrays(path, "npz file"), 20
        )
        yield Format("answer of a worker", "answer", _ANSWERS, Mutator.data, lambda path: _loads(path.read_bytes()), 20)
        files = self._folder / "files"
        files.mkdir()
        variables = {"PYTHONPATH": WORKER_PATH, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        for framework in ("torch", "keras"):
            self._pool.call(
                call_function,
                FunctionCall("fuzz_seeds", f"{framework}_files", {"folder": str(files)}),
                step="seeds",
                environment=Environment.of(
                    {**variables, **dict(source_environment(framework).variables)}, confined=False
                ),
                timeout_s=300,
            )
        torch = Environment(source_environment("torch").variables, memory_limit_bytes=MAX_MEMORY_BYTES)
        one_op = Path(setup.__file__).parent
        for target, path, mutate in (
            ("tflite", one_op / "one_op.tflite", Mutator.data),
            ("onnx", one_op / "one_op.onnx", Mutator.wire),
            ("torchscript", files / "model.pt", Mutator.archive),
            ("lite-interpreter", files / "model.ptl", Mutator.archive),
            ("executorch", files / "model.pte", Mutator.data),
        ):
            yield Format(f"{target} file", path.name, (path.read_bytes(),), mutate, self._describe(target, torch), 2)
        for kind, path, mutate in (
            ("onnx", one_op / "one_op.onnx", Mutator.wire),
            ("torchscript", files / "model.pt", Mutator.archive),
            ("torch", files / "model.pt2", Mutator.archive),
            ("keras", files / "model.keras", Mutator.archive),
            ("saved-model", files / "saved_model" / "saved_model.pb", Mutator.wire),
        ):
            beside = {
                f"variables/{file.name}": file.read_bytes() for file in (path.parent / "variables").glob("variables.*")
            }
            yield Format(f"{kind} source", path.name, (path.read_bytes(),), mutate, self._import(kind), beside=beside)

    def _npz(self) -> tuple[bytes, ...]:
        path = self._folder / "seed.npz"
        arrays = {"input/x": np.arange(12, dtype=np.float32).reshape(3, 4), "labels": np.arange(3)}
        contents = []
        for save in (np.savez, np.savez_compressed):
            save(path, **arrays)  # type: ignore[operator]
            contents.append(path.read_bytes())
        return tuple(contents)


def _npz_mutation(mutator: Mutator, content: bytes) -> bytes:
    return (mutator.archive if mutator.random.random() < 0.7 else mutator.data)(content)


def _loads(message: bytes) -> object:
    try:
        answers.loads(message)
        return None  # a data class may lack fields: its repr would fail, not the reader
    except EdgekitError as error:  # a worker whose answer is damaged has failed; no file is at fault
        raise InputError(str(error).replace("\n", " ")) from None


_ANSWERS = tuple(
    bytes(answers.dumps(value))
    for value in (
        ("value", {"x": np.arange(4, dtype=np.float32), "y": [1, "two", None]}),
        ("event", TensorSpec("x", ("batch", 3), "float32")),
        ("error", {"type": "StepFailed", "message": "no", "step": "s", "stderr_tail": ""}),
    )
)
_SOURCE: dict[str, Any] = {
    "name": "net", "kind": "onnx", "file": "model.onnx", "sha256": "0" * 64,
    "signature": {
        "inputs": [{"name": "x", "shape": ["batch", 4], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": ["batch", 3], "dtype": "float32"}],
    },
    "task": None, "metric": None, "metric_value": None, "parameters": 15, "code": "net.py:build",
    "code_sha256": "0" * 64, "sizes": {"width": 3}, "notes": ["a note"], "versions": {"onnx": "1.23.2"},
    "rounding": {"y": {"max_abs_error": 1e-7, "rmse": 1e-8, "samples": 64, "scale": 1.0}}, "schema_version": 1,
}  # fmt: skip
_RECIPE = json.dumps(
    {"target": "tflite", "precision": "int8", "float_layers": ["dense", "conv"], "calibration_samples": 64}
).encode()
_PROJECT = b"""\
variants = ["tflite:int8", "onnx:float32"]

[[models]]
name = "net"
path = "net.py:build"
framework = "torch"
sample = "samples.npz"

[bench]
devices = ["raspberry-pi-4b"]

[[budgets]]
size = "500 KB"

[[reports]]
format = "markdown"
path = "build/report.md"
"""


def default_faults() -> Path:
    """The folder in which a campaign keeps the inputs of faults."""
    return Path(os.environ.get("EDGEKIT_FUZZ_FAULTS", REPOSITORY / "build/fuzz"))

"""Sets up a device's emulation, and counts or runs inferences of artifacts on its core under QEMU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.config.device_profile import DeviceProfile, EmulationSpec
from edgekit.contracts.executor import ModelFiles
from edgekit.contracts.runner import read_outputs, runner_arguments, write_request
from edgekit.core.environment.atomic_files import mapped_write_errors, move_files, read_json, to_json, write_json
from edgekit.core.errors import InputError, MissingDependency, StepFailed
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.emulated_measurement import (
    Counts,
    CriticalPath,
    EmulatedLatency,
    Region,
    memory_misses_between,
    parse_marks,
    peak_memory_bytes,
)
from edgekit.core.records.samples import Samples
from edgekit.core.values.typed_json import decode_any
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.cost_models.emulated_core import Workload
from edgekit.devices.emulation import pins, setup, thread_pool, tools
from edgekit.devices.emulation.guest import cache_arguments, further_levels, guest_command
from edgekit.devices.emulation.setup import Installation, Say
from edgekit.devices.emulation.thread_pool import ThreadPool
from edgekit.workers import scratch
from edgekit.workers.environment import TELEMETRY_OFF, Environment
from edgekit.workers.process import run_module

# Default time limit of one guest process, in seconds.
TIMEOUT_S = 600.0
# Minimum numbers of warm-up and counted inferences; the runner uses more for small models.
WARM_UP_RUNS = 2
RUNS = 4
# Memory of the emulator itself, beside the guest's: its buffer of translated code, and the plugin's records.
_QEMU_OVERHEAD_BYTES = 2**30

# The file that the counting plugin writes its marks to.
_MARKS_FILE = "marks.jsonl"
# The record, in the device's folder, of the parts that have passed the check after set-up.
_CHECKED_FILE = "checked.json"
# A model with one operator for each runtime that the check runs.
_ONE_OP = {"litert": "one_op.tflite", "onnxruntime": "one_op.onnx"}


@dataclass(frozen=True)
class Guest:
    """A device whose emulation is set up.

    Attributes:
        name: The device's name.
        profile: Its profile.
        spec: How its core is emulated.
        installed: The folders of its emulation.
    """

    name: str
    profile: DeviceProfile
    spec: EmulationSpec
    installed: Installation

    def setup_problem(self, runtime: str) -> str | None:
        """Explain what to set up before a runtime can be used.

        Args:
            runtime: The runtime's name.

        Returns:
            A sentence with the command to run, or None if the runtime's wheels are installed.

        Raises:
            InputError: The runtime does not run on emulated cores.
        """
        wheel_set = pins.wheel_set(runtime)
        if wheel_set in self.installed.sites:
            return None
        return f"the wheels of {runtime} are not set up; run: edgekit devices setup {self.name} --runtime {runtime}"


def emulation_spec_of(name: str, profile: DeviceProfile) -> EmulationSpec:
    """Return how a device is emulated.

    Args:
        name: The device's name.
        profile: Its profile.

    Returns:
        The profile's `[emulation]` table.

    Raises:
        InputError: The profile has no such table.
    """
    if profile.emulation is None:
        raise InputError(f"{name} cannot be emulated: its profile has no [emulation] table")
    return profile.emulation


def open_guest(name: str, profile: DeviceProfile) -> Guest:
    """Open the emulation of a device, without setting anything up.

    Args:
        name: The device's name.
        profile: Its profile.

    Returns:
        The device's emulation.

    Raises:
        MissingDependency: The emulation is not set up, or QEMU is not installed.
        InputError: The device cannot be emulated.
    """
    spec = emulation_spec_of(name, profile)
    base = setup.find(spec, profile.cores[0].count, ("base",))
    if base is None:
        raise MissingDependency(f"the emulation of {name} is not set up; run: edgekit devices setup {name}")
    tools.require_plugin_api()
    return Guest(name, profile, spec, setup.find(spec, profile.cores[0].count, ("base", "torch")) or base)


def set_up(name: str, profile: DeviceProfile, runtimes: Sequence[str], say: Say) -> Installation:
    """Download and build the missing parts of an emulation, and check each runtime with a one-operator model.

    Parts that have passed the check are recorded and not checked again.

    Args:
        name: The device's name.
        profile: Its profile.
        runtimes: The runtimes that are needed.
        say: Receives a line about each part of the work.

    Returns:
        The folders of the emulation.

    Raises:
        MissingDependency: A program that the set-up needs is not installed.
        StepError: A part cannot be downloaded or built, or the check fails.
        InputError: The device or a runtime cannot be emulated.
    """
    spec = emulation_spec_of(name, profile)
    wheel_sets = tuple(dict.fromkeys(("base", *(pins.wheel_set(runtime) for runtime in runtimes))))
    installed = setup.set_up(spec, profile.cores[0].count, wheel_sets, say)
    checked = installed.folders.device / _CHECKED_FILE
    used = (installed.folders.plugin_folder, *(path.parent for path in installed.sites.values()))
    parts = sorted(path.name for path in used)
    if not set(parts) <= set(_checked_parts(checked)):
        _check(Guest(name, profile, spec, installed), say)
        write_json(checked, {"parts": parts})
    return installed


def with_runtime(guest: Guest, requirement: str, say: Say) -> Guest:
    """Return a device's emulation with one runtime in another version, in an environment of its own.

    The environment is set up if it is missing, and checked once with a one-operator model.

    Args:
        guest: The device's emulation.
        requirement: The runtime's package and version, which `pins.runtime_of` accepts.
        say: Receives a line about each part of the set-up.

    Returns:
        The emulation. Its other runtimes are those of `guest`.

    Raises:
        MissingDependency: A program that the set-up needs is not installed.
        StepError: The version cannot be downloaded, or the check fails.
    """
    wheel_set, runtime = pins.wheel_set_with(requirement), pins.runtime_of(requirement)
    installed = setup.set_up(guest.spec, guest.profile.cores[0].count, ("base", wheel_set), say)
    site = installed.sites[wheel_set]
    changed = replace(guest, installed=replace(installed, sites={**guest.installed.sites, "base": site}))
    checked = installed.folders.device / _CHECKED_FILE
    parts = _checked_parts(checked)
    if site.parent.name not in parts:
        say(f"running a one-operator model on {requirement}")
        _check_one_op(changed, runtime)
        write_json(checked, {"parts": sorted({*parts, site.parent.name})})
    return changed


def _checked_parts(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    stored = read_json(path, "record of checks").get("parts")
    parts: tuple[str, ...] = decode_any(tuple[str, ...], stored, f"{path}: parts", f"remove {path}")
    return parts


def _check(guest: Guest, say: Say) -> None:
    for runtime in _ONE_OP:
        say(f"running a one-operator model on {runtime}")
        _check_one_op(guest, runtime)
    if "torch" in guest.installed.sites:
        say("importing torch")
        _check_torch(guest)


def _check_one_op(guest: Guest, runtime: str) -> None:
    """Check a product with a matrix of ones, whose outputs are all the sum of the inputs.

    These runs also write the guest's compiled Python files to the cache folder.
    """
    step = f"check the emulation of {guest.name}"
    inputs = np.arange(8, dtype=np.float32).reshape(1, 8)
    file = Path(setup.__file__).with_name(_ONE_OP[runtime])
    with _scratch_folder() as folder:
        samples = folder / "samples.npz"
        Samples({"x": inputs}, {}).save(samples)
        request: dict[str, Any] = {"mode": "count", "runtime": runtime, "file": str(file), "samples": str(samples)}
        request |= {"signature": None, "threads": 1, "warm_up_runs": 1, "runs": 1, "keep_bytecode": True}
        _run(guest, request, step, folder, TIMEOUT_S, plugin=_plugin(guest, 1, folder))
        outputs = _infer(guest, request, step, folder, TIMEOUT_S)
    if any(not np.array_equal(array, np.full((1, 4), inputs.sum())) for array in outputs.values()):
        raise StepFailed(f"{step}: {runtime} computes a wrong matrix product under this version of QEMU", step=step)


def _check_torch(guest: Guest) -> None:
    """Check an addition; this also writes torch's compiled Python files to the cache folder, which takes a minute."""
    code = "import torch; assert (torch.ones(4) + torch.ones(4)).sum() == 8"
    with _scratch_folder() as folder:
        run_python(
            guest,
            "torchscript",
            ("-c", code),
            step=f"check torch in the emulation of {guest.name}",
            folder=folder,
            timeout_s=TIMEOUT_S,
            keep_bytecode=True,
        )


def run_python(
    guest: Guest,
    runtime: str,
    arguments: Sequence[str],
    *,
    step: str,
    folder: Path,
    timeout_s: float,
    plugin: Sequence[str] = (),
    keep_bytecode: bool = False,
) -> None:
    """Run Python in the guest, with a runtime's wheels, and wait for its end.

    Args:
        guest: The device's emulation.
        runtime: The runtime whose wheels are on the module path.
        arguments: The arguments of Python.
        step: The name of the step, for errors.
        folder: The guest's scratch folder.
        timeout_s: The time limit in seconds.
        plugin: The arguments of the counting plugin; empty to run without it.
        keep_bytecode: Whether the guest writes compiled Python files.

    Raises:
        StepCrashed: The process crashed or ended with an error.
        StepOutOfMemory: It exceeded the device's memory limit.
        StepTimedOut: It exceeded the time limit.
    """
    spec_path = folder / "spec.json"
    variables = {**TELEMETRY_OFF, **({} if keep_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"})}
    command = guest_command(
        guest.installed,
        pins.wheel_set(runtime),
        guest.spec,
        arguments,
        scratch=folder,
        plugin=plugin,
        variables=variables,
    )
    with mapped_write_errors(spec_path):
        spec_path.write_text(to_json(asdict(command)))
    limit = guest.profile.run.memory_limit
    # The guest's compiled Python files are kept beside its packages, once, while a device is set up.
    compiled = (guest.installed.folders.sysroot, *guest.installed.sites.values()) if keep_bytecode else ()
    environment = Environment(
        memory_limit_bytes=None if limit is None else limit + _QEMU_OVERHEAD_BYTES,
        writable=tuple(map(str, (folder, *compiled))),
        programs=(str(tools.QEMU.path()),),
    )
    run_module("edgekit.devices.emulation._guest_main", [str(spec_path)], environment, step=step, timeout_s=timeout_s)


def _run(
    guest: Guest, request: Mapping[str, Any], step: str, folder: Path, timeout_s: float, plugin: Sequence[str] = ()
) -> dict[str, Any]:
    """Run the runner in the guest and return its result; its files are left in the folder."""
    path, result = folder / "request.json", folder / "result.json"
    write_request(path, dict(request))
    run_python(
        guest,
        request["runtime"],
        runner_arguments(path, result),
        step=step,
        folder=folder,
        timeout_s=timeout_s,
        plugin=plugin,
        keep_bytecode=request.get("keep_bytecode", False),
    )
    answer: dict[str, Any] = json.loads(result.read_text())
    return answer


def _plugin(
    guest: Guest, threads: int, folder: Path, also: Sequence[int] = (), pool: ThreadPool | None = None
) -> list[str]:
    """The arguments of the counting plugin: the file of the marks, the caches of one of `threads` threads, other
    numbers of threads whose caches are simulated beside them, and the thread pool to observe."""
    core = guest.profile.cores[0]
    return [
        f"out={folder / _MARKS_FILE}",
        *cache_arguments(guest.spec, core, threads),
        *(further_levels(guest.spec, core, count) for count in also),
        *(pool.arguments() if pool else ()),
        "wait=1",
    ]


def _infer(guest: Guest, request: Mapping[str, Any], step: str, folder: Path, timeout_s: float) -> dict[str, Array]:
    outputs = folder / "outputs.npz"
    _run(guest, {**request, "mode": "infer", "outputs": str(outputs)}, step, folder, timeout_s)
    return read_outputs(outputs)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=scratch.prefix()) as folder:
        yield Path(folder)


@contextmanager
def _prepared(guest: Guest, model: ModelFiles) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Provide a temporary folder and the request for a model, without a mode.

    Raises:
        MissingDependency: The runtime's wheels are not set up.
    """
    problem = guest.setup_problem(model.runtime)
    if problem is not None:
        raise MissingDependency(problem)
    with _scratch_folder() as folder:
        yield (
            folder,
            {
                "runtime": model.runtime,
                "file": str(model.path),
                "samples": str(model.samples),
                "signature": asdict(model.signature),
                "threads": 1,  # several would spin while they wait, and these instructions would be counted
            },
        )


@dataclass(frozen=True)
class CountResult:
    """The result of counting.

    Attributes:
        counts: What one inference executes.
        inferences: The number of inferences that were counted.
        peak_memory_bytes: The peak of the guest's memory.
        regions: The parallel regions of one inference; None if the runtime's thread pool cannot be observed.
        memory_misses: Number of threads -> the lines from memory with the caches of one of so many threads.
    """

    counts: Counts
    inferences: int
    peak_memory_bytes: int
    regions: tuple[Region, ...] | None = None
    memory_misses: Mapping[int, float] = field(default_factory=dict)


def count(
    guest: Guest, model: ModelFiles, threads: int, step: str, timeout_s: float, also: Sequence[int] = ()
) -> CountResult:
    """Count what an inference executes on a device's core.

    Args:
        guest: The device's emulation.
        model: The model file, its runtime and its samples.
        threads: The number of threads that share the caches; one of them is counted.
        step: The name of the step, for errors.
        timeout_s: The time limit in seconds.
        also: Other numbers of threads to count the lines from memory for.

    Returns:
        The counts.

    Raises:
        MissingDependency: The runtime's wheels are not set up.
        InputError: The runtime does not run on emulated cores.
        StepError: The guest crashed, ran out of memory or exceeded the time limit.
    """
    with _prepared(guest, model) as (folder, request):
        pool = _thread_pool(guest, model.runtime)
        request |= {"mode": "count", "warm_up_runs": WARM_UP_RUNS, "runs": RUNS}
        request |= {"observed_library": pool.library if pool else None}
        plugin = _plugin(guest, threads, folder, also, pool)
        result = _run(guest, request, step, folder, timeout_s, plugin=plugin)
        marks = parse_marks((folder / _MARKS_FILE).read_text())
    return CountResult(
        Counts.between(marks, result["runs"]),
        result["runs"],
        peak_memory_bytes(marks),
        None if pool is None else _regions(marks[-1]["regions"], pool),
        {threads: memory_misses_between(marks, index, result["runs"]) for index, threads in enumerate(also, start=1)},
    )


def _thread_pool(guest: Guest, runtime: str) -> ThreadPool | None:
    return thread_pool.find(runtime, guest.installed.sites[pins.wheel_set(runtime)])


def _regions(rows: Sequence[Sequence[int]], pool: ThreadPool) -> tuple[Region, ...]:
    """The regions of the last inference, from the plugin's rows: function, tasks, instructions, misses by level."""
    return tuple(Region(row[1], pool.loops[row[0]].tiled, row[2], row[3] if len(row) > 3 else 0) for row in rows)


def count_each(
    guest: Guest, model: ModelFiles, files: Sequence[Path], threads: int, step: str, timeout_s: float
) -> list[tuple[Counts, CriticalPath] | None]:
    """Count what an inference of each of several files executes.

    Args:
        guest: The device's emulation.
        model: The model that the files are parts of; its runtime and samples are used.
        files: The model files.
        threads: The number of threads that share the caches; one of them is counted.
        step: The name of the step, for errors.
        timeout_s: The time limit in seconds.

    Returns:
        The counts and the critical path of each file, or None for a file that the runtime cannot load.

    Raises:
        MissingDependency: The runtime's wheels are not set up.
        InputError: The runtime does not run on emulated cores.
        StepError: The guest crashed, ran out of memory or exceeded the time limit.
    """
    with _prepared(guest, model) as (folder, request):
        pool = _thread_pool(guest, model.runtime)
        request |= {"observed_library": pool.library if pool else None}
        request |= {"mode": "count_each", "files": [str(file) for file in files], "signature": None}
        request |= {"warm_up_runs": WARM_UP_RUNS, "runs": RUNS}
        result = _run(guest, request, step, folder, timeout_s, plugin=_plugin(guest, threads, folder, pool=pool))
        marks = parse_marks((folder / _MARKS_FILE).read_text())
    counted: list[tuple[Counts, CriticalPath] | None] = []
    for runs in result["runs"]:
        size = 2 * runs + 1 if runs else 0
        if runs:
            counts = Counts.between(marks[:size], runs)
            regions = None if pool is None else _regions(marks[size - 1]["regions"], pool)
            counted.append((counts, CriticalPath.of(counts, regions, threads)))
        else:
            counted.append(None)
        marks = marks[size:]
    return counted


def save_optimized_model(guest: Guest, model: ModelFiles, to: Path, step: str, timeout_s: float) -> Path:
    """Write the model as its runtime optimizes it for a device's core.

    Args:
        guest: The device's emulation.
        model: The model.
        to: The file to write.
        step: The name of the step, for errors.
        timeout_s: The time limit in seconds.

    Returns:
        The written file, or the model's own file if the runtime cannot write an optimized model.

    Raises:
        MissingDependency: The runtime's wheels are not set up.
        InputError: The runtime does not run on emulated cores.
        StepError: The guest crashed, ran out of memory or exceeded the time limit.
    """
    with _prepared(guest, model) as (folder, request):
        # The guest may write into its scratch folder only; what it says about paths is not followed.
        output = folder / "output"
        output.mkdir()
        _run(guest, {**request, "mode": "save_optimized_model", "to": str(output / to.name)}, step, folder, timeout_s)
        move_files(output, to.parent)
    return to if to.is_file() else model.path


def infer(
    guest: Guest, model: ModelFiles, inputs: Mapping[str, Array], step: str, timeout_s: float
) -> dict[str, Array]:
    """Run samples through a model on a device's core.

    Args:
        guest: The device's emulation.
        model: The model.
        inputs: Real values by input name, each of shape (N, ...).
        step: The name of the step, for errors.
        timeout_s: The time limit in seconds.

    Returns:
        Real values by output name, each of shape (N, ...).

    Raises:
        MissingDependency: The runtime's wheels are not set up.
        InputError: The runtime does not run on emulated cores.
        StepError: The guest crashed, ran out of memory or exceeded the time limit.
    """
    with _prepared(guest, model) as (folder, request):
        samples = folder / "samples.npz"
        Samples(dict(inputs), {}).save(samples)
        return _infer(guest, {**request, "samples": str(samples)}, step, folder, timeout_s)


def emulate(guest: Guest, model: ModelFiles, threads: int, step: str, timeout_s: float) -> EmulatedLatency:
    """Count an inference on a device's core and predict its latency.

    Args:
        guest: The device's emulation.
        model: The model.
        threads: The number of threads.
        step: The name of the step, for errors.
        timeout_s: The time limit in seconds.

    Returns:
        The counts, the predicted latency in ms, and the peak of the guest's memory.

    Raises:
        MissingDependency: The runtime's wheels are not set up.
        InputError: The runtime does not run on emulated cores.
        StepError: The guest crashed, ran out of memory or exceeded the time limit.
    """
    counted = count(guest, model, threads, step, timeout_s)
    path = CriticalPath.of(counted.counts, counted.regions, threads)
    workload = Workload(counted.counts, path, threads, model.runtime)
    predicted = emulated_core.predict(guest.profile, guest.spec.cpu, workload, counted.inferences)
    return replace(predicted, peak_memory_bytes=counted.peak_memory_bytes)

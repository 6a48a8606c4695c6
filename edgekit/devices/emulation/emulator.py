"""The emulated tier: artifacts on the device's core under QEMU, counted or compared; and setting that up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.config.device_profile import DeviceProfile, EmulationSpec
from edgekit.contracts.executor import ModelFiles
from edgekit.contracts.runner import read_outputs, runner_arguments, write_request
from edgekit.core.environment.atomic_files import mapped_write_errors, read_json, to_json, write_json
from edgekit.core.errors import InputError, MissingDependency, StepFailed
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.emulated_measurement import Counts, EmulatedLatency, parse_marks, peak_memory_bytes
from edgekit.core.records.samples import Samples
from edgekit.devices.cost_models import emulated_core
from edgekit.devices.emulation import pins, setup, tools
from edgekit.devices.emulation.guest import cache_arguments, guest_command
from edgekit.devices.emulation.setup import Installed, Say
from edgekit.workers.environment import TELEMETRY_OFF, Environment
from edgekit.workers.process import run_module

TIMEOUT_S = 600.0
WARM_UP_RUNS = 2
RUNS = 4
"""At least: the runner warms small models up for longer, and counts more of their inferences."""
_QEMU_OVERHEAD_BYTES = 2**30
"""What the emulator itself may take beside the guest: its buffer of translated code, and the plugin's records."""

_MARKS = "marks.jsonl"
_CHECKED = "checked.json"
_ONE_OP = {"litert": "one_op.tflite", "onnxruntime": "one_op.onnx"}


@dataclass(frozen=True)
class Guest:
    """A device whose emulation is set up."""

    name: str
    profile: DeviceProfile
    spec: EmulationSpec
    installed: Installed

    def missing(self, runtime: str) -> str | None:
        """What to do first, where the runtime's wheels are not there."""
        wheel_set = pins.wheel_set(runtime)
        if wheel_set in self.installed.sites:
            return None
        return f"the wheels of {runtime} are not set up; run: edgekit devices setup {self.name} --runtime {runtime}"


def emulation_spec_of(name: str, profile: DeviceProfile) -> EmulationSpec:
    """How the device is emulated. Raises InputError when its profile does not say."""
    if profile.emulation is None:
        raise InputError(f"{name} cannot be emulated: its profile has no [emulation] table")
    return profile.emulation


def open_guest(name: str, profile: DeviceProfile) -> Guest:
    """The device's emulation as it stands. Raises MissingDependency when it is not set up, or QEMU is gone."""
    spec = emulation_spec_of(name, profile)
    base = setup.find(spec, profile.cores[0].count, ("base",))
    if base is None:
        raise MissingDependency(f"the emulation of {name} is not set up; run: edgekit devices setup {name}")
    tools.require_plugin_api()
    return Guest(name, profile, spec, setup.find(spec, profile.cores[0].count, ("base", "torch")) or base)


def set_up(name: str, profile: DeviceProfile, runtimes: Sequence[str], say: Say) -> Installed:
    """Fetches and builds what is missing, and runs a model of one operator on each runtime.

    What was checked is remembered: the next time there is nothing to do, unless the check was interrupted or failed.
    Raises MissingDependency, and StepError when something cannot be fetched or does not run.
    """
    spec = emulation_spec_of(name, profile)
    wheel_sets = tuple(dict.fromkeys(("base", *(pins.wheel_set(runtime) for runtime in runtimes))))
    installed = setup.set_up(spec, profile.cores[0].count, wheel_sets, say)
    remembered = installed.folders.device / _CHECKED
    used = (installed.folders.plugin_folder, *(path.parent for path in installed.sites.values()))
    parts = sorted(path.name for path in used)
    if not remembered.is_file() or not set(parts) <= set(read_json(remembered, "record of checks")["parts"]):
        _check(Guest(name, profile, spec, installed), say)
        write_json(remembered, {"parts": parts})
    return installed


def _check(guest: Guest, say: Say) -> None:
    for runtime in _ONE_OP:
        say(f"running a model of one operator on {runtime}")
        _check_one_op(guest, runtime)
    if "torch" in guest.installed.sites:
        say("importing torch")
        _check_torch(guest)


def _check_one_op(guest: Guest, runtime: str) -> None:
    """A product with a matrix of ones: every output is the sum of the inputs.

    These runs also leave the guest's compiled Python files in the cache folder.
    """
    step = f"check the emulation of {guest.name}"
    inputs = np.arange(8, dtype=np.float32).reshape(1, 8)
    file = Path(setup.__file__).with_name(_ONE_OP[runtime])
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        given = Path(folder, "given.npz")
        Samples({"x": inputs}, {}).save(given)
        request: dict[str, Any] = {"mode": "count", "runtime": runtime, "file": str(file), "samples": str(given)}
        request |= {"signature": None, "threads": 1, "warm_up_runs": 1, "runs": 1, "keep_bytecode": True}
        _run(guest, request, step, Path(folder), TIMEOUT_S, plugin=_plugin(guest, 1, Path(folder)))
        outputs = _infer(guest, request, step, Path(folder), TIMEOUT_S)
    if any(not np.array_equal(array, np.full((1, 4), inputs.sum())) for array in outputs.values()):
        raise StepFailed(f"{step}: {runtime} computes a product wrong under this QEMU", step=step)


def _check_torch(guest: Guest) -> None:
    """Adds two tensors; this also leaves torch's compiled Python files in the cache folder, which takes a minute."""
    code = "import torch; assert (torch.ones(4) + torch.ones(4)).sum() == 8"
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        run_python(
            guest,
            "torchscript",
            ("-c", code),
            step=f"check torch in the emulation of {guest.name}",
            folder=Path(folder),
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
    """Python in the guest, with a runtime's wheels, to its end; `folder` is its scratch.

    Raises StepCrashed, StepOutOfMemory or StepTimedOut.
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
    environment = Environment(memory_limit_bytes=None if limit is None else limit + _QEMU_OVERHEAD_BYTES)
    run_module("edgekit.devices.emulation._guest_main", [str(spec_path)], environment, step=step, timeout_s=timeout_s)


def _run(
    guest: Guest, request: Mapping[str, Any], step: str, folder: Path, timeout_s: float, plugin: Sequence[str] = ()
) -> dict[str, Any]:
    """The runner's result in the guest; its files are in the folder afterwards. Raises like `run_python`."""
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
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _plugin(guest: Guest, threads: int, folder: Path) -> list[str]:
    """The counting plugin's arguments: where the marks go, and the caches as one of so many threads has them."""
    return [f"out={folder / _MARKS}", *cache_arguments(guest.spec, guest.profile.cores[0], threads)]


def _infer(guest: Guest, request: Mapping[str, Any], step: str, folder: Path, timeout_s: float) -> dict[str, Array]:
    outputs = folder / "outputs.npz"
    _run(guest, {**request, "mode": "infer", "outputs": str(outputs)}, step, folder, timeout_s)
    return read_outputs(outputs)


def _request(model: ModelFiles, given: Path) -> dict[str, Any]:
    return {
        "runtime": model.runtime,
        "file": str(model.path),
        "samples": str(given),
        "signature": asdict(model.signature),
        "threads": 1,  # several would spin while they wait for one another, and be counted
    }


def _ready(guest: Guest, model: ModelFiles) -> None:
    missing = guest.missing(model.runtime)
    if missing is not None:
        raise MissingDependency(missing)


@dataclass(frozen=True)
class Counted:
    """What one inference executes, found from so many, and the peak of the process's memory."""

    counts: Counts
    inferences: int
    peak_memory_bytes: int


def count(guest: Guest, model: ModelFiles, threads: int, step: str, timeout_s: float) -> Counted:
    """What the artifact takes on the device's core, whose caches so many threads share.

    Raises MissingDependency, InputError for a runtime that is not emulated, and StepError when the guest dies.
    """
    _ready(guest, model)
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        request = _request(model, model.samples)
        request |= {"mode": "count", "warm_up_runs": WARM_UP_RUNS, "runs": RUNS}
        result = _run(guest, request, step, Path(folder), timeout_s, plugin=_plugin(guest, threads, Path(folder)))
        marks = parse_marks(Path(folder, _MARKS).read_text())
    return Counted(Counts.between(marks, result["runs"]), result["runs"], peak_memory_bytes(marks))


def count_each(
    guest: Guest, model: ModelFiles, files: Sequence[Path], threads: int, step: str, timeout_s: float
) -> list[Counts | None]:
    """What one inference of each file executes, with the artifact's samples; None for one that the runtime does not
    take. Raises like `count`."""
    _ready(guest, model)
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        request = {**_request(model, model.samples), "files": [str(file) for file in files]}
        request |= {"mode": "count_each", "signature": None, "warm_up_runs": WARM_UP_RUNS, "runs": RUNS}
        result = _run(guest, request, step, Path(folder), timeout_s, plugin=_plugin(guest, threads, Path(folder)))
        marks = parse_marks(Path(folder, _MARKS).read_text())
    found: list[Counts | None] = []
    for runs in result["runs"]:
        size = 2 * runs + 1 if runs else 0
        found.append(Counts.between(marks[:size], runs) if runs else None)
        marks = marks[size:]
    return found


def save_optimized_model(guest: Guest, model: ModelFiles, to: Path, step: str, timeout_s: float) -> Path:
    """The artifact's model as its runtime runs it on the device's core, written to `to`; or its own file, where the
    runtime cannot write it. Raises like `count`."""
    _ready(guest, model)
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        request = {**_request(model, model.samples), "mode": "as_run", "to": str(to)}
        return Path(_run(guest, request, step, Path(folder), timeout_s)["file"])


def infer(
    guest: Guest, model: ModelFiles, inputs: Mapping[str, Array], step: str, timeout_s: float
) -> dict[str, Array]:
    """What the artifact answers on the device's core: real values by output. Raises like `count`."""
    _ready(guest, model)
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        given = Path(folder, "given.npz")
        Samples(dict(inputs), {}).save(given)
        return _infer(guest, _request(model, given), step, Path(folder), timeout_s)


def emulate(guest: Guest, model: ModelFiles, threads: int, step: str, timeout_s: float) -> EmulatedLatency:
    """Counts and the predicted latency for so many threads. Raises like `count`."""
    found = count(guest, model, threads, step, timeout_s)
    predicted = emulated_core.predict(guest.profile, guest.spec.cpu, found.counts, threads, found.inferences)
    return replace(predicted, peak_memory_bytes=found.peak_memory_bytes)

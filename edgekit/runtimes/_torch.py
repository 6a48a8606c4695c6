"""Base classes of the TorchScript and lite interpreter runtimes."""

from __future__ import annotations

import contextlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, RuntimeSession, UnknownSignature
from edgekit.core.environment.requirements import TORCH
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.specs import Signature
from edgekit.torch_files.script_archive import check_script_archive

# Inferences before the profiled ones: TorchScript optimizes its graph in the first ones.
_WARM_UP_RUNS = 5

# The record of the archive in which edgekit stores the signature, which the graph does not contain.
_SIGNATURE_RECORD = "extra/edgekit.json"


class TorchSession(RuntimeSession):
    """A session with a torch module."""

    def __init__(self, module: Any, signature: Signature) -> None:
        super().__init__(signature)
        self._module = module

    def _run(self, inputs: list[Array]) -> list[Array]:
        import torch

        with torch.no_grad():
            result = self._module(*(torch.from_numpy(array) for array in inputs))
        outputs = list(result) if isinstance(result, (list, tuple)) else [result]
        return [np.asarray(output.detach().numpy()) for output in outputs]

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        import torch

        tensors = [torch.from_numpy(inputs[spec.name]) for spec in self.signature.inputs]
        module = self._module

        def call() -> None:
            with torch.no_grad():
                module(*tensors)

        return call


class TorchRuntime(Runtime):
    """Runs archives of torch; a subclass loads its format."""

    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load_library(self) -> None:
        import torch

        torch.zeros(1) + 1  # the first operator starts thread pools and registers kernels

    def check(self, path: Path) -> None:
        # Remembered: loading checks the file again. `open` reports files that are no archives.
        with contextlib.suppress(ValueError):
            check_script_archive(path)

    def _open(self, path: Path, threads: int, signature: Signature | None) -> TorchSession:
        import torch

        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if "qnnpack" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "qnnpack"  # the engine that the exporter packs quantized weights for
        try:
            module = self._load(path)
            signature = signature or _read_signature(path)
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{path}: the {self.title} cannot load this file ({reason})") from error
        if signature is None:
            raise UnknownSignature(
                f"{path}: this file does not record its inputs and outputs, and no signature was passed"
            )
        return TorchSession(module, signature)

    def _profile(
        self, path: Path, inputs: Mapping[str, Array], threads: int, runs: int, signature: Signature | None
    ) -> tuple[OperatorCost, ...]:
        import torch

        call = self._open(path, threads, signature).bind(inputs)
        for _ in range(_WARM_UP_RUNS):
            call()
        profiles: list[list[OperatorCost]] = []
        for _ in range(runs):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                call()
            profiles.append(_outermost(profiler.events()))
        return _medians(profiles)

    @abstractmethod
    def _load(self, path: Path) -> Any:
        """Load the module of a file."""


def _outermost(events: Any) -> list[OperatorCost]:
    """The operators that the graph calls itself, without nested ones; the profiler's times are in microseconds."""
    operators = [event for event in events if event.name.partition("::")[2] and not _within_operator(event)]
    ordered = sorted(operators, key=lambda event: event.time_range.start)
    return [OperatorCost(event.name, "", event.cpu_time_total / 1000) for event in ordered]


def _within_operator(event: Any) -> bool:
    parent = event.cpu_parent
    return parent is not None and (bool(parent.name.partition("::")[2]) or _within_operator(parent))


def _medians(runs: list[list[OperatorCost]]) -> tuple[OperatorCost, ...]:
    """Median times over the runs with the operators of the last run; earlier runs may precede an optimization."""
    kinds = [cost.kind for cost in runs[-1]]
    alike = [run for run in runs if [cost.kind for cost in run] == kinds]
    times = np.median([[cost.latency_ms for cost in run] for run in alike], axis=0) if kinds else ()
    counts = Counter[str]()
    costs = []
    for kind, ms in zip(kinds, times, strict=True):
        costs.append(OperatorCost(kind, str(counts[kind]), float(ms)))
        counts[kind] += 1
    return tuple(costs)


def _read_signature(path: Path) -> Signature | None:
    import torch

    reader = torch._C.PyTorchFileReader(str(path))
    if not reader.has_record(_SIGNATURE_RECORD):
        return None
    return Signature.from_dict(json.loads(reader.get_record(_SIGNATURE_RECORD)))

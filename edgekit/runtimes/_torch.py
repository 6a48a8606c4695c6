"""What TorchScript and the lite interpreter share: torch tensors in and out, and a signature from outside the graph."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, Session, UnknownSignature
from edgekit.core.environment.requirements import TORCH
from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.specs import Signature

_UNSTEADY = 5
"""Inferences before those that are told of: TorchScript optimises its graph in the first ones."""

_SIGNATURE_RECORD = "extra/edgekit.json"


class TorchSession(Session):
    """A callable module."""

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
    """Opens an archive; the subclass says how."""

    requires = (TORCH,)
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}

    def load_library(self) -> None:
        import torch

        torch.zeros(1) + 1  # the first operator starts thread pools and registers kernels

    def _open(self, path: Path, threads: int, signature: Signature | None) -> TorchSession:
        import torch

        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if "qnnpack" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "qnnpack"  # what the weights were packed for
        try:
            module = self._load(str(path))
            signature = signature or _read_signature(path)
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{path}: the {self.title} does not take this file ({reason})") from error
        if signature is None:
            raise UnknownSignature(f"{path}: this file does not tell its inputs and outputs, and none were given")
        return TorchSession(module, signature)

    def _profile(
        self, path: Path, inputs: Mapping[str, Array], threads: int, runs: int, signature: Signature | None
    ) -> tuple[OperatorCost, ...]:
        import torch

        call = self._open(path, threads, signature).bind(inputs)
        for _ in range(_UNSTEADY):
            call()
        found: list[list[OperatorCost]] = []
        for _ in range(runs):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                call()
            found.append(_outermost(profiler.events()))
        return _medians(found)

    @abstractmethod
    def _load(self, path: str) -> Any:
        """The module in the file."""


def _outermost(events: Any) -> list[OperatorCost]:
    """The operators that the graph calls, without those that they call in turn; the profiler counts microseconds."""
    operators = [event for event in events if event.name.partition("::")[2] and not _within_operator(event)]
    ordered = sorted(operators, key=lambda event: event.time_range.start)
    return [OperatorCost(event.name, "", event.cpu_time_total / 1000) for event in ordered]


def _within_operator(event: Any) -> bool:
    parent = event.cpu_parent
    return parent is not None and (bool(parent.name.partition("::")[2]) or _within_operator(parent))


def _medians(runs: list[list[OperatorCost]]) -> tuple[OperatorCost, ...]:
    """Of the runs that called the same operators as the last one: the interpreter may still optimise in the first."""
    kinds = [item.kind for item in runs[-1]]
    alike = [run for run in runs if [item.kind for item in run] == kinds]
    times = np.median([[item.latency_ms for item in run] for run in alike], axis=0) if kinds else ()
    counts = Counter[str]()
    found = []
    for kind, ms in zip(kinds, times, strict=True):
        found.append(OperatorCost(kind, str(counts[kind]), float(ms)))
        counts[kind] += 1
    return tuple(found)


def _read_signature(path: Path) -> Signature | None:
    import torch

    reader = torch._C.PyTorchFileReader(str(path))
    if not reader.has_record(_SIGNATURE_RECORD):
        return None
    return Signature.from_dict(json.loads(reader.get_record(_SIGNATURE_RECORD)))

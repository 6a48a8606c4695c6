"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contracts.runtime import Runtime, RuntimeSession
from edgekit.core.environment.instruction_set import saturates
from edgekit.core.environment.requirements import ONNXRUNTIME
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array
from edgekit.core.records.operator_costs import OperatorCost
from edgekit.core.values.onnx_metadata import recorded_quantization
from edgekit.core.values.specs import Dim, Signature, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}

# The suffix of profiler events that contain a node's time in its kernel.
_KERNEL = "_kernel_time"
# Inferences before the profiled ones: the first ones allocate memory.
_WARM_UP_RUNS = 5

# The kernels for x86 without VNNI add pairs of uint8 x int8 products in 16 bits, which saturate: an int8 file that
# shows 44 dB elsewhere can show 20 dB there. With this option the session keeps int8 weights as uint8, whose kernels
# are exact and slower. It changes nothing on other processors.
_AVOID_SATURATION = "session.x64quantprecision"
_AS_UINT8 = "int8 weights as uint8"
# Without optimizations, each operator between DequantizeLinear and QuantizeLinear computes in float32.
_SIMULATED = "QDQ pairs in float32"


class OnnxSession(RuntimeSession):
    """A session with one InferenceSession for inferences and one for measurements, which are mostly the same."""

    def __init__(
        self,
        session: Any,
        signature: Signature,
        *,
        measured: Any = None,
        arithmetic: str = "",
        create_default: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(signature)
        self.arithmetic = arithmetic
        self._session = session
        self._measured = session if measured is None else measured
        self._create_default = create_default

    def _run(self, inputs: list[Array]) -> list[Array]:
        feed = {spec.name: array for spec, array in zip(self.signature.inputs, inputs, strict=True)}
        return [np.asarray(output) for output in self._session.run(None, feed)]

    def by_default(self) -> RuntimeSession | None:
        return None if self._create_default is None else OnnxSession(self._create_default(), self.signature)

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        feed = dict(inputs)
        run = self._measured.run
        return lambda: run(None, feed)


class OnnxRuntime(Runtime):
    """Runs .onnx files with the CPU execution provider and all graph optimizations."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    targets = ("onnx",)
    requires = (ONNXRUNTIME,)

    def load_library(self) -> None:
        import onnxruntime  # noqa: F401

    def _open(self, path: Path, threads: int, signature: Signature | None) -> OnnxSession:
        return self._session(path, self._options(threads))

    @staticmethod
    def _options(threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    @staticmethod
    def _session(path: Path, options: Any) -> OnnxSession:
        import onnxruntime

        def create() -> Any:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def create_default() -> Any:
            options.add_session_config_entry(_AVOID_SATURATION, "0")
            return create()

        options.add_session_config_entry(_AVOID_SATURATION, "1")
        adjusted: dict[str, Any] = {}
        if saturates():
            adjusted = {"arithmetic": _AS_UINT8, "create_default": create_default}
        try:
            try:
                session = create()
            except Exception:  # noqa: BLE001  # its errors have no common base class; a second failure is reported
                # The rewriting of weights to uint8 fails for some files (ONNX Runtime 1.32).
                session = measured = create_default()
                if saturates():
                    options.optimized_model_filepath = ""  # it holds the model as it is measured
                    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                    session = create()
                    adjusted = {"arithmetic": _SIMULATED, "measured": measured, "create_default": lambda: measured}
        except Exception as error:  # its errors have no common base class
            # Without the path, which the message starts with: a long one would push out what is wrong.
            reason = (str(error).partition("] : ")[2] or str(error)).replace(str(path), path.name)
            raise InputError(f"{path}: ONNX Runtime cannot load this file ({reason.splitlines()[0][:200]})") from error
        scales = recorded_quantization(session.get_modelmeta().custom_metadata_map)
        sides = (
            tuple(replace(_spec(argument), quantization=scales.get(argument.name)) for argument in arguments)
            for arguments in (session.get_inputs(), session.get_outputs())
        )
        signature = Signature(*sides)
        return OnnxSession(session, signature, **adjusted)

    def _trace(self, path: Path, samples: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
        """Trace a file whose inner tensors were added to its outputs."""
        session = self._open(path, 1, None)
        inputs = Signature(session.signature.inputs, ())
        names = [spec.name for spec in session.signature.outputs]
        return batching.stack_traces(
            dict(zip(names, session._run(call), strict=True)) for call in batching.iter_batches(inputs, samples)
        )

    def _profile(
        self, path: Path, inputs: Mapping[str, Array], threads: int, runs: int, signature: Signature | None
    ) -> tuple[OperatorCost, ...]:
        options = self._options(threads)
        with tempfile.TemporaryDirectory(prefix="edgekit-profile-") as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = self._session(path, options)
            call = session.bind(inputs)
            for _ in range(_WARM_UP_RUNS + runs):
                call()
            return _node_costs(json.loads(Path(session._measured.end_profiling()).read_text()), _WARM_UP_RUNS)

    def save_optimized_model(self, path: Path, to: Path) -> Path:
        options = self._options(1)
        options.optimized_model_filepath = str(to)
        self._session(path, options)
        return to


def _node_costs(events: list[dict[str, Any]], skipped: int) -> tuple[OperatorCost, ...]:
    """The median time of each node without the first `skipped` runs; the profiler's durations are in microseconds."""
    nodes: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            nodes.setdefault(name, []).append(event["dur"] / 1000)
            kinds[name] = event["args"]["op_name"]
    return tuple(OperatorCost(kinds[name], name, float(np.median(ms[skipped:]))) for name, ms in nodes.items())


def _spec(argument: Any) -> TensorSpec:
    shape: list[Dim] = [
        dim if isinstance(dim, (int, str)) else f"dim{index}" for index, dim in enumerate(argument.shape)
    ]
    return TensorSpec(argument.name, tuple(shape), _DTYPES.get(argument.type, argument.type))


RUNTIME = OnnxRuntime()

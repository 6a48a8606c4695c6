"""One run of what a conversion made, before it counts as done; part of the conversion's step, in its worker.

A file that its runtime refuses, and a bridge that computes other values than its source, fail the route, so that the
export takes the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.contracts.runtime import RUNTIMES
from edgekit.contracts.source import LoadedModel
from edgekit.contracts.target import ConversionRequest, ConversionResult, Target
from edgekit.core.environment.requirements import require
from edgekit.core.errors import MissingDependency, StepFailed
from edgekit.core.numerics import batching, tensor_layout
from edgekit.core.numerics.metrics import Array
from edgekit.core.numerics.tensor_layout import Permutation
from edgekit.core.records import samples
from edgekit.core.values.file_names import GOLDEN_FILE

# A bridge computes in float32 as its source does. Rounding leaves 100 dB and more, 60 dB (1e-3 of the values) in the
# deepest networks; a wrong operator at one border leaves less.
MIN_BRIDGE_SQNR_DB = 60.0
# Length at which an error of a runtime is cut.
_MAX_REASON_CHARS = 300


def run_once(
    target: Target,
    converted: ConversionResult,
    request: ConversionRequest,
    source_folder: Path,
    orders: Mapping[str, Permutation] | None = None,
) -> ConversionResult:
    """Open a converted file in its target's runtime and run the first golden sample.

    Args:
        target: The target.
        converted: The result of the conversion.
        request: The request of the conversion, with the folder of the file.
        source_folder: The source folder with golden samples; without any, nothing is run.
        orders: The permutation of each input whose layout was changed.

    Returns:
        The result, with a note if the runtime is not installed.

    Raises:
        StepFailed: The runtime refuses the file, or its outputs are not those of the file's signature, or a float32
            file returns NaN or infinity where the source does not.
    """
    golden = source_folder / GOLDEN_FILE
    if not golden.is_file():
        return converted
    runtime = RUNTIMES.load(target.runtime)
    try:
        require(runtime.requires, f"the runtime {runtime.name}")
    except MissingDependency as error:
        return replace(converted, notes=(*converted.notes, f"the file was not run: {error}"))
    recorded = samples.load(golden, "golden samples")
    inputs = tensor_layout.transpose_arrays(recorded.inputs, orders or {})
    first = batching.select_samples(converted.signature, inputs, 0, 1)
    path = request.folder / converted.file
    try:
        session = runtime.open(path, threads=1, signature=converted.signature)
        outputs = session.infer(first)
    except Exception as error:  # runtimes raise errors of many types
        # Without the path of a temporary folder, which says nothing to the user.
        text = str(error).replace(f"{path}: ", "").replace(str(path), path.name)
        reason = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
        raise StepFailed(f"{runtime.title} cannot run the converted file: {reason[:_MAX_REASON_CHARS]}") from error
    missing = [spec.name for spec in converted.signature.outputs if spec.name not in outputs]
    if missing:
        raise StepFailed(f"{runtime.title} returns no {', '.join(missing)} for the converted file")
    if request.precision == "float32":
        for name, output in outputs.items():
            if not _finite(output) and name in recorded.outputs and _finite(recorded.outputs[name]):
                raise StepFailed(f"{runtime.title} computes NaN or infinity in the output {name}, the source does not")
    return converted


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def check_bridge(bridge: str, loaded: LoadedModel, source_folder: Path) -> None:
    """Compare a bridged model with its source on the first golden sample.

    Args:
        bridge: The name of the bridge.
        loaded: The model that it loaded.
        source_folder: The source folder with golden samples; without any, nothing is compared.

    Raises:
        StepFailed: An output differs by more than rounding.
    """
    golden = source_folder / GOLDEN_FILE
    if not golden.is_file():
        return
    recorded = samples.load(golden, "golden samples")
    first = batching.select_samples(loaded.signature, recorded.inputs, 0, 1)
    actual = loaded.run(first)
    for name, output in actual.items():
        expected = recorded.outputs[name][: len(output)] if output.ndim else recorded.outputs[name]
        problem = _difference(expected, output)
        if problem:
            raise StepFailed(f"the bridge {bridge} computes another output {name} than the source ({problem})")


def _difference(expected: Array, actual: Array) -> str | None:
    """Return how an output differs from the source's by more than rounding, or None."""
    if expected.shape != actual.shape:
        return f"shape {actual.shape} in place of {expected.shape}"
    reference, value = expected.astype(np.float64), actual.astype(np.float64)
    same = (reference == value) | (np.isnan(reference) & np.isnan(value))
    if expected.dtype.kind != "f":
        differing = int(np.sum(~same))
        # Ids may swap where two scores are equal up to rounding.
        return f"{differing} of {same.size} values" if differing > max(1, same.size // 100) else None
    error = np.where(same, 0.0, value - np.where(same, 0.0, reference))
    if not np.isfinite(error).all():
        return "NaN or infinity"
    noise, signal = float(np.sum(error**2)), float(np.sum(reference[np.isfinite(reference)] ** 2))
    # Below 1e-6, as float32 rounds values around 1, an error is none, whatever the output's own size.
    if np.abs(error).max(initial=0.0) <= 1e-6 or noise <= signal * 10 ** (-MIN_BRIDGE_SQNR_DB / 10):
        return None
    return f"largest difference {np.abs(error).max():.3g} where values reach {np.abs(reference).max():.3g}"

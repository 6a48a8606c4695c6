"""The diff stage: two models tensor by tensor on real samples, and the first tensor where the error leaps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.core import samples
from edgekit.core.drilling import Drilling, drill
from edgekit.core.errors import InputError
from edgekit.core.metrics import Array
from edgekit.core.pairing import pair
from edgekit.core.source import GOLDEN_FILE, SOURCE_FILE
from edgekit.sources._given_samples import read_arrays
from edgekit.stages._operands import Operand
from edgekit.stages.compare import (
    artifact_of,
    ask,
    coarser_precision,
    inputs_of,
    look,
    operand,
    run_operand,
    source_operand,
    specs,
)
from edgekit.stages.context import Context

SAMPLES = 16
"""So many samples are enough to see where an error comes from, and every tensor of them is kept."""


def source_beside(context: Context, text: str) -> Operand:
    """The source that an artifact was made from. Raises InputError when it is no artifact, or its source is gone."""
    artifact = artifact_of(Path(text))
    if artifact is None:
        raise InputError(f"{text} is no artifact, so that nothing tells what it was made from; name the two models")
    folder = artifact.folder.parent / "source"
    if not (folder / SOURCE_FILE).is_file():
        raise InputError(f"{text}: its source is not beside it, in {folder}; name the two models")
    return source_operand(context, folder)


def _golden(item: Operand) -> dict[str, Array] | None:
    """The golden inputs of an artifact or a source folder."""
    artifact = None if item.path is None else artifact_of(Path(item.path))
    if artifact is not None:
        return dict(artifact.golden().inputs)
    if item.folder is not None:
        return dict(samples.load(Path(item.folder, GOLDEN_FILE), "golden samples").inputs)
    return None


def _samples(operands: tuple[Operand, Operand], given: Path | None) -> dict[str, Array]:
    if given is not None:
        arrays = read_arrays(given)
        arrays.pop("labels", None)
        return {"input": arrays.pop("")} if "" in arrays else arrays
    found = next((golden for item in operands if (golden := _golden(item)) is not None), None)
    if found is None:
        raise InputError("give real inputs with --samples: neither model has golden samples beside it")
    return found


def diff(
    context: Context,
    reference: str | None,
    actual: str,
    given: Path | None,
    forced: Mapping[str, str] | None = None,
    count: int = SAMPLES,
) -> Drilling:
    """Compares what two models compute inside, on the first `count` samples; the first is the reference.

    Without a reference it is the source that the artifact was made from. Inputs are paired as `compare` does. Raises
    InputError (a format that does not show its inside, samples that do not fit), MissingDependency, StepError.
    """
    second = operand(context, actual)
    first = source_beside(context, actual) if reference is None else operand(context, reference)
    arrays = {name: array[:count] for name, array in _samples((first, second), given).items()}
    signatures = [look(context, item, arrays) for item in (first, second)]
    inputs = inputs_of((first, second), signatures, arrays, forced or {}, str(given) if given else "the samples")
    chosen = ((first, inputs.first), (second, inputs.second))
    traces = [ask(context, "trace", item, arrays, "trace") for item, arrays in chosen]
    results = run_operand(context, first, inputs.first), run_operand(context, second, inputs.second)
    outputs, _, _ = pair(specs(results[0]), specs(results[1]), forced or {})
    for side, results_of_side in zip(traces, results, strict=True):
        for name, array in results_of_side.items():  # a source calls its outputs otherwise inside
            side.setdefault(name, array)
    pairs = [(item.first.name, item.second.name) for item in outputs]
    return drill(traces[0], traces[1], coarser_precision(context, (first, second)), pairs)

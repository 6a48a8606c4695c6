"""The diff stage: two files of one format, tensor by tensor on real samples, and the first where the error leaps."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgekit.core import plugins
from edgekit.core.artifact import Artifact
from edgekit.core.drilling import Drilling, drill
from edgekit.core.errors import InputError
from edgekit.core.events import Listener
from edgekit.core.metrics import Array
from edgekit.core.requirements import require
from edgekit.runtimes._base import Runtime
from edgekit.sources._given_samples import read_arrays
from edgekit.stages import routes
from edgekit.stages.compare import artifact_of, target_of
from edgekit.stages.context import Context, runtime_environment
from edgekit.targets._base import Target

SAMPLES = 16
"""So many samples are enough to see where an error comes from, and every tensor of them is kept."""


def trace(target: str, path: str, samples: Mapping[str, Array], *, emit: Listener) -> dict[str, Array]:
    """What a file's operators compute; runs inside a worker."""
    plugin: Target = plugins.load("edgekit.targets", target, "TARGET")
    require(plugin.reads_with, f"reading {plugin.suffixes[0]} files")
    runtime: Runtime = plugins.load("edgekit.runtimes", plugin.runtime, "RUNTIME")
    with tempfile.TemporaryDirectory(prefix="edgekit-diff-") as folder:
        return runtime.trace(plugin.exposed(Path(path), Path(folder)), samples)


def _file(text: str) -> tuple[Target, Path, Artifact | None]:
    """Raises InputError when the text names neither an artifact nor a file of a target's format."""
    path = Path(text)
    artifact = artifact_of(path)
    if artifact is not None:
        return routes.load_target(artifact.manifest.target), artifact.verified_path().resolve(), artifact
    if not path.is_file():
        raise InputError(f"{text}: no such file, and no artifact's folder")
    target = target_of(path)
    if target is None:
        raise InputError(f"{text}: not a file of a format that edgekit writes")
    return target, path.resolve(), None


def _samples(artifacts: list[Artifact | None], given: Path | None) -> dict[str, Array]:
    if given is not None:
        return read_arrays(given)
    for artifact in artifacts:
        if artifact is not None:
            return dict(artifact.golden().inputs)
    raise InputError("give real inputs with --samples: neither file has an artifact's golden samples beside it")


def diff(context: Context, reference: str, actual: str, given: Path | None, count: int = SAMPLES) -> Drilling:
    """Compares what two files of one format compute inside, on the first `count` samples; the first is the reference.

    Raises InputError (another format each, a format that does not show its inside, samples that do not fit),
    MissingDependency, StepError.
    """
    (target, one, first), (other_target, other, second) = _file(reference), _file(actual)
    if target.name != other_target.name:
        raise InputError(
            f"{reference} is {target.title} and {actual} is {other_target.title}: inner tensors are compared within one"
            " format; edgekit compare takes any two"
        )
    samples = {name: array[:count] for name, array in _samples([first, second], given).items()}
    traces = [
        context.pool.call(
            "edgekit.stages.diff:trace",
            {"target": target.name, "path": str(path), "samples": samples},
            step=f"trace {text}",
            environment=runtime_environment(target.runtime),
            listener=context.emit,
        )
        for text, path in ((reference, one), (actual, other))
    ]
    return drill(*traces)

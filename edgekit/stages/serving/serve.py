"""Serving of artifacts over HTTP."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.environment.requirements import require
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact
from edgekit.stages.context import Context
from edgekit.stages.serving.settings import REQUIREMENTS, ServeSettings
from edgekit.stages.validation.validate import validate_one


@dataclass(frozen=True)
class ServedName:
    """A model on a server.

    Attributes:
        name: The name in URLs.
        artifact: The artifact.
        joins: Whether rows of several requests may share an inference.
    """

    name: str
    artifact: Artifact
    joins: bool


def served_names(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """Name artifacts for URLs.

    Args:
        artifacts: The artifacts.

    Returns:
        The artifacts by name: that of the model where one artifact has it, else with target and precision, as in
        `simple_cnn-onnx-float32`, and with the source kind where that is needed.

    Raises:
        InputError: Two artifacts have the same model, source kind and variant.
    """
    named: dict[str, Artifact] = {}
    forms: tuple[Callable[[Artifact], str], ...] = (
        lambda artifact: artifact.manifest.model,
        lambda artifact: f"{artifact.manifest.model}-{artifact.manifest.variant.slug}",
        lambda artifact: (
            f"{artifact.manifest.model}-{artifact.manifest.source['kind']}-{artifact.manifest.variant.slug}"
        ),
    )
    counts = [Counter(map(form, artifacts)) for form in forms]
    for artifact in artifacts:
        names = (form(artifact) for form, count in zip(forms, counts, strict=True) if count[form(artifact)] == 1)
        name = next(names, None)
        if name is None:
            raise InputError(f"two artifacts are both {artifact.label}; serve one of them")
        named[name] = artifact
    return named


def check_served(context: Context, named: dict[str, Artifact], runtime: str) -> list[str]:
    """Validate artifacts before they are served.

    Args:
        context: The project.
        named: The artifacts by name.
        runtime: The name of the runtime; empty for the default ones.

    Returns:
        One sentence for each artifact that is not equivalent to its source.

    Raises:
        EdgekitError: An artifact could not be validated.
    """
    problems = []
    for name, artifact in named.items():
        validation = validate_one(context, _writable(context, artifact), runtime=runtime)
        if not validation.passed:
            problems.append(f"{name} is not equivalent to its source: {'; '.join(validation.failures)}")
    return problems


def _writable(context: Context, artifact: Artifact) -> Artifact:
    """Return the artifact, or a copy where its folder is read-only, as in a container: the result is written there."""
    if os.access(artifact.folder, os.W_OK):
        return artifact
    copy = context.scratch() / artifact.folder.name
    return replace(artifact, folder=Path(shutil.copytree(artifact.folder, copy, dirs_exist_ok=True)))


def serve(
    named: dict[str, Artifact],
    settings: ServeSettings,
    runtime: str,
    on_ready: Callable[[str, tuple[ServedName, ...]], None],
) -> None:
    """Serve artifacts until SIGTERM or Ctrl-C.

    Args:
        named: The artifacts by name.
        settings: The address and the limits.
        runtime: The name of the runtime; empty for the default ones.
        on_ready: Called with the URL and the models when the server listens.

    Raises:
        InputError: The port is in use, or a model file is missing or was changed.
        MissingDependency: A package of the extra `serve` is not installed.
        EdgekitError: A model cannot be opened.
    """
    require(REQUIREMENTS, "edgekit serve")
    from edgekit.stages.serving.metrics import Metrics
    from edgekit.stages.serving.served_model import ServedModel
    from edgekit.stages.serving.server import listen, run, url

    metrics = Metrics()
    models = {name: ServedModel(name, artifact, settings, metrics, runtime) for name, artifact in named.items()}
    served = tuple(ServedName(name, model.artifact, model.joins) for name, model in models.items())
    listener = listen(settings)
    address = url(listener)
    run(models, settings, metrics, listener, lambda: on_ready(address, served))

"""The report stage: everything under build/, gathered."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit import __version__
from edgekit.core.artifact import Artifact
from edgekit.core.budgets import Budget
from edgekit.core.report import Report, Row
from edgekit.core.source import SOURCE_FILE, load_source
from edgekit.devices import host
from edgekit.stages.check import check_one, measurements_of, validation_of
from edgekit.stages.context import Context


def gather(context: Context, artifacts: Sequence[Artifact], own: Sequence[Budget] = ()) -> Report:
    """Raises InputError when a file of an earlier stage is damaged."""
    rows = tuple(
        Row(artifact, validation_of(artifact), measurements_of(artifact), check_one(context, artifact, own, ()))
        for artifact in artifacts
    )
    folders = sorted({artifact.folder.parent / "source" for artifact in artifacts})
    sources = tuple(load_source(folder) for folder in folders if (folder / SOURCE_FILE).is_file())
    return Report(__version__, host.description(), sources, rows)

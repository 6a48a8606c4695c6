"""Exporting a model inside a test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.environment.project import Project
from edgekit.core.errors import EdgekitError
from edgekit.core.events import ignore
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, routes
from edgekit.stages.models import model_refs
from edgekit.testing import _session


class Exporter:
    """Artifacts in a folder of the session's, each made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[tuple[str, str, str], Path] = {}

    def export(self, model: str | Path, variant: str, **options: Any) -> Path:
        """The folder of the artifact. Raises the EdgekitError that the export met."""
        key = (str(model), variant, repr(sorted(options.items(), key=str)))
        if key not in self._made:
            self._made[key] = self._export(str(model), variant, **options)
        return self._made[key]

    def _export(self, model: str, variant: str, **options: Any) -> Path:
        outer = _session.context()
        context = Context(Project(self._root / str(len(self._made))), outer.pool, ignore)
        context.project.root.mkdir()
        sizes = dict(options.pop("dims", {}))
        settings = export.ExportSettings(
            options.pop("calibration_samples", None), sizes, options.pop("layout", None), options.pop("options", {})
        )
        paths = {key: Path(options.pop(key)).resolve() for key in ("weights", "sample") if options.get(key)}
        own = model_refs.UserModelOptions(sizes=sizes, **{**options, **paths})
        try:
            groups = model_refs.resolve(context, (model,), None, own)
            plans = [
                item
                for group in groups
                for item in export.plan(group, routes.parse_selection((variant,), None), targets_named=True)
            ]
            return export.export_one(context, plans[0], settings).folder
        except EdgekitError:
            raise
        finally:
            context.close()

"""Export of models within a test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.environment.project import Project
from edgekit.core.events import ignore
from edgekit.stages.context import Context
from edgekit.stages.conversion import export, routes
from edgekit.stages.models import model_refs
from edgekit.testing import _session


class Exporter:
    """Exporter of artifacts into a folder of the test session; each artifact is exported once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[tuple[str, str, str], Path] = {}

    def export(self, model: str | Path, variant: str, **options: Any) -> Path:
        """Export a model, unless the session has already exported it with the same options.

        Args:
            model: Name of a reference model, a model file, or code as `FILE.py:FUNCTION`.
            variant: Target and precision, such as `tflite:int8`.
            **options: Options of `edgekit export`: weights, inputs, sample, calibration, name, dims, layout,
                calibration_samples, options.

        Returns:
            The folder of the artifact.

        Raises:
            EdgekitError: The export failed.
        """
        key = (str(model), variant, repr(sorted(options.items(), key=str)))
        if key not in self._folders:
            self._folders[key] = self._export(str(model), variant, **options)
        return self._folders[key]

    def _export(self, model: str, variant: str, **options: Any) -> Path:
        outer = _session.context()
        context = Context(Project(self._root / str(len(self._folders))), outer.pool, ignore)
        context.project.root.mkdir()
        sizes = dict(options.pop("dims", {}))
        settings = export.ExportSettings(
            options.pop("calibration_samples", None), sizes, options.pop("layout", None), options.pop("options", {})
        )
        paths = {key: Path(options.pop(key)).resolve() for key in ("weights", "sample") if options.get(key)}
        user_options = model_refs.UserModelOptions(sizes=sizes, **{**options, **paths})
        try:
            groups = model_refs.resolve(context, (model,), None, user_options)
            plans = [
                plan
                for group in groups
                for plan in export.plan(group, routes.parse_selection((variant,), None), targets_named=True)
            ]
            return export.export_one(context, plans[0], settings).folder
        finally:
            context.close()

"""Export of models within a test session."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from edgekit.testing import _session


class Exporter:
    """Exporter of artifacts into a folder of the test session; each artifact is exported once."""

    def __init__(self, root: Path) -> None:
        """Create an exporter that writes into an existing, empty folder."""
        self._root = root
        self._numbers = itertools.count()
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
        # A folder of its own: two exports of one model with different options would have the same artifact folder.
        # A failed export leaves its folder, so that each attempt has another number.
        root = self._root / str(next(self._numbers))
        root.mkdir()
        artifacts = _session.session().export(model, target=variant, root=root, **options)
        return artifacts[0].folder

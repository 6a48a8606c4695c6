"""A model card's content: what model.toml says of a model, and what came out of its trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.config.model import ModelSpec
from edgekit.core.numerics.tolerances import DEFAULT_TOLERANCES
from edgekit.core.records.source import SourceModel


@dataclass(frozen=True)
class Card:
    """`trained` has a source for each framework that the model was trained in, `untrained` the names of the others.

    `macs` are the multiply-accumulates of one inference by framework, where an artifact tells them.
    """

    name: str
    folder: Path
    spec: ModelSpec
    trained: tuple[SourceModel, ...]
    macs: Mapping[str, int]
    untrained: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For --json. Tolerances are those that hold, the defaults with the model's own in their place."""
        tolerances = {precision: dict(self.spec.tolerances_for(precision).limits()) for precision in DEFAULT_TOLERANCES}
        return {
            "name": self.name,
            "folder": str(self.folder),
            "spec": {**asdict(self.spec), "tolerances": tolerances},
            "trained": {source.kind: self._result(source) for source in self.trained},
        }

    def _result(self, source: SourceModel) -> dict[str, Any]:
        return {
            "metric": source.metric,
            "value": source.metric_value,
            "parameters": source.parameters,
            "macs": self.macs.get(source.kind),
            "data": dict(source.data),
            "training": dict(source.training),
            "history": dict(source.history),
            "versions": dict(source.versions),
            "sha256": source.sha256,
        }

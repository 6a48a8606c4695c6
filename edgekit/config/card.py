"""The content of a model card: the description in model.toml and the results of the model's trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.config.model import ModelSpec
from edgekit.core.records.source import SourceModel
from edgekit.core.values.precisions import precision_names


@dataclass(frozen=True)
class Card:
    """The content of one reference model's card.

    Attributes:
        name: The model's name.
        folder: The folder of its `model.toml`.
        spec: The content of `model.toml`.
        trained: One source model for each framework that the model was trained in.
        macs: Framework -> multiply-accumulates of one inference, where an artifact of that framework exists.
        untrained: The names of the other frameworks.
    """

    name: str
    folder: Path
    spec: ModelSpec
    trained: tuple[SourceModel, ...]
    macs: Mapping[str, int]
    untrained: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values.

        Returns:
            The card, with all tolerances that apply: the defaults, overridden by the model's own.
        """
        tolerances = {precision: dict(self.spec.tolerances_for(precision).limits()) for precision in precision_names()}
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

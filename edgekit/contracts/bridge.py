"""The contract of a bridge from one source kind to another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from edgekit.contracts.source import Build, LoadedModel
from edgekit.core.environment.plugin_registry import PluginKind
from edgekit.core.environment.requirements import Requirement
from edgekit.core.values.specs import Signature


class Bridge(ABC):
    """Loads the file of one kind as a model of the other, in a process of its own environment.

    `source` and `target` are the kinds; `variables` is the environment that the worker is started with. `withheld` maps
    a variant (`torchscript:int8`) that a bridged model cannot reach, though its kind can, to a sentence that says why.
    """

    source: ClassVar[str]
    target: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]]
    withheld: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedModel:
        """The model in the file as the target kind; inputs and outputs are the signature's, layout and all.

        Raises InputError when the file is empty, truncated or something else.
        """


BRIDGES: PluginKind[Bridge] = PluginKind("edgekit.sources.bridges", "BRIDGE", Bridge)  # type: ignore[type-abstract]

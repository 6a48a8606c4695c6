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
    """A loader of one kind's file as a model of another kind, in a worker with its own environment.

    Attributes:
        source: The kind of the file.
        target: The kind of the loaded model.
        requires: The packages that the worker needs.
        variables: The environment variables that the worker is started with.
        confined: Whether the kernel may confine its workers: they write into their own folders only, use no network and
            start no programs. A plug-in that cannot work so sets False, and documents why.
        withheld: The variants, such as `torchscript:int8`, that the target kind reaches but a bridged model does not,
            each with a sentence that gives the reason.
    """

    source: ClassVar[str]
    target: ClassVar[str]
    requires: ClassVar[tuple[Requirement, ...]]
    variables: ClassVar[Mapping[str, str]]
    confined: ClassVar[bool] = True
    withheld: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def load(self, path: Path, signature: Signature, build: Build | None) -> LoadedModel:
        """Load a file of the source kind as a model of the target kind.

        Args:
            path: The model file or folder.
            signature: The inputs and outputs; the loaded model keeps their layouts.
            build: Builds the network for a file of bare weights; None for a file that holds the whole model.

        Returns:
            The model in inference mode. Its signature may fix a batch that the file declares symbolic.

        Raises:
            InputError: The file is empty, truncated or of another format.
        """


BRIDGES: PluginKind[Bridge] = PluginKind("edgekit.sources.bridges", "BRIDGE", Bridge)  # type: ignore[type-abstract]

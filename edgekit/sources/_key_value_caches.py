"""Networks that return a cache of keys and values beside their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CACHE_NOTE = "the network was converted without its cache of keys and values (config.use_cache)"


def asks_for_caches(module: Any) -> bool:
    """Return whether a configuration of `transformers` in the module asks for a cache of keys and values."""
    return any(_asking(module))


def without_caches(module: Any) -> None:
    """Let models of `transformers` return no cache of keys and values.

    Decoders return one beside their outputs whenever `config.use_cache` is true, which it is by default: an object with
    methods, for the next call of a generation. It is no tensor, and nothing that a converted network is called with.

    Args:
        module: The module; the configurations of its parts are changed.
    """
    for config in list(_asking(module)):
        config.use_cache = False


def _asking(module: Any) -> Iterator[Any]:
    # Parts have configurations of their own: an encoder beside its decoder, a text model beside a vision model.
    for part in module.modules():
        config = getattr(part, "config", None)
        if getattr(config, "use_cache", None) is True:
            yield config

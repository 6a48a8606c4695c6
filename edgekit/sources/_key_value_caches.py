"""Networks that return a cache of keys and values beside their outputs."""

from __future__ import annotations

from typing import Any

CACHE_NOTE = "the network was converted without its cache of keys and values (config.use_cache)"


def without_caches(module: Any) -> bool:
    """Let models of `transformers` return no cache of keys and values.

    Decoders return one beside their outputs whenever `config.use_cache` is true, which it is by default: an object with
    methods, for the next call of a generation. It is no tensor, and nothing that a converted network is called with.

    Args:
        module: The module; the configurations of its parts are changed.

    Returns:
        Whether a configuration asked for a cache.
    """
    # Parts have configurations of their own: an encoder beside its decoder, a text model beside a vision model.
    configurations = {id(config): config for part in module.modules() if (config := getattr(part, "config", None))}
    caching = [config for config in configurations.values() if getattr(config, "use_cache", None) is True]
    for config in caching:
        config.use_cache = False
    return bool(caching)

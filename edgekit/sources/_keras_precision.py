"""Loading of Keras models at one floating-point type, whatever precision policy their layers have."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@contextlib.contextmanager
def layers_in(dtype: str) -> Iterator[None]:
    """Create layers and inputs of every floating-point policy in one type while the block runs.

    Models load in float32: no edge runtime computes in bfloat16 or float64 throughout, and converters fail on, or keep,
    the casts of a mixed policy. Weights of such layers fit into float32; those of mixed policies have that type anyway.

    Args:
        dtype: The type that weights get and arithmetic is done in, such as `float32`.
    """
    import keras
    from keras.src.dtype_policies.dtype_policy import DTypePolicy

    original_parse, original_input = DTypePolicy._parse_name, keras.layers.InputLayer.__init__
    input_parameters = inspect.signature(original_input)

    def parse(policy: Any, name: str) -> tuple[str, str]:
        compute, variable = original_parse(policy, name)
        return (dtype, dtype) if compute in _FLOATS else (compute, variable)

    @functools.wraps(original_input)
    def create_input(*args: Any, **kwargs: Any) -> None:
        bound = input_parameters.bind(*args, **kwargs)
        if (bound.arguments.get("dtype") or keras.config.floatx()) in _FLOATS:
            bound.arguments["dtype"] = dtype
        original_input(*bound.args, **bound.kwargs)

    # Keras reads the names of the arguments from the function itself.
    create_input.__signature__ = input_parameters  # type: ignore[attr-defined]
    # Policies come from files, from the code of users and from a global default. All of them are parsed here.
    DTypePolicy._parse_name, keras.layers.InputLayer.__init__ = parse, create_input
    try:
        yield
    finally:
        DTypePolicy._parse_name, keras.layers.InputLayer.__init__ = original_parse, original_input

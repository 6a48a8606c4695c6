"""Scales of the inputs and outputs of an ONNX file, which the format has no place for: an entry of its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgekit.core.values.specs import Quantization

# JSON: by tensor name an object with `scale` and `zero_point`.
METADATA_KEY = "edgekit.quantization"


def recorded_quantization(metadata: Mapping[str, str]) -> dict[str, Quantization]:
    """Return the scales of inputs and outputs that a file records.

    Args:
        metadata: The metadata of the file.

    Returns:
        Quantization by tensor name; empty without a valid entry.
    """
    try:
        entries = json.loads(metadata.get(METADATA_KEY, "{}"))
        return {
            str(name): Quantization((float(entry["scale"]),), (int(entry["zero_point"]),))
            for name, entry in entries.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):  # of another tool, or damaged
        return {}

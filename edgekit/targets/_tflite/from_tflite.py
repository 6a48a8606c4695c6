"""Flatbuffers of a source that is a .tflite file already."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.records.source import LoadedSource
from edgekit.tflite_files.ends import with_shapes

CONVERTER = "none"


def convert_float(source: LoadedSource, folder: Path) -> bytes:
    """Return the float32 flatbuffer of a source, in which the import has dequantized what was quantized.

    Args:
        source: The loaded file.
        folder: A folder for temporary files.

    Returns:
        The flatbuffer.
    """
    sizes = {spec.name: [int(dim) for dim in spec.shape] for spec in source.signature.inputs}  # fixed by the target
    return with_shapes(source.model, sizes)

"""Flatbuffers of a source that is a .tflite file already."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.records.source import LoadedSource

CONVERTER = "none"


def convert_float(source: LoadedSource, folder: Path) -> bytes:
    """Return the float32 flatbuffer of a source, in which the import has dequantized what was quantized.

    Args:
        source: The loaded file.
        folder: A folder for temporary files.

    Returns:
        The flatbuffer.
    """
    content: bytes = source.model
    return content

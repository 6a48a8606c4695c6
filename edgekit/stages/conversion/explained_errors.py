"""Converters' errors as one sentence that names the operator, the line of the user's code, and a way that works.

Only causes that the user can change, with exit code 2; `edgekit.workers._worker_main` maps all other errors.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from edgekit.contracts.source import LoadedModel
from edgekit.contracts.target import Target
from edgekit.core.errors import EdgekitError, InputError

# How converters name an operator that they cannot convert: litert-torch 0.10, ExecuTorch 1.5, torch.onnx (2.13), and
# the flatbuffer converter behind litert-torch.
_OPERATOR = re.compile(
    r"Lowering not found: (?:torch\.ops\.)?(?P<litert>[\w.:]+)"
    r"|Operator torch\._ops\.(?P<executorch>[\w.]+) is not in Core ATen"
    r"|Missing out variants: \{'(?P<out>[\w.:]+)'"
    r"|No (?:ONNX function|decompositions registered)[^<]*<OpOverload\(op='(?P<onnx>[\w.]+)'"
    r"|failed to legalize operation '(?P<mlir>[\w.]+)'"
)
# How litert-torch 0.10 names a tensor of complex numbers, whose operators it has.
_COMPLEX = "Unsupported ir element type: complex"
# What torch.export and MLIR write about the place where an operator comes from.
_PLACE = re.compile(r"""(?:File ")?(?P<file>/[^\s":]+\.py)(?:", line |:)(?P<line>\d+)""")


@contextlib.contextmanager
def explained_errors(target: Target, loaded: LoadedModel) -> Iterator[None]:
    """Replace a converter's error by a sentence, if its cause is known.

    Args:
        target: The target of the conversion.
        loaded: The source.

    Raises:
        InputError: The network's code reads values that depend on the input, or has an operator that the target lacks.
    """
    try:
        yield
    except EdgekitError:
        raise
    except Exception as error:  # converters raise any class
        sentence = missing_operator(str(error), target.title)
        if sentence:
            raise InputError(sentence) from error
        reads = loaded.data_reads()
        if reads:
            raise InputError(
                f"{target.title} files hold a fixed graph of operators, but the network's code reads values that depend"
                f" on the input: {reads[0]}; write it with tensor operators such as torch.where, or export to"
                " torchscript"
            ) from error
        raise


def missing_operator(message: str, title: str) -> str | None:
    """Return a sentence about the operator that a converter's message says it cannot convert.

    Args:
        message: The message of the converter.
        title: The name of the target.

    Returns:
        The sentence, or None if the message is about something else.
    """
    match = _OPERATOR.search(message)
    if match is None and _COMPLEX not in message:
        return None
    places = [place for place in _PLACE.finditer(message) if not _is_library(place["file"])]
    where = f", of {Path(places[-1]['file']).name}, line {places[-1]['line']}," if places else ""
    if match is None:
        return (
            f"complex numbers{where} have no counterpart in {title} files; compute their real and imaginary parts as"
            " tensors, those of an STFT by convolutions, or export to onnx or torchscript"
        )
    name = next(group for group in match.groups() if group).removesuffix(".default")
    return (
        f"the operator {name}{where} has no counterpart in {title} files; write it with other operators, or export to"
        " onnx or torchscript"
    )


def _is_library(file: str) -> bool:
    return "/site-packages/" in file or file.startswith(str(Path(__file__).parents[2]))

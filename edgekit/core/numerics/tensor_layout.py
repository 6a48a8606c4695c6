"""Image layouts (NCHW, NHWC) and the permutations between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec

Permutation = tuple[int, ...]
# One letter for each dimension: batch, channels, height, width. All other ranks have no layout to choose.
LAYOUTS = ("NCHW", "NHWC")


def axis_permutation(old: str, new: str) -> Permutation:
    """Compute the permutation from one layout to another, as `np.transpose` takes it.

    Args:
        old: The present layout, for example `NCHW`.
        new: The required layout with the same letters, for example `NHWC`.

    Returns:
        For each new dimension the index of the old one: (0, 2, 3, 1) from NCHW to NHWC.
    """
    return tuple(old.index(letter) for letter in new)


def inverse_permutation(permutation: Permutation) -> Permutation:
    """Compute the permutation that undoes another one.

    Args:
        permutation: For each new dimension the index of the old one.

    Returns:
        The inverse permutation.
    """
    # The positions that sort a permutation are its inverse.
    return tuple(int(index) for index in np.argsort(permutation))


def permute_spec(spec: TensorSpec, permutation: Permutation, layout: str) -> TensorSpec:
    """Return a tensor with permuted dimensions.

    Args:
        spec: The tensor.
        permutation: For each new dimension the index of the old one.
        layout: The layout that results.

    Returns:
        The changed copy.
    """
    return replace(spec, shape=tuple(spec.shape[index] for index in permutation), layout=layout)


def relayout_signature(signature: Signature, layout: str) -> tuple[Signature, dict[str, Permutation]]:
    """Convert all images of a signature to one layout.

    Args:
        signature: Inputs and outputs of the model.
        layout: The required layout.

    Returns:
        The new signature, and the permutation of each tensor that changes, by name.

    Raises:
        InputError: The layout is unknown, or the signature has no image.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}'; known: {', '.join(LAYOUTS)}")
    images = [spec for spec in (*signature.inputs, *signature.outputs) if spec.layout in LAYOUTS]
    if not images:
        raise InputError("a layout applies to images only, but this model has no input or output of four dimensions")
    orders = {spec.name: axis_permutation(str(spec.layout), layout) for spec in images if spec.layout != layout}

    def permuted(spec: TensorSpec) -> TensorSpec:
        return permute_spec(spec, orders[spec.name], layout) if spec.name in orders else spec

    return Signature(tuple(map(permuted, signature.inputs)), tuple(map(permuted, signature.outputs))), orders


def permutations_between(old: Signature, new: Signature) -> dict[str, Permutation]:
    """Compute the permutations of all images whose layout differs between two signatures.

    Args:
        old: The present signature.
        new: The required signature, with the same tensor names.

    Returns:
        Permutations by tensor name.
    """
    layouts = {spec.name: spec.layout for spec in (*new.inputs, *new.outputs)}
    pairs = [(spec.name, spec.layout, layouts.get(spec.name)) for spec in (*old.inputs, *old.outputs)]
    return {
        name: axis_permutation(before, after)
        for name, before, after in pairs
        if before in LAYOUTS and after in LAYOUTS and before != after
    }


def transpose_arrays(arrays: Mapping[str, Array], orders: Mapping[str, Permutation]) -> dict[str, Array]:
    """Transpose samples.

    Args:
        arrays: Samples by tensor name, shape (N, ...).
        orders: Permutations by tensor name.

    Returns:
        Contiguous transposed arrays for the tensors in `orders`, all others unchanged.
    """
    return {
        name: np.ascontiguousarray(np.transpose(array, orders[name])) if name in orders else array
        for name, array in arrays.items()
    }

"""Layouts of images: where the channels stand, and what it takes to put them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgekit.core.errors import InputError
from edgekit.core.numerics.metrics import Array
from edgekit.core.values.specs import Signature, TensorSpec

Permutation = tuple[int, ...]
LAYOUTS = ("NCHW", "NHWC")


def axis_permutation(old: str, new: str) -> Permutation:
    """For each dimension of the new layout, which of the old one it is: NCHW to NHWC is (0, 2, 3, 1)."""
    return tuple(old.index(letter) for letter in new)


def inverse_permutation(permutation: Permutation) -> Permutation:
    """The order that undoes it."""
    return tuple(int(index) for index in np.argsort(permutation))


def permute_spec(spec: TensorSpec, permutation: Permutation, layout: str) -> TensorSpec:
    """The tensor with its dimensions in another order."""
    return replace(spec, shape=tuple(spec.shape[index] for index in permutation), layout=layout)


def relayout_signature(signature: Signature, layout: str) -> tuple[Signature, dict[str, Permutation]]:
    """The signature with every image in that layout, and the order of each tensor that changes.

    Raises InputError for an unknown layout, and when there is no image of another layout in the signature.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}'; known: {', '.join(LAYOUTS)}")
    images = [spec for spec in (*signature.inputs, *signature.outputs) if spec.layout in LAYOUTS]
    if not images:
        raise InputError("--layout is for images, and this model has no input or output of four dimensions")
    orders = {spec.name: axis_permutation(str(spec.layout), layout) for spec in images if spec.layout != layout}

    def moved(spec: TensorSpec) -> TensorSpec:
        return permute_spec(spec, orders[spec.name], layout) if spec.name in orders else spec

    return Signature(tuple(map(moved, signature.inputs)), tuple(map(moved, signature.outputs))), orders


def permutations_between(old: Signature, new: Signature) -> dict[str, Permutation]:
    """The order of each image that has another layout in the new signature."""
    layouts = {spec.name: spec.layout for spec in (*new.inputs, *new.outputs)}
    pairs = [(spec.name, spec.layout, layouts.get(spec.name)) for spec in (*old.inputs, *old.outputs)]
    return {
        name: axis_permutation(was, now) for name, was, now in pairs if was in LAYOUTS and now in LAYOUTS and was != now
    }


def transpose_arrays(arrays: Mapping[str, Array], orders: Mapping[str, Permutation]) -> dict[str, Array]:
    """Samples by name, shape (N, ...), those named in `orders` with their dimensions in the new order."""
    return {
        name: np.ascontiguousarray(np.transpose(array, orders[name])) if name in orders else array
        for name, array in arrays.items()
    }

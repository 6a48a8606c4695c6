"""Operators that sample images between their pixels: Resize, GridSample, AffineGrid, RoiAlign.

Resize uses PyTorch's interpolation where the meaning agrees, since every converter supports it. Otherwise each axis is
multiplied by the matrix of its interpolation weights, which covers every combination of Resize's attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.registry import Call, operator
from edgekit.sources.bridges._onnx.values import Host, to_tensor


@dataclass(frozen=True)
class _Axis:
    """One axis to resize.

    Attributes:
        axis: The position of the axis.
        size: Its size.
        target: Its new size.
        scale: The factor for coordinates; not always target / size, since given scales round the target down.
        roi: The start and end of the region of interest, relative to the size.
    """

    axis: int
    size: Any
    target: Any
    scale: float
    roi: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether the scale is the ratio of the sizes, which torch assumes."""
        # 1e-6: scales are float32, with a relative precision of 6e-8.
        return bool(abs(self.scale * self.size - self.target) < 1e-6 * self.target)


@operator("Resize", "Upsample")
def _resize(call: Call) -> Any:
    x = call.tensor(0)
    # `is`: a symbolic size must not be compared, which would add a guard to the trace.
    axes = [spec for spec in _axes(call, x) if spec.target is not spec.size]
    axes = [spec for spec in axes if spec.target != spec.size or spec.scale != 1.0 or _crops(call)]
    if not axes:
        return x
    simple = _torch_mode(call, x, axes)
    if simple is not None:
        return _interpolated(x, axes, *simple)
    return _sampled(call, x, axes)


def _crops(call: Call) -> bool:
    return _coordinates(call) == "tf_crop_and_resize"


def _axes(call: Call, x: Any) -> list[_Axis]:
    positions = [axis % x.dim() for axis in call.attribute("axes") or range(x.dim())]
    sizes = [x.shape[axis] for axis in positions]
    scales, targets = _scales(call), None
    if scales is None:
        targets = call.numbers(3)
        scales, targets = _with_policy(call, sizes, targets)
    if targets is None:
        targets = [_target(size, scale) for size, scale in zip(sizes, scales, strict=True)]
    # roi lists all starts, then all ends.
    roi = call.numbers(1) if _crops(call) else [0.0] * len(positions) + [1.0] * len(positions)
    return [
        _Axis(axis, sizes[i], targets[i], scales[i], (roi[i], roi[i + len(positions)]))
        for i, axis in enumerate(positions)
    ]


def _scales(call: Call) -> list[float] | None:
    """Return the scales, None if the node gives sizes.

    Upsample has an attribute until opset 8 and input 1 from 9 on; Resize has input 1 in opset 10 and input 2 from 11
    on, where exporters pass an empty tensor to omit it.
    """
    if call.step.op_type == "Upsample" and call.version < 9:
        return list(call.attribute("scales"))
    index = 1 if call.version < 11 else 2
    values = call.numbers(index) if call.has(index) else []
    return [float(value) for value in values] or None


def _target(size: Any, scale: float) -> Any:
    if scale == 1.0:
        return size
    # floor(size * scale) in single precision, as ONNX Runtime computes it: 3 times float32(5/3) is 5 there, but
    # 4.9999999 in double precision.
    return int(np.floor(np.float32(size) * np.float32(scale)))


def _with_policy(call: Call, sizes: list[Any], targets: list[Any]) -> tuple[list[float], list[Any]]:
    """Return scales and targets for given sizes, by `keep_aspect_ratio_policy` (since opset 18)."""
    policy = call.attribute("keep_aspect_ratio_policy", "stretch")
    scales = [1.0 if target is size else target / size for size, target in zip(sizes, targets, strict=True)]
    if policy == "stretch":
        return scales, targets
    one = min(scales) if policy == "not_larger" else max(scales)
    return [one] * len(sizes), [math.floor(one * size + 0.5) for size in sizes]  # round_int of the standard: half up


def _torch_mode(call: Call, x: Any, axes: list[_Axis]) -> tuple[str, bool | None] | None:
    """Return the mode and align_corners of an equivalent torch.nn.functional.interpolate, None if there is none."""
    # interpolate resizes the spatial axes of (N, C, ...) only.
    fits = x.dim() in (3, 4, 5) and all(spec.axis >= 2 and spec.exact for spec in axes) and x.is_floating_point()
    if not fits or call.attribute("antialias", 0) or call.attribute("exclude_outside", 0):
        return None
    mode = call.attribute("mode", "nearest")
    where = _coordinates(call)
    if mode == "nearest":
        return ("nearest", None) if _nearest_is_torchs(call, where, axes) else None
    corners = {"align_corners": True, "half_pixel": False, "pytorch_half_pixel": False}.get(where)
    # pytorch_half_pixel maps a single output to coordinate 0, torch's interpolate to the centre of the axis.
    if corners is None or (where == "pytorch_half_pixel" and any(spec.target == 1 for spec in axes)):
        return None
    if mode == "linear":
        return {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()], corners
    # torch's bicubic has the fixed coefficient -0.75, and takes images only.
    return ("bicubic", corners) if x.dim() == 4 and call.attribute("cubic_coeff_a", -0.75) == -0.75 else None


def _nearest_is_torchs(call: Call, where: str, axes: list[_Axis]) -> bool:
    """Return whether torch's nearest, floor(i / scale), selects the same pixels as the node.

    Rounded half-pixel coordinates agree with it if the scale is an integer.
    """
    # Before opset 11, Resize and Upsample take the floor, without an attribute.
    rounding = call.attribute("nearest_mode", "round_prefer_floor" if call.version >= 11 else "floor")
    if where == "asymmetric" and rounding == "floor":
        return True
    whole = all(spec.target % spec.size == 0 for spec in axes)
    return whole and where in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")


def _interpolated(x: Any, axes: list[_Axis], mode: str, corners: bool | None) -> Any:
    import torch.nn.functional as F

    size = list(x.shape[2:])
    for spec in axes:
        size[spec.axis - 2] = spec.target
    return F.interpolate(x, size=size, mode=mode, align_corners=corners)


def _sampled(call: Call, x: Any, axes: list[_Axis]) -> Any:
    """Resize axis by axis, by index or by matrix; then set elements from outside the region to extrapolation_value."""
    result, dtype = x, x.dtype
    nearest = call.attribute("mode", "nearest") == "nearest"
    outside = []
    for spec in axes:
        places = _places(call, spec)
        if nearest:
            result = result.index_select(spec.axis, to_tensor(_nearest(call, places, spec.size)))
        else:
            matrix = to_tensor(_matrix(call, spec, places).astype(np.float32)).to(result.dtype)
            result = (result.movedim(spec.axis, -1) @ matrix.t()).movedim(-1, spec.axis)
        if _crops(call):
            beyond = (places < 0) | (places > spec.size - 1)
            outside.append(to_tensor(beyond.reshape([-1 if at == spec.axis else 1 for at in range(x.dim())])))
    for beyond in outside:
        result = result.masked_fill(beyond, call.attribute("extrapolation_value", 0.0))
    return result.to(dtype)


def _places(call: Call, spec: _Axis) -> Host:
    """Return the position of each output element on the input's axis.

    The formulas are those of the attribute coordinate_transformation_mode in Resize's documentation.
    """
    at = np.arange(spec.target, dtype=np.float64)
    where = _coordinates(call)
    last, steps = spec.size - 1, max(spec.target - 1, 1)
    if where == "asymmetric":
        return np.asarray(at / spec.scale)
    if where == "align_corners":
        return np.asarray(at * last / steps)
    if where == "tf_crop_and_resize":
        start, end = spec.roi
        middle = 0.5 * (start + end)
        return np.asarray(start * last + at * (end - start) * last / steps if spec.target > 1 else at + middle * last)
    if where == "pytorch_half_pixel" and spec.target == 1:
        return at * 0.0
    half = (at + 0.5) / spec.scale - 0.5
    shift = spec.size / 2 * (1 - spec.target / (spec.scale * spec.size)) if where == "half_pixel_symmetric" else 0.0
    return np.asarray(half + shift)


def _coordinates(call: Call) -> str:
    default = "half_pixel" if call.version >= 11 else "asymmetric"
    return str(call.attribute("coordinate_transformation_mode", default))


def _nearest(call: Call, places: Host, size: int) -> Host:
    rounding = call.attribute("nearest_mode", "round_prefer_floor" if call.version >= 11 else "floor")
    functions: dict[str, Callable[[Host], Any]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }
    return np.asarray(functions[rounding](places)).astype(np.int64).clip(0, size - 1)


def _matrix(call: Call, spec: _Axis, places: Host) -> Host:
    """Return the weight of each input element for each output element, (target, size)."""
    cubic = call.attribute("mode") == "cubic"
    # antialias (since opset 18) stretches the filter when an axis shrinks.
    shrink = min(spec.scale, 1.0) if call.attribute("antialias", 0) else 1.0
    # The linear filter spans one element to either side, the cubic one two; one more covers the fraction of a position.
    reach = math.ceil((2 if cubic else 1) / shrink) + 1
    base = np.floor(places).astype(np.int64)
    matrix = np.zeros((spec.target, spec.size))
    for shift in range(-reach, reach + 1):
        distance = np.abs((base + shift - places) * shrink)
        weights = _cubic(distance, call.attribute("cubic_coeff_a", -0.75)) if cubic else np.maximum(1 - distance, 0)
        index = base + shift
        if call.attribute("exclude_outside", 0):
            weights = np.where((index < 0) | (index >= spec.size), 0, weights)
        # Elements beyond the ends repeat the border, so several weights may add to one element: add.at, not +=.
        np.add.at(matrix, (np.arange(spec.target), index.clip(0, spec.size - 1)), weights)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def _cubic(distance: Host, a: float) -> Host:
    """Return the weights of Keys' cubic convolution kernel (https://doi.org/10.1109/TASSP.1981.1163711)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@operator("GridSample")
def _grid_sample(call: Call) -> Any:
    import torch.nn.functional as F

    # Opset 16 has torch's names of the modes (bilinear, bicubic), opset 20 renamed them to linear and cubic.
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.attribute("mode", "linear"), call.attribute("mode"))
    return F.grid_sample(
        call.tensor(0),
        call.tensor(1).to(call.tensor(0).dtype),
        mode=mode or "bilinear",
        padding_mode=call.attribute("padding_mode", "zeros"),
        align_corners=bool(call.attribute("align_corners", 0)),
    )


@operator("AffineGrid")
def _affine_grid(call: Call) -> Any:
    import torch.nn.functional as F

    return F.affine_grid(call.tensor(0), call.numbers(1), align_corners=bool(call.attribute("align_corners", 0)))


@operator("RoiAlign")
def _roi_align(call: Call) -> Any:
    import torch

    x, rois, images = call.tensor(0), call.tensor(1), call.tensor(2)
    return torch.stack([_region(call, x.index_select(0, images[i : i + 1])[0], rois[i]) for i in range(len(rois))])


def _region(call: Call, image: Any, roi: Any) -> Any:
    """Return the mean, or the maximum, of the samples in each cell: (C, H, W) and (4,) -> (C, rows, columns)."""
    # Opset 10 has no half-pixel shift; opset 16 made it the default.
    half = call.version >= 16 and call.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    left, top, right, bottom = (roi * call.attribute("spatial_scale", 1.0) - (0.5 if half else 0.0)).unbind()
    cells = call.attribute("output_height", 1), call.attribute("output_width", 1)
    taps, places = [], []
    for start, end, count in ((top, bottom, cells[0]), (left, right, cells[1])):
        # Without the shift, regions are at least one pixel wide; a sampling_ratio of 0 means ceil(length / count).
        length = end - start if half else (end - start).clamp(min=1.0)
        taps.append(call.attribute("sampling_ratio", 0) or math.ceil(float(length) / count))
        places.append(_cell_places(start, length / count, count, taps[-1]))
    samples = _corners(image, *places)  # (4, C, rows * taps, columns * taps)
    samples = samples.reshape(4, image.shape[0], cells[0], taps[0], cells[1], taps[1])
    # max takes the largest weighted corner rather than the largest interpolated value, as the standard's tests do.
    if call.attribute("mode", "avg") == "max":
        return samples.amax(dim=(0, 3, 5))
    return samples.sum(dim=0).mean(dim=(2, 4))


def _cell_places(start: Any, size: Any, count: int, taps: int) -> Any:
    """Return the positions of `taps` evenly spaced samples in each of `count` cells, (count * taps,)."""
    import torch

    inner = (torch.arange(taps) + 0.5) / taps
    return (start + size * (torch.arange(count).unsqueeze(1) + inner)).reshape(-1)


def _corners(image: Any, ys: Any, xs: Any) -> Any:
    """Return the four neighbours of each place times their bilinear weights, (4, C, len(ys), len(xs)).

    Places more than one pixel outside the image contribute zero.
    """
    import torch

    height, width = image.shape[1:]
    inside = ((ys >= -1) & (ys <= height)).unsqueeze(1) & ((xs >= -1) & (xs <= width))
    parts = []
    for raw, size in ((ys, height), (xs, width)):
        places = raw.clamp(0, size - 1)
        low = places.floor().long()
        high = (low + 1).clamp(max=size - 1)
        parts.append(((low, 1 - (places - low)), (high, places - low)))
    corners = []
    for row, row_weight in parts[0]:
        for column, column_weight in parts[1]:
            weight = row_weight.unsqueeze(1) * column_weight * inside
            corners.append(image[:, row][:, :, column] * weight)
    return torch.stack(corners)

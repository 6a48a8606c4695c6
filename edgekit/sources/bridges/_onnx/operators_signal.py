"""Operators for signals: windows, Fourier transforms, mel weights; complex numbers are pairs along the last axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgekit.sources.bridges._onnx.registry import Call, operator
from edgekit.sources.bridges._onnx.values import torch_dtype

# The coefficients a, b, c of a - b cos(t) + c cos(2 t). Hamming's are 25/46 and 21/46 in the standard, not the rounded
# 0.54 and 0.46 of torch.hamming_window.
_COSINES = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


@operator(*_COSINES)
def _window(call: Call) -> Any:
    import torch

    size = int(call.number(0))
    a, b, c = _COSINES[call.step.op_type]
    angle = 2 * math.pi * torch.arange(size, dtype=torch.float64)
    angle = angle / (size if call.attribute("periodic", 1) else size - 1)
    values = a - b * torch.cos(angle) + c * torch.cos(2 * angle)
    return values.to(torch_dtype(call.attribute("output_datatype", 1)))


def _complex(x: Any) -> Any:
    """Return pairs as complex numbers and single numbers as they are: (..., 1 or 2) -> (...)."""
    import torch

    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


@operator("DFT")
def _dft(call: Call) -> Any:
    # In float64: torch has no Fourier transform of float16 on the CPU, and the standard's tolerances are narrow.
    dtype = call.tensor(0).dtype
    return _transformed(call, _complex(call.tensor(0).double())).to(dtype)


def _transformed(call: Call, x: Any) -> Any:
    import torch

    # The axis is an attribute in opset 17 (default 1) and an input from 20 on (default -2).
    axis = call.number(2, -2) if call.version >= 20 else call.attribute("axis", 1)
    axis = axis % (x.dim() + 1)  # it refers to the input with its last axis of pairs
    one_sided = bool(call.attribute("onesided", 0))
    inverse = bool(call.attribute("inverse", 0))
    default_length = 2 * (x.shape[axis] - 1) if one_sided and inverse else x.shape[axis]
    length = int(call.number(1)) if call.has(1) else default_length
    if inverse:
        if one_sided:
            return torch.fft.irfft(x, n=length, dim=axis).unsqueeze(-1)
        return torch.view_as_real(torch.fft.ifft(x, n=length, dim=axis))
    y = torch.fft.fft(x, n=length, dim=axis)
    return torch.view_as_real(y.narrow(axis, 0, length // 2 + 1) if one_sided else y)


@operator("STFT")
def _stft(call: Call) -> Any:
    import torch

    x, step, window = _complex(call.tensor(0)) if call.tensor(0).dim() == 3 else call.tensor(0), call.number(1), None
    window = call.maybe(2)
    length = int(call.number(3)) if call.has(3) else window.shape[0]
    frames = x.unfold(-1, length, int(step))  # (N, frames, length)
    y = torch.fft.fft(frames if window is None else frames * window, dim=-1)
    return torch.view_as_real(y[..., : length // 2 + 1] if call.attribute("onesided", 1) else y)


@operator("MelWeightMatrix")
def _mel_weights(call: Call) -> Any:
    """Return triangular filters between points that are evenly spaced on the mel scale.

    mel(f) = 2595 * log10(1 + f / 700), as in the operator's reference implementation.
    """
    import torch

    bands, length, rate, low, high = (call.number(index) for index in range(5))
    lowest, highest = (2595 * math.log10(1 + edge / 700) for edge in (low, high))
    mels = np.arange(bands + 2) * ((highest - lowest) / (bands + 2)) + lowest
    bins = ((length + 1) * (700 * (10 ** (mels / 2595) - 1)) // rate).astype(int)
    matrix = np.zeros((length // 2 + 1, bands))
    for band in range(bands):
        below, centre, above = bins[band : band + 3]
        if centre == below:  # a triangle narrower than one bin
            matrix[centre, band] = 1
        else:
            matrix[below : centre + 1, band] = np.arange(centre - below + 1) / (centre - below)
        if above > centre:
            matrix[centre:above, band] = np.arange(above - centre, 0, -1) / (above - centre)
    return torch.from_numpy(matrix).to(torch_dtype(call.attribute("output_datatype", 1)))

"""Other forms of operators, for litert-torch: the same results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from edgekit.targets._tflite.lowerable_forms import lowerable_forms

BYTES = torch.arange(-128, 128, dtype=torch.int8).reshape(16, 16)
IMAGE = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
INTS = torch.arange(-40, 40).reshape(8, 10)
SIGNAL = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
HEAD = torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(2))
HEADS = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(3))
KERNEL = torch.randn(4, 3, 4, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "function",
    [
        lambda: F.conv2d(SIGNAL, KERNEL, padding="same"),
        lambda: F.conv2d(input=SIGNAL, weight=KERNEL, padding="same", dilation=(2, 1)),
        lambda: F.conv2d(SIGNAL, KERNEL, None, 2, 1),
        lambda: F.conv1d(SIGNAL[:, :, 0], KERNEL[..., 0], padding="same"),
        IMAGE.sum,
        lambda: torch.sum(BYTES, 1, keepdim=True),
        lambda: IMAGE.sum(dtype=torch.float32),
        lambda: SIGNAL.sum((1, 2)),
        lambda: IMAGE > 127,
        lambda: BYTES == 5,
        lambda: torch.ge(IMAGE, IMAGE.t()),
        lambda: SIGNAL < 0,
        lambda: (INTS > 0) >= (INTS > 5),
        lambda: INTS >> 2,
        lambda: INTS << 3,
        lambda: INTS >> INTS.abs() % 3,
        lambda: HEAD.expand(1, 4, 5, 6).transpose(2, 3),
        lambda: HEAD.expand(-1, 40, -1, -1),
        lambda: HEAD.expand_as(torch.zeros(2, 4, 5, 6)),
        lambda: HEAD[0, 0].broadcast_to(3, 5, 6),
        lambda: torch.broadcast_to(HEAD[0, 0, 0], (3, 6)),
        lambda: torch.ops.aten.expand.default(HEAD, [1, 3, 5, 6]),
        lambda: F.scaled_dot_product_attention(HEADS, HEAD, HEAD, is_causal=True, enable_gqa=True),
        lambda: F.scaled_dot_product_attention(HEADS, HEADS[:, :2], HEADS[:, 2:], enable_gqa=True),
        lambda: F.interpolate(SIGNAL[None, 0], size=(5, 7), mode="bilinear", antialias=True),
        lambda: F.interpolate(SIGNAL[None, 0], scale_factor=0.4, mode="bicubic", antialias=True),
        lambda: F.interpolate(SIGNAL[None, 0], scale_factor=(0.4, 1.7), mode="bicubic", antialias=True),
        lambda: F.interpolate(SIGNAL[None, 0], (13, 4), mode="bilinear", align_corners=True, antialias=True),
        lambda: F.interpolate(SIGNAL[None, 0], (1, 20), mode="bicubic", align_corners=True, antialias=True),
        lambda: F.interpolate(SIGNAL[None, 0], (7, 8), mode="bilinear"),
        lambda: torch.ops.aten._upsample_bilinear2d_aa.default(SIGNAL[None, 0], [5, 6], False, 0.4, None),
        lambda: torch.ops.aten._upsample_bicubic2d_aa.vec(SIGNAL[None, 0], None, False, [0.5, 0.5]),
    ],
)
def test_the_result_is_the_same(function):
    expected = function()
    with lowerable_forms():
        actual = function()
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@given(data=st.data(), rank=st.integers(1, 3), groups=st.sampled_from([1, 2, 4]))
def test_a_transposed_convolution_is_the_same(data, rank, groups):
    def each(low: int, high: int) -> list[int]:
        return [data.draw(st.integers(low, high)) for _ in range(rank)]

    strides, steps, kernel, sizes = each(1, 3), each(1, 2), each(1, 4), each(3, 5)
    pads = [data.draw(st.integers(0, width - 1)) for width in kernel]  # of which something is left
    extra = [data.draw(st.integers(0, max(pair) - 1)) for pair in zip(strides, steps, strict=True)]
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, *sizes, generator=random), torch.randn(4, 3, *kernel, generator=random)
    bias = torch.randn(3 * groups, generator=random) if data.draw(st.booleans()) else None
    function = getattr(F, f"conv_transpose{rank}d")
    expected = function(x, weight, bias, strides, pads, extra, groups, steps)
    with lowerable_forms():
        actual = function(x, weight, bias, strides, pads, extra, groups, steps)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


class Upsampling(torch.nn.Module):
    """The commonest transposed convolution, a grouped one, a dilated one, one of signals, and an antialiased image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.doubled = torch.nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1)
        self.grouped = torch.nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, groups=2)
        self.dilated = torch.nn.ConvTranspose2d(4, 2, 3, stride=2, dilation=2)
        self.signal = torch.nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1)
        self.volume = torch.nn.Sequential(
            torch.nn.Conv3d(4, 4, (3, 2, 1), padding="same", dilation=(2, 1, 1), groups=2),
            torch.nn.ConvTranspose3d(4, 2, 2, stride=2),
        )

    def forward(self, x):
        image = self.dilated(self.grouped(self.doubled(x)))
        smaller = F.interpolate(image, (9, 7), mode="bicubic", antialias=True)
        return smaller, self.signal(smaller[:, :, 0]), self.volume(x[..., None])


class UpsamplingInOtherForms(Upsampling):
    def forward(self, x):
        with lowerable_forms():
            return super().forward(x)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@given(data=st.data(), groups=st.sampled_from([1, 2]))
def test_a_convolution_of_volumes_is_the_same(data, groups):
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(3))

    kernel, steps, sizes = each(1, 3), each(1, 2), each(5, 7)
    same = data.draw(st.booleans())
    strides, padding = (1, "same") if same else (each(1, 2), each(0, 2))
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, *sizes, generator=random), torch.randn(6, 4 // groups, *kernel, generator=random)
    bias = torch.randn(6, generator=random) if data.draw(st.booleans()) else None
    expected = F.conv3d(x, weight, bias, strides, padding, steps, groups)
    with lowerable_forms():
        actual = F.conv3d(x, weight, bias, strides, padding, steps, groups)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_transposed_convolutions_and_antialiased_images_are_lowered():
    import litert_torch

    x = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    expected = Upsampling().eval()(x)
    actual = litert_torch.convert(UpsamplingInOtherForms().eval(), (x,))(x.numpy())
    for array, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(array, reference.detach().numpy(), atol=1e-5)
    # Once these are lowered, `transposed_convolution.py` can go.
    with pytest.raises(ValueError, match="failed to legalize"):
        litert_torch.convert(Upsampling().doubled.eval(), (x,))


class Smaller(torch.nn.Module):
    def forward(self, x):
        return F.interpolate(x, (3, 2), mode="bilinear", antialias=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_antialiasing_has_no_lowering():
    import litert_torch

    # Once it has, `antialiased_resize.py` is for ExecuTorch alone.
    with pytest.raises(RuntimeError, match="upsample_bilinear2d_aa"):
        litert_torch.convert(Smaller().eval(), (torch.zeros(1, 4, 5, 6),))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sort(),
        lambda x: torch.sort(x, 1, True),
        lambda x: x.sort(dim=2, descending=True, stable=True),
        lambda x: torch.ops.aten.sort.stable(x, stable=True, dim=1, descending=False),
    ],
)
def test_sorting_is_the_top_k_of_all(function):
    expected = function(SIGNAL)
    with lowerable_forms():
        program = torch.export.export(_Function(function), (SIGNAL,))
    assert not any("sort" in str(node.target) for node in program.graph.nodes)
    for actual, reference in zip(program.module()(SIGNAL), expected, strict=True):
        torch.testing.assert_close(actual, reference)


class _Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        values, indices = self.function(x)
        return values, indices


class OneHead(torch.nn.Module):
    """The scores of multi-query attention: all queries meet the same keys."""

    def forward(self, query, key):
        keys = key[:, :, None].expand(1, 1, 4, 5, 6).reshape(1, 4, 5, 6)
        return query @ keys.transpose(2, 3)


class OneHeadInOtherForms(OneHead):
    def forward(self, query, key):
        with lowerable_forms():
            return super().forward(query, key)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_an_expanded_axis_is_transposed():
    import litert_torch

    expected = OneHead()(HEADS, HEAD).numpy()
    for module, right in ((OneHeadInOtherForms(), True), (OneHead(), False)):
        actual = litert_torch.convert(module.eval(), (HEADS, HEAD))(HEADS.numpy(), HEAD.numpy())
        # litert-torch 0.10 with litert-converter 0.5; once the second is right, `_expand` and `_attend` can go.
        assert np.allclose(actual, expected, atol=1e-5) is right

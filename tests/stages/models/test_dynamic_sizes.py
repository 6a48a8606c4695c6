"""Sizes of outputs that follow those of inputs."""

import numpy as np
import torch

from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._module import LoadedTorch
from edgekit.stages.models.import_job import observed_outputs

SIGNATURE = Signature(
    (TensorSpec("image", ("batch", 3, "height", "width"), "float32"),),
    tuple(TensorSpec(name, (), "float32") for name in ("channels", "image_out", "halves")),
)


class Convolutional(torch.nn.Module):
    """As many channels as the samples have rows, an image of the same size, and one of half of it."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 12, 1)

    def forward(self, x):
        h = self.conv(x)
        return h.mean((2, 3)), h, h[:, :, ::2, ::2]


def test_a_size_that_only_coincides_with_an_input_dimension_is_not_tied_to_it():
    loaded = LoadedTorch(Convolutional().eval(), SIGNATURE).at(SIGNATURE, {"height": 12, "width": 10})
    outputs = observed_outputs(loaded, {"image": np.zeros((4, 3, 12, 10), np.float32)})
    assert [spec.shape for spec in outputs] == [
        ("batch", 12),
        ("batch", 12, "height", "width"),
        ("batch", 12, "halves_dim2", "halves_dim3"),
    ]


class OneSize(torch.nn.Module):
    def forward(self, x):
        return x + torch.ones(12, 10), x.mean((2, 3)), x


def test_a_model_of_one_size_is_described_by_the_samples():
    loaded = LoadedTorch(OneSize().eval(), SIGNATURE).at(SIGNATURE, {"height": 12, "width": 10})
    outputs = observed_outputs(loaded, {"image": np.zeros((4, 3, 12, 10), np.float32)})
    assert outputs[0].shape == ("batch", 3, "height", "width")

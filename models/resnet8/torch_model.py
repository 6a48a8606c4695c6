"""resnet8 in PyTorch: MLPerf Tiny's network for image classification."""

import torch.nn.functional as F
from torch import Tensor, nn


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch norm with Keras's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Residual(nn.Module):
    """Two 3x3 convolutions added to a shortcut, which is a 1x1 convolution if the stride is not 1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)
        self.norm1 = batch_norm(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = batch_norm(outputs)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        # With a stride of 2, Keras pads even sizes at the right and at the bottom only.
        y = x if self.stride == 1 else F.pad(x, (0, 1, 0, 1))
        y = self.relu1(self.norm1(self.conv1(y)))
        y = self.norm2(self.conv2(y))
        return self.relu2(self.shortcut(x) + y)


class ResNet8(nn.Module):
    """A network with input `(N, 3, 32, 32)` and output `(N, 10)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = batch_norm(16)
        self.relu = nn.ReLU()
        self.block1 = Residual(16, 16, stride=1)
        self.block2 = Residual(16, 32, stride=2)
        self.block3 = Residual(32, 64, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(image)))
        x = self.block1(x)  # (N, 16, 32, 32)
        x = self.block2(x)  # (N, 32, 16, 16)
        x = self.block3(x)  # (N, 64, 8, 8)
        logits = self.head(self.pool(x).flatten(1))
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """Return the untrained network."""
    return ResNet8().apply(initialise)

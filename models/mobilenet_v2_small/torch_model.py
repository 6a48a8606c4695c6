"""mobilenet_v2_small in PyTorch: MobileNet v2's inverted residuals, narrow and few."""

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = ((1, 8, 1), (6, 16, 2), (6, 16, 1), (6, 24, 2), (6, 24, 1), (6, 40, 2), (6, 40, 1), (6, 64, 1))
"""Expansion, filters and stride of each inverted residual."""


class ConvNorm(nn.Module):
    """A convolution without a bias, padded as Keras pads, with batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        # Keras pads an even size for a stride of 2 at the right and at the bottom only.
        self.uneven = stride == 2
        padding = 0 if self.uneven else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1)) if self.uneven else x
        return self.norm(self.conv(x))


class SqueezeAndExcite(nn.Module):
    """Weighs each channel by what all of them are on average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)  # (N, C, H, W) -> (N, C, 1, 1)
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(channels // 4, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(self.expand(self.relu(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 depthwise, 1x1 down; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, expansion: int, filters: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        hidden = expansion * inputs
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [ConvNorm(inputs, hidden), nn.ReLU6()]
        layers += [ConvNorm(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        if squeeze:
            layers.append(SqueezeAndExcite(hidden))
        layers.append(ConvNorm(hidden, filters))
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class MobileNetV2(nn.Module):
    """Input (N, 3, 96, 96), output (N, 10): probabilities, but logits while training, as cross_entropy wants them."""

    def __init__(self, squeeze: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 16, 3, stride=2), nn.ReLU6()]  # (N, 16, 48, 48)
        channels = 16
        for expansion, filters, stride in BLOCKS:
            layers.append(InvertedResidual(channels, expansion, filters, stride, squeeze))
            channels = filters
        layers += [ConvNorm(channels, 256), nn.ReLU6()]  # (N, 256, 6, 6)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(256, 10)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.pool(self.features(image)).flatten(1))
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """As Keras does where nothing else is said."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def build(squeeze: bool = False) -> nn.Module:
    """The untrained network. `squeeze` adds squeeze-and-excite to every block."""
    return MobileNetV2(squeeze).apply(initialise)

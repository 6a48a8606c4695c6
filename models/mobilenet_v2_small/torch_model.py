"""mobilenet_v2_small in PyTorch: a narrow, shallow MobileNet v2."""

import torch.nn.functional as F
from torch import Tensor, nn

# Expansion, filters and stride of each inverted residual.
BLOCKS = ((1, 8, 1), (6, 16, 2), (6, 16, 1), (6, 24, 2), (6, 24, 1), (6, 40, 2), (6, 40, 1), (6, 64, 1))


class ConvNorm(nn.Module):
    """A convolution without a bias, with the padding of Keras, and batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        # With a stride of 2, Keras pads even sizes at the right and at the bottom only.
        self.uneven = stride == 2
        padding = 0 if self.uneven else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1)) if self.uneven else x
        return self.norm(self.conv(x))


class SqueezeAndExcite(nn.Module):
    """Scaling of each channel by a weight computed from the means of all channels."""

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
    """1x1 expansion, 3x3 depthwise and 1x1 projection, with a shortcut if the shape does not change."""

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
    """A network with input `(N, 3, 96, 96)` and output `(N, 10)`: probabilities, in training mode logits."""

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
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def build(squeeze: bool = False) -> nn.Module:
    """Return the untrained network; `squeeze` adds squeeze-and-excite to every block."""
    return MobileNetV2(squeeze).apply(initialise)

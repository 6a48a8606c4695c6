"""mobilenet_v1_025 in PyTorch: MLPerf Tiny's network for visual wake words, MobileNet v1 at a quarter of its width."""

import torch.nn.functional as F
from torch import Tensor, nn

# Filters and stride of each depthwise separable convolution.
BLOCKS = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
)


class ConvNormRelu(nn.Module):
    """A convolution with the padding of Keras, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        # With a stride of 2, Keras pads even sizes at the right and at the bottom only.
        self.uneven = stride == 2
        padding = 0 if self.uneven else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1)) if self.uneven else x
        return self.relu(self.norm(self.conv(x)))


class MobileNetV1(nn.Module):
    """A network with input `(N, 3, 96, 96)` and output `(N, 10)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        layers = [ConvNormRelu(3, 8, 3, stride=2)]  # (N, 8, 48, 48)
        channels = 8
        for filters, stride in BLOCKS:
            layers.append(ConvNormRelu(channels, channels, 3, stride, groups=channels))
            layers.append(ConvNormRelu(channels, filters, 1))
            channels = filters
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)  # (N, 256, 3, 3) -> (N, 256, 1, 1)
        self.head = nn.Linear(channels, 10)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.pool(self.features(image)).flatten(1))
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """Return the untrained network."""
    return MobileNetV1().apply(initialise)

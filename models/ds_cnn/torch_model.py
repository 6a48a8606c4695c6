"""ds_cnn in PyTorch: the shape of MLPerf Tiny's keyword spotting network, on four seconds of six channels."""

import torch.nn.functional as F
from torch import Tensor, nn


def norm_relu(channels: int) -> list[nn.Module]:
    """What stands behind every convolution, with Keras's epsilon."""
    return [nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU()]


class DSCNN(nn.Module):
    """Input (N, 1, 100, 6): time, channel; output (N, 7): probabilities, but logits while training."""

    def __init__(self) -> None:
        super().__init__()
        # For these sizes Keras pads both sides alike: (50 - 1) * 2 + 10 - 100 = 2 * 4, (3 - 1) * 2 + 4 - 6 = 2 * 1.
        layers = [nn.Conv2d(1, 64, (10, 4), 2, padding=(4, 1)), *norm_relu(64), nn.Dropout(0.2)]  # (N, 64, 50, 3)
        for _ in range(4):
            layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), *norm_relu(64)]
            layers += [nn.Conv2d(64, 64, 1), *norm_relu(64)]
        self.features = nn.Sequential(*layers, nn.Dropout(0.4))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, 7)

    def forward(self, signal: Tensor) -> Tensor:
        logits = self.head(self.pool(self.features(signal)).flatten(1))
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """As Keras does where nothing else is said."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """The untrained network."""
    return DSCNN().apply(initialise)

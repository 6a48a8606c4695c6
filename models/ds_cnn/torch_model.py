"""ds_cnn in PyTorch: the architecture of MLPerf Tiny's keyword spotting network, for four seconds of six channels."""

import torch.nn.functional as F
from torch import Tensor, nn


def norm_relu(channels: int) -> list[nn.Module]:
    """Return batch norm with Keras's epsilon and ReLU, which follow every convolution."""
    return [nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU()]


class DSCNN(nn.Module):
    """A network with input `(N, 1, 100, 6)` and output `(N, 7)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        # For these sizes Keras pads both sides equally: (50 - 1) * 2 + 10 - 100 = 2 * 4, (3 - 1) * 2 + 4 - 6 = 2 * 1.
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
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """Return the untrained network."""
    return DSCNN().apply(initialise)

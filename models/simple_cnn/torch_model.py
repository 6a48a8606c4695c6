"""simple_cnn in PyTorch."""

import torch.nn.functional as F
from torch import Tensor, nn


class SimpleCNN(nn.Module):
    """A network with input `(N, 1, 28, 28)` and output `(N, 10)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(32 * 13 * 13, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.conv(image))  # (N, 32, 26, 26)
        x = self.pool(x).flatten(1)  # (N, 5408)
        x = F.relu(self.hidden(x))
        logits = self.head(x)
        return logits if self.training else F.softmax(logits, dim=1)


def build() -> nn.Module:
    """Return the untrained network."""
    return SimpleCNN()

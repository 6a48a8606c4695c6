"""y = wx + b in PyTorch."""

from torch import Tensor, nn


class Linear(nn.Module):
    """A network with input `(N, 1)` and output `(N, 1)`."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


def build() -> nn.Module:
    """Return the untrained network."""
    return Linear()

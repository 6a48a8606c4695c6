"""gru in PyTorch: one recurrent layer and a dense head."""

import torch.nn.functional as F
from torch import Tensor, nn


class GRU(nn.Module):
    """A network with input `(N, 25, 12)` and output `(N, 9)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(12, 64, batch_first=True)
        self.head = nn.Linear(64, 9)

    def forward(self, frames: Tensor) -> Tensor:
        states, _ = self.gru(frames)  # (N, 25, 64)
        logits = self.head(states[:, -1])
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.GRU):
        nn.init.xavier_uniform_(layer.weight_ih_l0)
        nn.init.orthogonal_(layer.weight_hh_l0)
        nn.init.zeros_(layer.bias_ih_l0)
        nn.init.zeros_(layer.bias_hh_l0)


def build() -> nn.Module:
    """Return the untrained network."""
    return GRU().apply(initialise)

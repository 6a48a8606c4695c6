"""lstm in PyTorch: one recurrent layer and a dense head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LSTM(nn.Module):
    """A network with input `(N, 25, 12)` and output `(N, 9)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 64, batch_first=True)
        # PyTorch adds two biases, Keras one. The second stays zero: it is neither trained nor saved.
        del self.lstm.bias_hh_l0
        self.lstm.register_buffer("bias_hh_l0", torch.zeros(4 * 64), persistent=False)
        self.head = nn.Linear(64, 9)

    def forward(self, frames: Tensor) -> Tensor:
        outputs, _ = self.lstm(frames)  # (N, 25, 64)
        logits = self.head(outputs[:, -1])
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as Keras does by default: the bias of the forget gate, the second of four, is one."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.LSTM):
        nn.init.xavier_uniform_(layer.weight_ih_l0)
        nn.init.orthogonal_(layer.weight_hh_l0)
        nn.init.zeros_(layer.bias_ih_l0)
        nn.init.ones_(layer.bias_ih_l0[64:128])


def build() -> nn.Module:
    """Return the untrained network."""
    return LSTM().apply(initialise)

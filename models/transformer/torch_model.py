"""transformer in PyTorch: two encoder layers over 25 frames, learned positions, mean pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, HIDDEN, FRAMES = 32, 4, 64, 25
SIZE = WIDTH // HEADS


class Attention(nn.Module):
    """Multi-head self-attention, (N, T, 32) to (N, T, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).reshape(-1, FRAMES, HEADS, SIZE).transpose(1, 2)  # (N, T, H * S) -> (N, H, T, S)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(torch.matmul(query * SIZE**-0.5, key.transpose(2, 3)), dim=-1)  # (N, H, T, T)
        mixed = torch.matmul(weights, value).transpose(1, 2)  # (N, T, H, S)
        return self.output(mixed.reshape(-1, FRAMES, WIDTH))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with a layer norm before it and a shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.relu = nn.ReLU()
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.down(self.relu(self.up(self.norm2(x)))))


class Transformer(nn.Module):
    """A network with input `(N, 25, 12)` and output `(N, 9)`: probabilities, in training mode logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, WIDTH, bias=False)
        self.positions = nn.Parameter(torch.empty(FRAMES, WIDTH).normal_(std=0.02))
        self.layers = nn.Sequential(EncoderLayer(), EncoderLayer())
        self.norm = nn.LayerNorm(WIDTH, eps=1e-5)
        self.head = nn.Linear(WIDTH, 9)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.embed(frames) + self.positions  # (N, 25, 32)
        x = self.norm(self.layers(x)).mean(dim=1)  # (N, 32)
        logits = self.head(x)
        return logits if self.training else F.softmax(logits, dim=1)


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """Return the untrained network."""
    return Transformer().apply(initialise)

"""Small networks of the kinds that int8 hurts, trained in a minute on data that installs with pip.

`wide` and `outliers` change the weights of a trained network without changing its function: a scale of each channel
moves from one layer to the next one, as trained networks of these families have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgekit.training.datasets import images, vowels


class _Block(nn.Module):
    """An inverted residual: expand, depthwise, optionally squeeze and excite, project."""

    def __init__(self, before: int, after: int, stride: int, activation: Callable[[], nn.Module], excite: bool) -> None:
        super().__init__()
        wide = 4 * before
        self.expand = nn.Sequential(nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), activation())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation()
        )
        self.excite = (
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(wide, wide // 4, 1),
                nn.ReLU(),
                nn.Conv2d(wide // 4, wide, 1),
                nn.Hardsigmoid(),
            )
            if excite
            else None
        )
        self.project = nn.Sequential(nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after))
        self.residual = before == after and stride == 1

    def forward(self, x: Any) -> Any:
        y = self.depthwise(self.expand(x))
        if self.excite is not None:
            y = y * self.excite(y)
        y = self.project(y)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """Five inverted residuals between a convolution and a linear classifier."""

    def __init__(self, activation: Callable[[], nn.Module], excite: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), activation())
        shapes = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1)]
        self.blocks = nn.Sequential(*(_Block(*shape, activation, excite) for shape in shapes))
        self.head = nn.Sequential(nn.Conv2d(32, 96, 1, bias=False), nn.BatchNorm2d(96), activation())
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: Any) -> Any:
        return self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Any) -> Any:
        n, steps, width = x.shape
        query, key, value = (
            layer(x).reshape(n, steps, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = functional.softmax(query @ key.transpose(2, 3) / (width // self.heads) ** 0.5, dim=-1)
        return self.out((weights @ value).transpose(1, 2).reshape(n, steps, width))


class _Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, 4)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm_1(x))
        return x + self.down(functional.gelu(self.up(self.norm_2(x))))


class Transformer(nn.Module):
    """Two encoder layers over 25 frames of 12 coefficients."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Linear(12, width)
        self.position = nn.Parameter(torch.randn(1, 25, width) * 0.1)
        self.layers = nn.Sequential(_Layer(width), _Layer(width))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 9)

    def forward(self, x: Any) -> Any:
        return self.classifier(self.norm(self.layers(self.embed(x) + self.position)).mean(1))


def _scales(count: int, deviation: float, generator: Any) -> Any:
    return torch.exp(torch.randn(count, generator=generator) * deviation)


@torch.no_grad()
def wide(model: MobileNet) -> None:
    """Spread the channels of each depthwise convolution's input over two orders of magnitude, if ReLU lets them."""
    generator = torch.Generator().manual_seed(1)
    for block in model.blocks:
        channels = block.expand[1].num_features
        for norm, following in ((block.expand[1], block.depthwise[0]), (block.depthwise[1], block.project[0])):
            scale = _scales(channels, 1.2, generator)
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
            following.weight.div_(scale.reshape(-1, 1, 1, 1) if following.groups > 1 else scale.reshape(1, -1, 1, 1))


@torch.no_grad()
def outliers(model: Transformer) -> None:
    """Give some channels of each layer norm a far larger scale, which the linear layers behind it take back."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.layers:
        attention = layer.attention
        for norm, readers in (
            (layer.norm_1, (attention.query, attention.key, attention.value)),
            (layer.norm_2, (layer.up,)),
        ):
            scale = torch.ones(norm.weight.numel())
            chosen = torch.randperm(len(scale), generator=generator)[:4]
            scale[chosen] = 60.0
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
            for reader in readers:
                reader.weight.div_(scale)


@dataclass(frozen=True)
class Data:
    """Inputs and labels: what a network is trained, calibrated and tested with; the three are disjoint."""

    train: tuple[Any, Any]
    calibration: Any
    test: tuple[Any, Any]


def digits() -> Data:
    """Return MNIST images of shape (N, 1, 28, 28) from 0 to 1."""
    labelled = images.load("mnist-5k")
    order = np.random.default_rng(0).permutation(len(labelled.images))
    x = (labelled.images[order].astype(np.float32) / 255).transpose(0, 3, 1, 2)
    y = labelled.labels[order]
    return Data((x[:3600], y[:3600]), x[3600:4000], (x[4000:], y[4000:]))


def utterances() -> Data:
    """Return Japanese vowels of shape (N, 25, 12)."""
    all_of_them = vowels.load(vowels.NAME)
    x, y = vowels.standardise(all_of_them.frames), all_of_them.speakers
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return Data((x[:300], y[:300]), x[300:400], (x[400:], y[400:]))


@dataclass(frozen=True)
class Network:
    """A network, its data, its epochs, and what is done to its weights afterwards."""

    build: Callable[[], nn.Module]
    data: Callable[[], Data]
    epochs: int
    afterwards: Callable[[Any], None] | None = None


NETWORKS = {
    "mobilenet_v2_wide": Network(lambda: MobileNet(nn.ReLU), digits, 4, wide),
    "mobilenet_v2_relu6": Network(lambda: MobileNet(nn.ReLU6), digits, 4),
    "mobilenet_v2_excite": Network(lambda: MobileNet(nn.ReLU6, excite=True), digits, 4),
    "mobilenet_v3": Network(lambda: MobileNet(nn.Hardswish, excite=True), digits, 4),
    "transformer_outliers": Network(Transformer, utterances, 30, outliers),
}


def trained(name: str) -> tuple[nn.Module, Data]:
    """Train a network, the same in each run, and return it with its data."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    model, data = network.build(), network.data()
    x, y = (torch.from_numpy(array) for array in data.train)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=network.epochs * (len(x) // 64))
    for _ in range(network.epochs):
        for batch in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    if network.afterwards is not None:
        network.afterwards(model)
    return model, data

"""autoencoder in PyTorch: the architecture of MLPerf Tiny's anomaly detection network."""

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A network with input `(N, 480)` and output `(N, 480)`, the reconstruction of the input."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size = 480
        for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
            layers += [nn.Linear(size, units), nn.BatchNorm1d(units, eps=1e-3), nn.ReLU()]
            size = units
        self.layers = nn.Sequential(*layers, nn.Linear(size, 480))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


def initialise(layer: nn.Module) -> None:
    """Initialise a layer as Keras does by default."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """Return the untrained network."""
    return Autoencoder().apply(initialise)

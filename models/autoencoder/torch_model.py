"""autoencoder in PyTorch: the shape of MLPerf Tiny's anomaly detection network."""

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Input and output (N, 480): the output is the input as the network remembers what is normal."""

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
    """As Keras does where nothing else is said."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def build() -> nn.Module:
    """The untrained network."""
    return Autoencoder().apply(initialise)

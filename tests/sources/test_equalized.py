"""Networks whose channels are scaled compute the same, and have ranges that are more alike."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.values.specs import Signature, TensorSpec

SPREAD = 40.0


def signature(shape) -> Signature:
    return Signature((TensorSpec("x", ("batch", *shape), "float32"),), (TensorSpec("y", ("batch", 3), "float32"),))


@pytest.fixture(scope="module")
def torch_network():
    """Convolutions with a residual, pooling and layer norm, of which two groups of channels are spread."""
    import torch
    from torch import nn

    from edgekit.sources._module import LoadedTorch

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
            self.depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU())
            self.expand, self.norm, self.classifier = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x)
            x = nn.functional.max_pool2d(x + self.depthwise(x), 2).flatten(2).transpose(1, 2)
            return self.classifier(self.norm(torch.sigmoid(self.expand(x)))).mean(1)

    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for parameter in (net.stem[1].weight, net.stem[1].bias, net.norm.weight, net.norm.bias):
            parameter.copy_(torch.rand_like(parameter) + 0.5)
            parameter[1] *= SPREAD
        net.depthwise[0].weight[1] *= 1 / SPREAD
        net.classifier.weight[:, 1] /= SPREAD
    return LoadedTorch(net, signature((1, 10, 10)))


@pytest.fixture(scope="module")
def keras_network():
    """The same kind of network in Keras, whose layers hold their ReLU themselves."""
    import keras

    from edgekit.sources.keras import LoadedKeras

    keras.utils.set_random_seed(0)
    x = keras.Input((10, 10, 1))
    y = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization(name="stem")(y))
    y = keras.layers.Add()([y, keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(y)])
    y = keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(y))
    y = keras.layers.Dense(8, activation="sigmoid")(y)
    y = keras.layers.LayerNormalization(name="norm")(y)
    model = keras.Model(x, keras.layers.Dense(3, name="classifier")(y))
    for name in ("stem", "norm"):
        layer = model.get_layer(name)
        for weight in (layer.gamma, layer.beta):
            value = np.random.default_rng(0).uniform(0.5, 1.5, weight.shape)
            value[1] *= SPREAD
            weight.assign(value)
    classifier = model.get_layer("classifier").kernel
    value = np.asarray(classifier).copy()
    value[1] /= SPREAD
    classifier.assign(value)
    return LoadedKeras(model, signature((10, 10, 1)))


def check(loaded, shape) -> None:
    samples = {"x": np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)}
    equalized = loaded.equalized(samples)
    assert equalized is not None
    expected, actual = loaded.run(samples)["y"], equalized.run(samples)["y"]
    assert np.max(np.abs(actual - expected)) <= 1e-6 * np.max(np.abs(expected))
    before, after = ({name: np.log2(array) for name, array in ranges(model, samples)} for model in (loaded, equalized))
    assert before.keys() == after.keys()
    assert len(before) >= 2
    assert all(np.ptp(after[name]) < np.ptp(before[name]) for name in before)
    # The source itself is as it was.
    assert np.array_equal(loaded.run(samples)["y"], expected)


def ranges(loaded, samples):
    """The ranges of the tensors in groups whose largest channel is far above the others."""
    groups, measured = loaded._channel_ranges(samples)
    tensors = {names[-1] for names in groups.free.values()}
    return [(name, measured[name]) for name in sorted(tensors) if np.min(measured[name]) > 0]


def test_a_torch_network_computes_the_same(torch_network):
    check(torch_network, (1, 10, 10))


def test_a_keras_network_computes_the_same(keras_network):
    check(keras_network, (10, 10, 1))


def test_shared_weights_are_left_alone():
    import torch
    from torch import nn

    from edgekit.sources._module import LoadedTorch

    layer = nn.Linear(3, 3)
    net = nn.Sequential(layer, nn.ReLU(), layer).eval()
    samples = {"x": torch.randn(16, 3).numpy() * [1, 1, 100]}
    samples = {"x": samples["x"].astype(np.float32)}
    assert LoadedTorch(net, signature((3,))).equalized(samples) is None


def test_relu6_and_the_output_are_left_alone():
    import torch
    from torch import nn

    from edgekit.sources._module import LoadedTorch

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU6(), nn.Linear(5, 3)).eval()
    samples = {"x": np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)}
    assert LoadedTorch(net, signature((3,))).equalized(samples) is None

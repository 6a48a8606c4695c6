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


@pytest.fixture(scope="module")
def onnx_network():
    """The same kind of network as ONNX exporters write it."""
    from onnx import TensorProto, checker, helper, numpy_helper

    from edgekit.sources.onnx import LoadedOnnx

    rng = np.random.default_rng(0)
    shapes = {"w0": (4, 1, 3, 3), "w1": (4, 1, 3, 3), "b1": (4,), "w2": (64, 8), "b2": (8,), "w3": (8, 3), "b3": (3,)}
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    values |= {name: rng.uniform(0.5, 1.5, 4).astype(np.float32) for name in ("g0", "h0", "m0", "v0")}
    values |= {name: rng.uniform(0.5, 1.5, 8).astype(np.float32) for name in ("g2", "h2")}
    for name in ("g0", "h0", "g2", "h2"):
        values[name][1] *= SPREAD
    values["w3"][1] /= SPREAD
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w0"], ["c0"]),
        make("BatchNormalization", ["c0", "g0", "h0", "m0", "v0"], ["n0"]),
        make("Relu", ["n0"], ["r0"]),
        make("Conv", ["r0", "w1", "b1"], ["c1"], group=4, pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"]),
        make("Add", ["r0", "r1"], ["a1"]),
        make("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["p1"], ["f1"]),
        make("Gemm", ["f1", "w2", "b2"], ["d2"]),
        make("Sigmoid", ["d2"], ["s2"]),
        make("LayerNormalization", ["s2", "g2", "h2"], ["n2"]),
        make("MatMul", ["n2", "w3"], ["d3"]),
        make("Add", ["d3", "b3"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("x", (1, 10, 10)), ("y", (3,)))
    )
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return LoadedOnnx(model, signature((1, 10, 10)))


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


def test_an_onnx_network_computes_the_same(onnx_network):
    check(onnx_network, (1, 10, 10))


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

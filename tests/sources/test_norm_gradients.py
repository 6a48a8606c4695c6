"""What enters the batch norms of a network is compared with the statistics of its training, in every kind of source."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec

RNG = np.random.default_rng(0)
WEIGHT, SHIFT = (RNG.normal(size=(4, 3, 1, 1)).astype(np.float32), RNG.normal(size=4).astype(np.float32))
MEAN, VARIANCE = RNG.normal(size=4).astype(np.float32), RNG.uniform(0.5, 2, 4).astype(np.float32)
MEAN_2, VARIANCE_2 = RNG.normal(size=4).astype(np.float32), RNG.uniform(0.5, 2, 4).astype(np.float32)
EPSILON = 1e-3
IMAGES = RNG.normal(size=(6, 3, 5, 5)).astype(np.float32)


def distance(entering, mean, variance) -> float:
    """The loss of one norm, by its definition; channels first."""
    found = entering.astype(np.float64)
    gap, spread = found.mean((0, 2, 3)) - mean, found.var((0, 2, 3)) + EPSILON
    return float(np.mean(gap**2 / (variance + EPSILON) + (np.sqrt(spread / (variance + EPSILON)) - 1) ** 2))


def expected_loss(images) -> float:
    """The loss of: 1x1 convolution, norm, ReLU, norm."""
    first = np.einsum("oihw,nixy->noxy", WEIGHT, images.astype(np.float64)) + SHIFT[:, None, None]
    normal = (first - MEAN[:, None, None]) / np.sqrt(VARIANCE[:, None, None] + EPSILON)
    return (distance(first, MEAN, VARIANCE) + distance(np.maximum(normal, 0), MEAN_2, VARIANCE_2)) / 2


def signature(batch="batch", shape=(3, 5, 5)) -> Signature:
    return Signature(
        (TensorSpec("x", (batch, *shape), "float32"),), (TensorSpec("y", (batch, 4, *shape[1:]), "float32"),)
    )


def module():
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, EPSILON), nn.ReLU(), nn.BatchNorm2d(4, EPSILON))
    values = {"0.weight": WEIGHT, "0.bias": SHIFT, "1.running_mean": MEAN, "1.running_var": VARIANCE}
    values |= {"3.running_mean": MEAN_2, "3.running_var": VARIANCE_2}
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in values.items()}, strict=False)
    return net.eval()


def torch_network():
    from edgekit.sources._module import LoadedTorch

    return LoadedTorch(module(), signature())


def program_network(*, core: bool = False):
    """The module as an exported program, with the operators of the export or the core ones."""
    import torch

    from edgekit.sources._module import LoadedTorch

    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module(), (torch.from_numpy(IMAGES),), dynamic_shapes=batch)
    return LoadedTorch((program.run_decompositions() if core else program).module(check_guards=False), signature())


def script_network():
    import torch

    from edgekit.sources.torchscript import LoadedTorchScript

    return LoadedTorchScript(torch.jit.trace(module(), torch.from_numpy(IMAGES)), signature())


def onnx_network(batch="batch"):
    from onnx import TensorProto, helper, numpy_helper

    from edgekit.sources.onnx import LoadedOnnx

    values = {"w": WEIGHT, "b": SHIFT, "m": MEAN, "v": VARIANCE, "m2": MEAN_2, "v2": VARIANCE_2}
    values |= {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "one", "zero", "m", "v"], ["n"], epsilon=EPSILON),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("BatchNormalization", ["r", "one", "zero", "m2", "v2"], ["y"], epsilon=EPSILON),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size, 5, 5])
        for name, size in (("x", 3), ("y", 4))
    )
    graph = helper.make_graph(
        nodes, "net", [x], [y], [numpy_helper.from_array(value, name) for name, value in values.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return LoadedOnnx(model, signature(batch))


def keras_network():
    import keras

    from edgekit.sources.keras import LoadedKeras

    x = keras.Input((5, 5, 3))
    norms = [keras.layers.BatchNormalization(epsilon=EPSILON) for _ in range(2)]
    convolution = keras.layers.Conv2D(4, 1)
    model = keras.Model(x, norms[1](keras.layers.ReLU()(norms[0](convolution(x)))))
    convolution.set_weights([WEIGHT.transpose(2, 3, 1, 0), SHIFT])
    for norm, mean, variance in zip(norms, (MEAN, MEAN_2), (VARIANCE, VARIANCE_2), strict=True):
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
    shapes = (("batch", 5, 5, 3), ("batch", 5, 5, 4))
    specs = [TensorSpec(name, shape, "float32") for name, shape in zip("xy", shapes, strict=True)]
    return LoadedKeras(model, Signature((specs[0],), (specs[1],)))


NETWORKS = {
    "torch": torch_network,
    "program": program_network,
    "core program": lambda: program_network(core=True),
    "script": script_network,
    "onnx": onnx_network,
    # Statistics are those of all calls together, where a call takes a single sample.
    "onnx, one sample a call": lambda: onnx_network(1),
    "keras": keras_network,
}


# PyTorch's own: TorchScript is deprecated, and so is what its converter calls.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Manually populate")
@pytest.mark.parametrize("kind", NETWORKS)
def test_loss_and_gradient_are_those_of_the_definition(kind):
    order = (0, 2, 3, 1) if kind == "keras" else (0, 1, 2, 3)
    inputs = {"x": np.ascontiguousarray(IMAGES.transpose(order))}
    network = NETWORKS[kind]()
    before = {name: array.copy() for name, array in network.parameters().items()}
    result = network.norm_gradient(inputs)
    assert result.norms == 2
    assert result.loss == pytest.approx(expected_loss(IMAGES), rel=1e-4)
    gradient = result.gradients["x"]
    assert gradient.shape == inputs["x"].shape
    assert gradient.dtype == np.float32
    # The derivative along one direction, against a difference of two losses in float64.
    direction = np.random.default_rng(1).normal(size=IMAGES.shape)
    step = 1e-6
    slope = (expected_loss(IMAGES + step * direction) - expected_loss(IMAGES - step * direction)) / (2 * step)
    assert np.sum(gradient * direction.transpose(order)) == pytest.approx(slope, rel=1e-3)
    assert all(np.array_equal(array, before[name]) for name, array in network.parameters().items())


def test_a_network_without_norms_has_none():
    import torch

    from edgekit.sources._module import LoadedTorch

    result = LoadedTorch(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)).eval(), signature()).norm_gradient({"x": IMAGES})
    assert result.norms == 0
    assert not result.gradients["x"].any()


def test_a_norm_that_computes_its_own_statistics_is_none():
    import torch

    from edgekit.sources._module import LoadedTorch

    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3, track_running_stats=False)).eval()
    assert LoadedTorch(net, signature()).norm_gradient({"x": IMAGES}).norms == 0


def test_a_kind_without_gradients_is_refused_by_name():
    from edgekit.sources.saved_model import LoadedSavedModel

    with pytest.raises(InputError, match="cannot be synthesized from saved-model models; pass real inputs") as caught:
        LoadedSavedModel(None, signature()).norm_gradient({"x": IMAGES})
    assert caught.value.parameters == ("sample", "calibration")

"""The Keras and the PyTorch network of a reference model are the same: with equal weights they compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _helpers import reference_pairs

from edgekit.config.model import load_model_spec

CASES = [*((name, {}) for name in reference_pairs.NAMES), ("mobilenet_v2_small", {"squeeze": True})]


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *case[1]]), scope="module")
def case(request):
    name, options = request.param
    return load_model_spec(reference_pairs.MODELS / name), *reference_pairs.build(name, **options)


def samples(spec, count=8):
    low, high = spec.input.range or (-3.0, 3.0)
    return np.random.default_rng(0).uniform(low, high, (count, *spec.input.shape)).astype(np.float32)


@pytest.mark.slow
def test_both_frameworks_have_the_same_parameters(case):
    _, keras_model, module = case
    groups = reference_pairs.torch_groups(module)
    assert sum(weight.numpy().size for weight in keras_model.weights) == sum(
        t.numel() for group in groups for t in group
    )
    trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    assert sum(weight.numpy().size for weight in keras_model.trainable_weights) == trainable


def test_both_frameworks_initialise_alike(case):
    """Large weights have the same spread, and the others the same constants."""
    _, keras_model, module = case
    if type(module).__name__ in ("Linear", "SimpleCNN"):
        return  # these keep each framework's default initialisation
    for group, tensors in reference_pairs.pairs(keras_model, module):
        for array, tensor in zip(group, tensors, strict=True):
            counterpart = tensor.detach().numpy()
            if array.ndim == 1:
                np.testing.assert_array_equal(array, counterpart)
            elif array.size > 200:
                assert counterpart.std() == pytest.approx(array.std(), rel=0.15)
                assert abs(counterpart).max() == pytest.approx(abs(array).max(), rel=0.3)


def test_both_frameworks_normalise_alike(case):
    """Keras's momentum is the weight of the old statistics, PyTorch's that of the new ones."""
    _, keras_model, module = case
    keras_norms = [layer for layer in keras_model.layers if "Normalization" in type(layer).__name__]
    torch_norms = [part for part in module.modules() if hasattr(part, "eps")]
    assert {layer.epsilon for layer in keras_norms} == {part.eps for part in torch_norms}
    momenta = {1 - part.momentum for part in torch_norms if hasattr(part, "momentum")}
    assert momenta == {layer.momentum for layer in keras_norms if hasattr(layer, "momentum")}
    assert len(keras_norms) == len(torch_norms)


def test_with_the_same_weights_both_frameworks_compute_the_same(case):
    import torch

    spec, keras_model, module = case
    reference_pairs.randomise(keras_model)
    reference_pairs.copy_weights(keras_model, module)
    x = samples(spec)
    is_image = spec.input.layout == "HWC"
    with torch.no_grad():
        actual = module.eval()(torch.from_numpy(np.moveaxis(x, -1, 1).copy() if is_image else x)).numpy()
    expected = np.asarray(keras_model(x, training=False))
    assert expected.shape == (len(x), *spec.output.shape)
    assert expected.std(axis=0).max() > 1e-3  # the output depends on the input
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_classifier_returns_logits_in_training_mode_and_probabilities_in_inference_mode(case):
    import torch

    spec, _, module = case
    x = torch.from_numpy(np.moveaxis(samples(spec), -1, 1).copy() if spec.input.layout == "HWC" else samples(spec))
    if spec.task != "classification":
        return
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x).sum(dim=1), torch.ones(len(x)))
        assert (module.train()(x).sum(dim=1) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("name", reference_pairs.NAMES)
def test_a_model_consists_of_four_files(name):
    folder = Path(reference_pairs.MODELS / name)
    files = {path.name for path in folder.iterdir() if path.suffix in (".py", ".toml")}
    assert files == {"model.toml", "data.py", "keras_model.py", "torch_model.py"}

"""Pairing of inner tensors, and the first one where the error diverges."""

import numpy as np
import pytest

from edgekit.core.numerics.layerwise_diff import diff_layers, match_tensors, normalize_name

RNG = np.random.default_rng(0)


def tensors(*names, width=8):
    return {name: RNG.normal(size=(16, width)).astype(np.float32) for name in names}


def noisy(array, relative_noise):
    return array + relative_noise * RNG.normal(size=array.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net/conv/Relu;net/conv/BiasAdd", "net/conv/Relu"),
        ("net/net/conv/Relu", "net/conv/Relu"),
        ("dense:0", "dense"),
        ("dense_QuantizeLinear_Input", "dense"),
        ("dense_quantized", "dense"),
    ],
)
def test_what_exporters_add_to_a_name_is_removed(name, expected):
    assert normalize_name(name) == expected


def test_the_first_tensor_that_diverges_is_named():
    reference = tensors("a", "b", "c", "d")
    actual = {name: noisy(array, 0.01) for name, array in reference.items()}
    for name in ("c", "d"):
        actual[name] = noisy(reference[name], 0.8)
    diff = diff_layers(reference, actual)
    assert [tensor.reference for tensor in diff.tensors] == ["a", "b", "c", "d"]
    assert diff.first is not None
    assert diff.first.reference == "c"


def test_quantization_noise_alone_is_no_divergence():
    reference = tensors("a", "b", "c")
    assert diff_layers(reference, {name: noisy(array, 0.02) for name, array in reference.items()}).first is None


def test_a_wrong_first_tensor_diverges_too():
    reference = tensors("a", "b")
    diff = diff_layers(reference, {"a": noisy(reference["a"], 1.0), "b": noisy(reference["b"], 1.0)})
    assert diff.first is not None
    assert diff.first.reference == "a"


def test_equal_tensors_are_exact():
    reference = tensors("a")
    assert diff_layers(reference, dict(reference)).tensors[0].sqnr_db is None


def test_similar_tensors_are_paired_though_a_fused_activation_has_another_name():
    before = RNG.normal(size=(16, 8)).astype(np.float32)
    after = np.maximum(before, 0)
    assert match_tensors({"add": before, "relu": after}, {"add": noisy(after, 0.01)}) == [("relu", "add")]


def test_tensors_without_a_counterpart_are_listed():
    reference, actual = tensors("a", "lost"), {}
    actual = {"a": noisy(reference["a"], 0.01), "extra": RNG.normal(size=(16, 3)).astype(np.float32)}
    diff = diff_layers(reference, actual)
    assert diff.only_reference == ("lost",)
    assert diff.only_actual == ("extra",)


def test_the_divergence_depends_on_the_precision():
    reference = tensors("a", "b")
    slightly = {name: noisy(array, 0.003) for name, array in reference.items()}
    assert diff_layers(reference, slightly, "int8").first is None
    first = diff_layers(reference, slightly, "float32").first
    assert first is not None
    assert first.reference == "a"


def test_layouts_and_dimensions_of_one_are_reconciled_and_a_transpose_is_not():
    image = RNG.normal(size=(16, 1, 6, 5, 5)).astype(np.float32)
    moved = {"conv": np.moveaxis(image, 2, -1)}
    assert diff_layers({"features": image}, moved, "float32").tensors[0].sqnr_db is None
    swapped = diff_layers({"features": image}, {"conv": image.swapaxes(-1, -2).copy()}, "float32")
    assert swapped.first is not None


def test_given_outputs_are_paired_under_any_names():
    reference, actual = tensors("inner", "head"), {}
    actual = {"x1": noisy(reference["inner"], 1e-6), "probabilities": noisy(reference["head"], 2.0)}
    diff = diff_layers(reference, actual, "float32", [("head", "probabilities")])
    assert diff.first is not None
    assert (diff.first.reference, diff.first.actual) == ("head", "probabilities")


def test_a_tensor_that_repeats_an_earlier_one_is_left_out():
    reference = tensors("a")
    diff = diff_layers({**reference, "dropout": reference["a"].copy()}, {"a": reference["a"].copy()}, "float32")
    assert diff.only_reference == ()
    assert len(diff.tensors) == 1


def test_tensors_behind_a_fault_are_paired_by_order():
    reference = tensors("a", "b", "c")
    actual = {"x": reference["a"].copy(), "y": reference["b"] * [[1, -1] * 4], "z": RNG.normal(size=(16, 8))}
    diff = diff_layers(reference, actual, "float32", [("c", "z")])
    assert [(tensor.reference, tensor.actual) for tensor in diff.tensors] == [("a", "x"), ("b", "y"), ("c", "z")]
    assert diff.first is not None
    assert diff.first.actual == "y"

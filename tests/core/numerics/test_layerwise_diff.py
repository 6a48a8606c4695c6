"""Which inner tensors belong together, and where their error leaps."""

import numpy as np
import pytest

from edgekit.core.numerics.layerwise_diff import diff_layers, match_tensors, normalize_name

RNG = np.random.default_rng(0)


def tensors(*names, width=8):
    return {name: RNG.normal(size=(16, width)).astype(np.float32) for name in names}


def noisy(array, share):
    return array + share * RNG.normal(size=array.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("net/conv/Relu;net/conv/BiasAdd", "net/conv/Relu"),
        ("net/net/conv/Relu", "net/conv/Relu"),
        ("dense:0", "dense"),
        ("dense_QuantizeLinear_Input", "dense"),
        ("dense_quantized", "dense"),
    ],
)
def test_a_name_without_what_exporters_add(name, wanted):
    assert normalize_name(name) == wanted


def test_the_first_tensor_whose_error_leaps_is_named():
    reference = tensors("a", "b", "c", "d")
    actual = {name: noisy(array, 0.01) for name, array in reference.items()}
    for name in ("c", "d"):
        actual[name] = noisy(reference[name], 0.8)
    found = diff_layers(reference, actual)
    assert [item.reference for item in found.tensors] == ["a", "b", "c", "d"]
    assert found.first is not None
    assert found.first.reference == "c"


def test_quantization_noise_alone_leaps_nowhere():
    reference = tensors("a", "b", "c")
    assert diff_layers(reference, {name: noisy(array, 0.02) for name, array in reference.items()}).first is None


def test_a_first_tensor_that_is_wrong_leaps_too():
    reference = tensors("a", "b")
    found = diff_layers(reference, {"a": noisy(reference["a"], 1.0), "b": noisy(reference["b"], 1.0)})
    assert found.first is not None
    assert found.first.reference == "a"


def test_equal_tensors_are_exact():
    reference = tensors("a")
    assert diff_layers(reference, dict(reference)).tensors[0].sqnr_db is None


def test_what_computes_alike_is_paired_though_a_fused_activation_took_the_name():
    before = RNG.normal(size=(16, 8)).astype(np.float32)
    after = np.maximum(before, 0)
    assert match_tensors({"add": before, "relu": after}, {"add": noisy(after, 0.01)}) == [("relu", "add")]


def test_what_has_no_twin_is_listed():
    reference, actual = tensors("a", "lost"), {}
    actual = {"a": noisy(reference["a"], 0.01), "extra": RNG.normal(size=(16, 3)).astype(np.float32)}
    found = diff_layers(reference, actual)
    assert found.only_reference == ("lost",)
    assert found.only_actual == ("extra",)


def test_what_a_precision_can_do_is_what_a_tensor_is_held_to():
    reference = tensors("a", "b")
    slightly = {name: noisy(array, 0.003) for name, array in reference.items()}
    assert diff_layers(reference, slightly, "int8").first is None
    found = diff_layers(reference, slightly, "float32").first
    assert found is not None
    assert found.reference == "a"


def test_layouts_and_other_ranks_are_reconciled_and_a_transpose_is_not():
    image = RNG.normal(size=(16, 1, 6, 5, 5)).astype(np.float32)
    moved = {"conv": np.moveaxis(image, 2, -1)}
    assert diff_layers({"features": image}, moved, "float32").tensors[0].sqnr_db is None
    swapped = diff_layers({"features": image}, {"conv": image.swapaxes(-1, -2).copy()}, "float32")
    assert swapped.first is not None


def test_outputs_belong_together_whatever_they_are_called():
    reference, actual = tensors("inner", "head"), {}
    actual = {"x1": noisy(reference["inner"], 1e-6), "probabilities": noisy(reference["head"], 2.0)}
    found = diff_layers(reference, actual, "float32", [("head", "probabilities")])
    assert found.first is not None
    assert (found.first.reference, found.first.actual) == ("head", "probabilities")


def test_what_repeats_an_earlier_tensor_is_left_out():
    reference = tensors("a")
    found = diff_layers({**reference, "dropout": reference["a"].copy()}, {"a": reference["a"].copy()}, "float32")
    assert found.only_reference == ()
    assert len(found.tensors) == 1


def test_behind_a_fault_tensors_are_paired_by_order():
    reference = tensors("a", "b", "c")
    actual = {"x": reference["a"].copy(), "y": reference["b"] * [[1, -1] * 4], "z": RNG.normal(size=(16, 8))}
    found = diff_layers(reference, actual, "float32", [("c", "z")])
    assert [(item.reference, item.actual) for item in found.tensors] == [("a", "x"), ("b", "y"), ("c", "z")]
    assert found.first is not None
    assert found.first.actual == "y"

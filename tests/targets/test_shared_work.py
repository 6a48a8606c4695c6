"""Conversions of one source to several precisions share intermediate results; conversions of others do not."""

import pytest
import torch

from edgekit.contracts.target import ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.sources._module import LoadedTorch
from edgekit.targets import onnx as onnx_target
from edgekit.targets._tflite import from_torch
from edgekit.targets.onnx import TARGET as ONNX
from edgekit.targets.tflite import TARGET as TFLITE

SIGNATURE = Signature((TensorSpec("x", ("batch", 8), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))


def loaded(seed=0):
    torch.manual_seed(seed)
    return LoadedTorch(torch.nn.Sequential(torch.nn.Linear(8, 4)).eval(), SIGNATURE)


def test_a_result_is_computed_once_per_signature_and_sizes():
    source, results = loaded(), []

    def make():
        results.append(len(results))
        return results[-1]

    one = SIGNATURE.sized({"batch": 1})
    assert [source.cached("a", make), source.cached("a", make), source.cached("b", make)] == [0, 0, 1]
    assert [source.at(one, {}).cached("a", make), source.at(one, {}).cached("a", make)] == [2, 2]
    assert source.at(SIGNATURE, {"time": 3}).cached("a", make) == 3
    assert source.at(SIGNATURE, {}).cached("a", make) == 0
    assert loaded().cached("a", make) == 4
    assert source.with_layout({"x": (1, 0)}, SIGNATURE).cached("a", make) == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("target", "module", "function", "precisions"),
    [
        (TFLITE, from_torch, "convert_float", ("float32", "float16", "dynamic")),
        (ONNX, onnx_target, "slim", ("float32", "float16", "dynamic")),
    ],
    ids=["tflite", "onnx"],
)
def test_variants_of_one_source_start_from_the_same_conversion(
    target, module, function, precisions, tmp_path, monkeypatch
):
    """It runs once, and the files are the same as those of a source that is loaded for each variant, in any order."""
    original, calls = getattr(module, function), []

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(module, function, counted)
    signature = SIGNATURE if target is ONNX else SIGNATURE.sized({"batch": 1})

    def convert(source, precision, name):
        job = ConversionRequest(precision, tmp_path / name)
        job.folder.mkdir()
        converted = target.convert(source.at(signature, {}), job)
        return (job.folder / converted.file).read_bytes()

    alone = {precision: convert(loaded(), precision, f"alone-{precision}") for precision in precisions}
    assert len(calls) == len(precisions)
    calls.clear()
    for order in (precisions, precisions[::-1]):
        source = loaded()
        together = {precision: convert(source, precision, f"{order[0]}-{precision}") for precision in order}
        assert together == alone
    assert len(calls) == 2
    other = ConversionRequest("float32", tmp_path / "other")
    other.folder.mkdir()
    assert target.convert(loaded(1).at(signature, {}), other)
    assert (other.folder / target.file_name).read_bytes() != alone["float32"]

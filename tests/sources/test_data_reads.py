"""Code that decides by the values of tensors: found, named by its line, compiled or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.contracts.target import ConversionRequest
from edgekit.core.errors import InputError
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.torchscript import RUNTIME
from edgekit.sources._data_reads import data_reads
from edgekit.sources._module import LoadedTorch
from edgekit.targets.torchscript import TARGET

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Unscriptable(nn.Module):
    def forward(self, x: Any) -> Any:
        return {True: x * 2, False: x - 1}[bool((x.sum() > 0).item())]


class Checked(nn.Module):
    def forward(self, x: Any, *, limits: Any = (-1e6, 1e6)) -> Any:
        assert all(bool((x > limit).all()) == (limit < 0) for limit in limits)
        return x * 2


class Sizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: Any) -> Any:
        if x.shape[1] < 12 and self.factor > 1:
            return x * float(self.factor)
        return x


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Branch(), "a condition in test_data_reads.py, line 26: if x.sum() > 0"),
        (Unscriptable(), "item() in test_data_reads.py, line 33: return {True"),
    ],
)
def test_the_line_that_reads_values_is_named(module, expected):
    (read,) = data_reads(module, [torch.from_numpy(X)])
    assert str(read).startswith(expected)


def test_sizes_and_weights_are_no_values_of_the_input():
    assert data_reads(Sizes(), [torch.from_numpy(X)]) == ()


def converted(module: nn.Module, folder: Any) -> Any:
    model = LoadedTorch(module.eval(), SIGNATURE).with_examples({"x": X})
    TARGET.convert(model, ConversionRequest("float32", folder))
    return RUNTIME.open(folder / "model.pt", threads=1)


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
@pytest.mark.parametrize("module", [Branch(), Checked()], ids=["a branch", "a check"])
def test_torchscript_keeps_what_depends_on_values(module, tmp_path):
    rows = [X[index : index + 1] for index in range(len(X))]
    assert {bool(row.sum() > 0) for row in rows} == {True, False}
    session = converted(module, tmp_path)
    for row in rows:
        with torch.no_grad():
            expected = module(torch.from_numpy(row)).numpy()
        np.testing.assert_array_equal(session._run([row])[0], expected)


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_what_can_be_neither_traced_nor_compiled_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither traceable nor scriptable.*item\(\) in test_data_reads.py, line 33"):
        converted(Unscriptable(), tmp_path)

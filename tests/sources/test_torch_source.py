"""The source kind of PyTorch modules: programs and code, imported and loaded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.contracts.source import UserModel
from edgekit.core.values.specs import TensorSpec
from edgekit.sources.torch import SOURCE

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x.half()) + torch.ones(3, dtype=torch.float16))


def build() -> nn.Module:
    torch.manual_seed(0)
    return Halves()


@pytest.mark.filterwarnings("ignore")  # torch.export warns about its own code
@pytest.mark.parametrize("is_program", [True, False], ids=["a program", "code"])
def test_half_precision_is_rebuilt_in_float32_and_said(is_program, tmp_path):
    with torch.no_grad():
        truth = build()(torch.from_numpy(X)).float().numpy()
    model = UserModel(None, build, examples={"x": X})
    if is_program:
        program = torch.export.export(build(), (torch.from_numpy(X).half(),))
        torch.export.save(program, tmp_path / "net.pt2")
        model = UserModel(tmp_path / "net.pt2")
    folder = tmp_path / "source"
    folder.mkdir()
    file, signature = SOURCE.import_model(model, folder)
    assert [spec.dtype for spec in signature.inputs] == ["float32"]
    loaded = SOURCE.load(folder / file, signature, build)
    (result,) = loaded._run([X])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, truth, atol=5e-3)
    assert loaded.notes == ("the network has weights in float16: it was rebuilt in float32",)


def test_which_weights_of_a_checkpoint_were_chosen_is_said(tmp_path):
    weights = nn.Linear(6, 3).state_dict()
    averages = {name: weight * 0 for name, weight in weights.items()}
    torch.save({"model": weights, "ema": averages}, tmp_path / "last.ckpt")
    model = UserModel(
        None, lambda: nn.Linear(6, 3), tmp_path / "last.ckpt", (TensorSpec("x", ("batch", 6), "float32"),)
    )
    file, signature = SOURCE.import_model(model, tmp_path)
    assert model.notes == ["weights under ema of last.ckpt, which also has model"]
    loaded = SOURCE.load(tmp_path / file, signature, lambda: nn.Linear(6, 3))
    np.testing.assert_array_equal(loaded._run([X])[0], np.zeros((4, 3)))


SHARED = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), nn.Conv1d(1, 1, 2, padding="same"))


def test_code_may_return_the_same_module_at_every_call(tmp_path):
    specs = (TensorSpec("x", (1, 6), "float32"),)
    file, signature = SOURCE.import_model(UserModel(None, lambda: SHARED, None, specs), tmp_path)
    results = [SOURCE.load(tmp_path / file, signature, lambda: SHARED)._run([X[:1]])[0] for _ in range(2)]
    np.testing.assert_array_equal(*results)

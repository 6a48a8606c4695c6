"""Users' PyTorch modules as converters take them: plain weights, positional inputs, flat outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.contracts.source import UserModel
from edgekit.contracts.target import ConversionRequest
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.runtimes.torchscript import RUNTIME
from edgekit.sources._key_value_caches import CACHE_NOTE, asks_for_caches, without_caches
from edgekit.sources._module import LoadedTorch, output_names
from edgekit.sources._module_outputs import output_names_of, outputs_of
from edgekit.sources._regular_module import other_floats, with_plain_weights
from edgekit.sources.torch import SOURCE
from edgekit.targets.torchscript import TARGET

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, ("batch", *shape), dtype)


def loaded(module: nn.Module, inputs: dict[str, np.ndarray[Any, Any]]) -> LoadedTorch:
    """Load a module as a source is loaded, with the signature that an import gives it."""
    specs = tuple(spec(name, *array.shape[1:], dtype=str(array.dtype)) for name, array in inputs.items())
    plain = with_plain_weights(module.eval())
    model = LoadedTorch(plain, Signature(specs, output_names(plain, specs, inputs))).with_examples(inputs)
    assert isinstance(model, LoadedTorch)
    return model


class Returning(nn.Module):
    def __init__(self, structure: Any) -> None:
        super().__init__()
        self.structure = structure

    def forward(self, x: Any) -> Any:
        return self.structure(x)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Detections:
    boxes: Any
    scores: Any = None


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda x: x * 2, ["output"]),
        (lambda x: (x * 2,), ["output"]),
        (lambda x: (x * 2, x + 1), ["output_0", "output_1"]),
        (lambda x: (x * 2, (x + 1, x - 1)), ["output_0", "output_1_0", "output_1_1"]),
        (lambda x: {"logits": x * 2, "hidden": [x + 1, x - 1]}, ["logits", "hidden_0", "hidden_1"]),
        (lambda x: {"logits": x * 2, "loss": None}, ["logits"]),
        (lambda x: Detections(x * 2), ["boxes"]),
        (lambda x: (Pair(x * 2, x + 1), None), ["output_0_first", "output_0_second"]),
        (lambda x: (x * 2, 3), ["output_0", "output_1"]),
    ],
    ids=["tensor", "tuple of one", "tuple", "nested tuple", "dict", "None", "dataclass", "named tuple", "number"],
)
@pytest.mark.filterwarnings("ignore")  # of torch's tracer, which is deprecated
def test_nested_outputs_are_flat_and_named(structure, names, tmp_path):
    model = loaded(Returning(structure), {"x": X})
    assert [output.name for output in model.signature.outputs] == names
    expected = [value.numpy() for value in outputs_of(structure(torch.from_numpy(X)))]
    np.testing.assert_equal(model._run([X]), expected)
    # A tensor or a tuple of tensors, which every runtime returns as it is.
    TARGET.convert(model, ConversionRequest("float32", tmp_path))
    results = RUNTIME.open(tmp_path / "model.pt", threads=1)._run([X])
    np.testing.assert_equal(results, expected)


def test_an_object_among_the_outputs_is_refused_by_its_type():
    with pytest.raises(TypeError, match="an object of the type object"):
        output_names_of((torch.zeros(1), object()))


class Configuration:
    use_cache = True


class Decoder(nn.Module):
    """Returns a cache as models of `transformers` do."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Configuration()

    def forward(self, x: Any) -> Any:
        return {"logits": x * 2, "past_key_values": object() if self.config.use_cache else None}


@pytest.mark.parametrize("module", [Decoder(), nn.Sequential(nn.ReLU(), Decoder())], ids=["the model", "a part of it"])
def test_caches_of_keys_and_values_are_left_out(module):
    assert asks_for_caches(module)
    without_caches(module)
    assert output_names_of(module(torch.zeros(1))) == ["logits"]
    assert not asks_for_caches(module)


class Encoder(Decoder):
    def forward(self, x: Any) -> Any:
        return {"hidden": x * 2}


@pytest.mark.parametrize(("build", "notes"), [(Decoder, [CACHE_NOTE]), (Encoder, [])])
def test_a_cache_that_is_left_out_is_noted(build, notes, tmp_path):
    model = UserModel(None, build, None, (), {"x": X})
    SOURCE.import_model(model, tmp_path)
    assert model.notes == notes


class InPlace(nn.Module):
    def forward(self, x: Any) -> Any:
        x.mul_(2).add_(1)
        x[:, 0] = 0
        return x


@pytest.mark.filterwarnings("ignore")  # of torch's tracer, which is deprecated
def test_inputs_are_not_changed_in_place(tmp_path):
    model = loaded(InPlace(), {"x": X})
    given = X.copy()
    expected = X * 2 + 1
    expected[:, 0] = 0
    np.testing.assert_allclose(model._run([given])[0], expected, rtol=1e-6)
    TARGET.convert(model, ConversionRequest("float32", tmp_path))
    np.testing.assert_allclose(RUNTIME.open(tmp_path / "model.pt", threads=1)._run([given])[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(given, X)


class Keywords(nn.Module):
    def forward(self, x: Any, bias: Any = None, *, scale: Any = 1.0) -> Any:
        return (x if bias is None else x + bias) * scale


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("x",), lambda x, _other: x),
        (("x", "bias"), lambda x, other: x + other),
        (("bias", "x"), lambda other, x: x + other),
        (("x", "scale"), lambda x, other: x * other),
        # Names that are none of forward's are positions, as before.
        (("image", "offset"), lambda x, other: x + other),
    ],
)
def test_inputs_reach_the_parameters_that_they_are_named_like(names, expected):
    arrays = dict(zip(names, (X, X[::-1].copy()), strict=False))
    model = loaded(Keywords(), arrays)
    assert isinstance(model.model, Keywords) == (names not in {("bias", "x"), ("x", "scale")})
    result = model._run(list(arrays.values()))[0]
    np.testing.assert_array_equal(result, expected(*arrays.values(), *[None] * (2 - len(arrays))))


class Cast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3).bfloat16()

    def forward(self, x: Any) -> Any:
        return self.linear(x.to(torch.bfloat16)).float() + torch.zeros(3, dtype=torch.float16)


@pytest.mark.parametrize(
    "build",
    [lambda: nn.Linear(6, 3).half(), lambda: nn.Linear(6, 3).bfloat16(), lambda: nn.Linear(6, 3).double(), Cast],
    ids=["half", "bfloat16", "double", "casts"],
)
def test_other_floating_point_types_are_rebuilt_in_float32(build):
    torch.manual_seed(0)
    original = build()
    dtype = next(original.parameters()).dtype
    with torch.no_grad():
        given = torch.from_numpy(X)
        truth = original(given if build is Cast else given.to(dtype)).float().numpy()
    assert other_floats(original) == [str(dtype).removeprefix("torch.")]
    model = loaded(original, {"x": X})
    (result,) = model._run([X])
    assert result.dtype == np.float32
    # One rounding of the narrower type: 8 bits of bfloat16, 11 of half.
    np.testing.assert_allclose(result, truth, atol=0 if dtype is torch.float64 else 2e-2, rtol=1e-6)
    # Float32 arithmetic on those weights is what the rounding is measured against, in float64.
    wide = model.run_float64({"x": X})
    assert wide is not None
    assert np.abs(wide["output"] - result).max() < 1e-6
    program = torch.export.export(model.model, (given,))
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert {value.dtype for value in values if isinstance(value, torch.Tensor)} == {torch.float32}


class Parametrized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        utils = nn.utils
        self.a = utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.b = utils.parametrizations.spectral_norm(nn.Linear(6, 6))
        self.c = utils.parametrizations.orthogonal(nn.Linear(6, 6))
        self.e = utils.prune.random_unstructured(nn.Linear(6, 6), "weight", amount=0.5)
        with pytest.warns(FutureWarning, match="deprecated"):
            self.d = utils.weight_norm(nn.Linear(6, 6))
        self.f = utils.spectral_norm(nn.Linear(6, 6))

    def forward(self, x: Any) -> Any:
        return self.f(self.e(self.d(self.c(self.b(self.a(x))))))


def test_parametrizations_are_computed_once():
    torch.manual_seed(0)
    module = Parametrized().eval()
    with torch.no_grad():
        truth = module(torch.from_numpy(X)).numpy()
    model = loaded(module, {"x": X})
    np.testing.assert_allclose(model._run([X])[0], truth, atol=1e-6)
    assert {name.rpartition(".")[2] for name, _ in model.model.named_parameters()} == {"weight", "bias"}
    assert not any(part._forward_pre_hooks for part in model.model.modules())


def test_weights_lie_in_the_order_of_their_axes():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(5, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
    module.to(memory_format=torch.channels_last)
    module[1].bias = nn.Parameter(torch.randn(16)[::2])
    module.register_buffer("grid", torch.randn(4, 6).t())
    x = torch.randn(2, 5, 9, 9)
    with torch.no_grad():
        truth = module(x)
        plain = with_plain_weights(module.eval())
        torch.testing.assert_close(plain(x), truth)
    for tensor in (*plain.parameters(), *plain.buffers()):
        assert tensor.stride() == torch.empty(tensor.shape).stride()


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_becomes_numbers(size, dilation):
    torch.manual_seed(0)
    shared = nn.Conv2d(2, 2, (size, 1), padding="same", dilation=dilation)
    module = nn.Sequential(shared, nn.ReLU(), shared).eval()
    x = torch.randn(2, 2, 16, 5)
    with torch.no_grad():
        truth = module(x)
        plain = with_plain_weights(module)
        torch.testing.assert_close(plain(x), truth)
    assert all(part.padding != "same" for part in plain.modules() if isinstance(part, nn.Conv2d))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("at_end", [True, False], ids=["at the end", "in between"])
@pytest.mark.parametrize("norm", [True, False])
def test_transformer_encoders_return_what_their_fast_path_does(at_end, norm):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8) if norm else None).eval()
    x = torch.randn(3, 5, 8)
    padding = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]]).bool()
    padding = padding if at_end else padding.flip(1)
    with torch.no_grad():
        truth = encoder(x, src_key_padding_mask=padding)
        plain = with_plain_weights(encoder)
        torch.testing.assert_close(plain(x, src_key_padding_mask=padding), truth)


class Streaming(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.count += 1
        self.last = x[:1, 0]
        return x / self.count


def test_looking_at_a_module_changes_no_state():
    module = Streaming().eval()
    loaded(module, {"x": X})
    assert module.count.item() == module.last.item() == 0


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 4, batch_first=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.gru(packed)[1][-1]


@pytest.mark.filterwarnings("ignore")  # of torch's tracer, which is deprecated
def test_lengths_come_from_real_samples(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 7, 6)).astype(np.float32)
    lengths = np.array([3, 7, 1, 5, 2])
    model = loaded(Packed(), {"x": x, "lengths": lengths})
    expected = model._run([x, lengths])[0]
    assert model.data_reads()[0].startswith("pack_padded_sequence() in test_regular_module.py, line ")
    TARGET.convert(model, ConversionRequest("float32", tmp_path))
    session = RUNTIME.open(tmp_path / "model.pt", threads=1)
    np.testing.assert_allclose(session.infer({"x": x, "lengths": lengths})["output"], expected, atol=1e-6)

"""Describing archives without loading them: the figures are those of the loaded module."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from edgekit.torch_files.script_contents import read_contents

pytestmark = pytest.mark.filterwarnings("ignore")  # of TorchScript and of quantization, which are deprecated


class Block(torch.nn.Module):
    """A module with a submodule of a name that is no identifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + x


class Network(torch.nn.Module):
    """A network that calls one submodule twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 4, 3, bias=False)
        self.block = Block()
        self.head = torch.nn.Linear(4, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.block(self.block(self.first(image)))
        return torch.softmax(self.head(x.mean((2, 3))), 1)


def operators(module: torch.jit.ScriptModule) -> Counter[str]:
    """Return the operators that the loaded module calls."""
    nodes = module.inlined_graph.findAllNodes
    kinds = {node.kind() for node in module.inlined_graph.nodes()}
    return Counter({kind: len(nodes(kind)) for kind in kinds if not kind.startswith("prim::")})


@pytest.mark.parametrize("mobile", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("traced", [False, True])
def test_operators_and_parameters_are_those_of_the_module(
    tmp_path: Path, traced: bool, frozen: bool, mobile: bool
) -> None:
    network, path = Network().eval(), tmp_path / "model.pt"
    module = torch.jit.trace(network, torch.ones(1, 1, 8, 8)) if traced else torch.jit.script(network)
    module = torch.jit.freeze(module) if frozen else module
    module._save_for_lite_interpreter(str(path)) if mobile else module.save(path)
    contents = read_contents(path)
    computing = {"aten::conv2d", "aten::_convolution", "aten::relu", "aten::add", "aten::linear", "aten::softmax"}
    computing.add("aten::mean")
    expected = {name: count for name, count in operators(module).items() if name in computing}
    assert {name: count for name, count in contents.operators.items() if name in computing} == expected
    assert sum(expected.values()) == 10
    shapes = sorted(shape for shape, _ in contents.tensors)
    assert shapes == sorted(tuple(parameter.shape) for parameter in network.parameters())
    assert {size for _, size in contents.tensors} == {4}


@pytest.mark.slow
def test_packed_weights_of_quantized_layers_are_counted_without_their_strides(tmp_path: Path) -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "qnnpack"
    image, path = torch.ones(1, 1, 8, 8), tmp_path / "model.pt"
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 6))
    prepared = prepare_fx(torch.nn.Sequential(*layers).eval(), get_default_qconfig_mapping("qnnpack"), image)
    prepared(image)
    torch.jit.freeze(torch.jit.trace(convert_fx(prepared), image)).save(path)
    contents = read_contents(path)
    assert sorted(contents.tensors) == [((4,), 4), ((4, 1, 3, 3), 1), ((6,), 4), ((6, 144), 1)]
    assert contents.operators["quantized::conv2d_relu"] == 1

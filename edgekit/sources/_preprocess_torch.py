"""Steps in front of the inputs of a PyTorch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.core.values.preprocessing import Preprocessing
from edgekit.core.values.specs import Signature
from edgekit.sources._regular_module import keywords_of, wrapped


def preprocessed(model: Any, signature: Signature, steps: Sequence[Preprocessing | None]) -> Any:
    """Return a module around another one that applies steps in front of some of its inputs.

    Args:
        model: The inner module.
        signature: Its inputs and outputs.
        steps: For each input the steps, or None for an input that stays as it is.

    Returns:
        A `torch.fx.GraphModule` in eval mode.
    """
    parts = {f"preprocess_{index}": _module(item) for index, item in enumerate(steps) if item is not None}

    def before(graph: Any, nodes: list[Any]) -> list[Any]:
        return [
            node if item is None else graph.call_module(f"preprocess_{index}", (node,))
            for index, (node, item) in enumerate(zip(nodes, steps, strict=True))
        ]

    names = [spec.name for spec in signature.inputs]
    keywords = keywords_of(model, names)
    return wrapped(model, len(names), len(signature.outputs), before, lambda _graph, nodes: nodes, keywords, parts)


def _module(item: Preprocessing) -> Any:
    import torch
    import torch.nn.functional as F

    class PreprocessModule(torch.nn.Module):  # type: ignore[misc]
        """The steps of one input."""

        def __init__(self) -> None:
            super().__init__()
            # All steps that change channels: in int8 each row of its weights has a scale of its own.
            matrix = torch.from_numpy(item.matrix())
            self.channels = torch.nn.Conv2d(matrix.shape[1], matrix.shape[0], 1)
            self.channels.weight.data = matrix[:, :, None, None].float()
            self.channels.bias.data = torch.from_numpy(item.bias()).float()
            # Has the type to compute in: float64 where the rounding of float32 is measured. That of the weights would
            # become a node of FX's graph, whose quantizer replaces them.
            self.register_buffer("zero", torch.zeros(()), persistent=False)

        def forward(self, x: Any) -> Any:
            x = x.to(self.zero.dtype)
            if item.layout == "NHWC":
                x = x.permute(0, 3, 1, 2)
            if item.resize is not None:
                x = F.interpolate(x, list(item.resize), mode="bilinear", align_corners=False)
            if item.offsets is not None and item.crop is not None:
                (top, left), (height, width) = item.offsets, item.crop
                x = x[:, :, top : top + height, left : left + width]
            x = self.channels(x) if item.mixes else x
            return x.permute(0, 2, 3, 1) if item.spec.layout == "NHWC" else x

    return PreprocessModule().requires_grad_(False).eval()

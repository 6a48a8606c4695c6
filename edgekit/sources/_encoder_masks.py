"""The results of `nn.TransformerEncoder` for padded sequences, without nested tensors."""

from __future__ import annotations

from typing import Any


def without_nested_tensors(module: Any) -> None:
    """Let transformer encoders return what their fast path returns, by operators that converters know.

    In inference, `nn.TransformerEncoder` packs sequences that are padded at their end into nested tensors, and returns
    zeros at the padding (before its last norm). Exporters record the other path, which returns numbers there: a mean
    over the sequence differs.

    Args:
        module: The module; its encoders are changed.
    """
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.TransformerEncoder) and getattr(part, "use_nested_tensor", False):
            part.use_nested_tensor = False
            part.layers[-1].register_forward_hook(_clear_padding, with_kwargs=True)


def _clear_padding(_layer: Any, _arguments: Any, keywords: dict[str, Any], output: Any) -> Any:
    """Return the last layer's output (N, T, C) with zeros where the fast path would not have computed it."""
    import torch

    padding = keywords.get("src_key_padding_mask")
    if padding is None or keywords.get("src_mask") is not None or output.dim() != 3:
        return output
    padding = padding if padding.dtype is torch.bool else padding == float("-inf")  # (N, T)
    # The fast path is taken if all sequences of the call have their padding at the end.
    at_end = (padding[:, 1:] >= padding[:, :-1]).all()
    return torch.where((padding & at_end).unsqueeze(-1), torch.zeros_like(output), output)

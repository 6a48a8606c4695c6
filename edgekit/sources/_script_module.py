"""Conversion of a TorchScript archive's graph to a module of PyTorch's operators."""

from __future__ import annotations

from typing import Any

from edgekit.core.errors import StepFailed
from edgekit.core.values.specs import Signature
from edgekit.sources._module import program_module


def module_of_script(script: Any, signature: Signature, subject: str) -> Any:
    """Convert a TorchScript module to an exported program, and that to a module.

    Args:
        script: The `torch.jit.ScriptModule`.
        signature: Its inputs and outputs.
        subject: How an error names the script, such as its path.

    Returns:
        A `torch.nn.Module`.

    Raises:
        StepFailed: PyTorch cannot convert it.
    """
    import torch
    from torch._export.converter import TS2EPConverter

    # 2 for symbolic dimensions: torch.export takes sizes of 0 and 1 for constants.
    examples = tuple(
        torch.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in signature.inputs
    )
    try:
        # Private, but the only converter: torch.export.export itself refuses ScriptModules.
        program = TS2EPConverter(script, examples).convert()
    except Exception as error:  # the converter raises errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise StepFailed(f"{subject}: PyTorch cannot convert this TorchScript to a program ({reason})") from error
    return program_module(program, signature, examples)

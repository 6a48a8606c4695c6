"""Finding where a PyTorch module's Python code reads the values of tensors that depend on its inputs.

Converters record the operators that a module calls. What Python code decides from values, such as a branch on
`x.sum() > 0`, they record for one input only, or refuse.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

# Methods and functions of tensors that give values to Python, or whose result's shape depends on values, with the name
# that users know them by.
_READS = {
    "__bool__": "a condition",
    "__int__": "int()",
    "__float__": "float()",
    "__index__": "an index or a size",
    "__contains__": "in",
    "item": "item()",
    "tolist": "tolist()",
    "numpy": "numpy()",
    "nonzero": "nonzero()",
    "masked_select": "masked_select()",
    "unique": "unique()",
    "_pack_padded_sequence": "pack_padded_sequence()",
}
# Folders whose files are not the user's, and what code without a file starts with.
_LIBRARIES = (str(Path(__file__).parents[1]), "<")


@dataclass(frozen=True)
class DataRead:
    """A place where a module's code reads the values of a tensor that depends on the inputs.

    Attributes:
        what: What reads them, such as `a condition` or `item()`.
        file: The name of the user's file; empty where no line of the user is known.
        line: The number of the line.
        code: The line.
    """

    what: str
    file: str
    line: int
    code: str

    def __str__(self) -> str:
        where = f" in {self.file}, line {self.line}: {self.code}" if self.file else ""
        return f"{self.what}{where}"


def data_reads(module: Any, tensors: Sequence[Any]) -> tuple[DataRead, ...]:
    """Run a module once and return the places where Python reads values that depend on its inputs.

    Args:
        module: The module, with positional inputs.
        tensors: A tensor for each input.

    Returns:
        The places in the order of the run, each once; those before an error, if the module raises one.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    reads: dict[DataRead, None] = {}
    dependent: dict[int, Any] = {id(tensor): tensor for tensor in tensors}  # kept alive: ids are reused

    class Watching(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            keywords = kwargs or {}
            depends = any(id(leaf) in dependent for leaf in torch.utils._pytree.tree_leaves((args, keywords)))
            name = getattr(func, "__name__", "")
            if depends and name in _READS:
                reads[_place(_READS[name])] = None
            result = func(*args, **keywords)
            if depends:
                leaves = torch.utils._pytree.tree_leaves(result)
                dependent.update({id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.Tensor)})
            return result

    # The run that needs the result reports the errors of the user's code.
    with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]), Watching():
        module(*tensors)
    return tuple(reads)


def _place(what: str) -> DataRead:
    """Return the innermost line of the user's code that is running."""
    import torch

    libraries = (*_LIBRARIES, str(Path(torch.__file__).parent))
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(libraries):
            code = linecache.getline(file, frame.f_lineno).strip()
            return DataRead(what, file.rpartition("/")[2], frame.f_lineno, code[:120].rstrip(":"))
        frame = frame.f_back
    return DataRead(what, "", 0, "")

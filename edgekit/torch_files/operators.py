"""The operators that a file may call: those that compute on tensors and values, and touch nothing else.

The list is a rule over PyTorch's own registry, so that it follows the installed version: a namespace of tensor
operators, and no text argument but the reviewed ones. An operator that takes a file name takes it as text, so one that
a later PyTorch adds is refused until its argument has been reviewed.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

# Namespaces of operators that compute on tensors. Not among them: c10d and symm_mem (other processes), profiler,
# static_runtime and inductor (internals that assume a caller who knows their preconditions), debugprims (reads files).
_NAMESPACES = frozenset(
    {"aten", "quantized", "_quantized", "quantized_decomposed", "prepacked", "prims", "sparse"},
)

# Operators without effects beyond their results that the compiler of TorchScript itself emits. Print writes to the
# worker's captured output only.
_PRIM = frozenset(
    """EnumName EnumValue ModuleContainerIndex NumToTensor Print RaiseException StringIndex TupleIndex TupleUnpack
    Uninitialized abs data device dtype grad id index is_cpu is_cuda is_ipu is_maia is_meta is_mkldnn is_mps is_mtia
    is_nested is_quantized is_sparse is_sparse_csr is_vulkan is_xla is_xpu itemsize layout max min name nbytes
    rangelist requires_grad tolist type unchecked_cast unchecked_unwrap_optional""".split()  # noqa: SIM905
)

# Arguments that choose a method, a mode or a message, and the operands of operators on text and dictionaries.
REVIEWED_TEXTS = frozenset(
    """UPLO a activation algorithm api_name approximate assert_msg b chars device_type dict driver el equation fillchar
    idx indexing input inputs interpolation item key l message mode new norm old ord p pad_mode padding padding_side
    reduce rounding_mode s self separator side string substr t to_add type values""".split()  # noqa: SIM905
)

# Operators that reach other processes although no argument says so.
_REFUSED = frozenset({"aten::dist_backward", "aten::get_gradients", "aten::to_here"})


class Operators(NamedTuple):
    """The registered operators, by name, such as `aten::add`.

    Attributes:
        allowed: The overloads of every operator that a file may call; the default overload is ''.
        refused: The names of all other operators.
    """

    allowed: dict[str, frozenset[str]]
    refused: frozenset[str]


@functools.cache
def operators() -> Operators:
    """Return the registered operators, sorted into those that a file may call and the others.

    An operator is allowed with all its overloads or not at all.
    """
    import torch

    overloads: dict[str, set[str]] = defaultdict(set)
    refused: set[str] = set()
    for schema in torch._C._jit_get_all_schemas():
        overloads[schema.name].add(schema.overload_name)
        if not is_harmless(schema.name, ((argument.name, str(argument.type)) for argument in schema.arguments)):
            refused.add(schema.name)
    allowed = {name: frozenset(found) for name, found in overloads.items() if name not in refused}
    return Operators(allowed, frozenset(refused))


def is_harmless(name: str, arguments: Iterable[tuple[str, str]]) -> bool:
    """Return whether an operator only computes results.

    Args:
        name: The qualified name, such as `aten::add`.
        arguments: Name and type of each argument.
    """
    namespace, _, base = name.partition("::")
    if namespace == "prim":
        return base in _PRIM
    if namespace not in _NAMESPACES or name in _REFUSED:
        return False
    return all(argument in REVIEWED_TEXTS for argument, kind in arguments if "str" in kind)


def is_allowed(name: str, overload: str | None = None) -> bool:
    """Return whether a file may call an operator.

    Args:
        name: The qualified name, such as `aten::add`.
        overload: The overload, which must exist; None stands for any.
    """
    overloads = operators().allowed.get(name)
    return overloads is not None and (overload is None or overload in overloads)

"""Export of a model as C source: the flatbuffer as an array, sizes and scales, and the interpreter's operators."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.escape import c_comment
from edgekit.core.values.specs import Signature, TensorSpec

# As in `xxd -i`, which firmware projects use for the same purpose.
_BYTES_PER_LINE = 12

# Methods of MicroMutableOpResolver (tflite-micro) whose names do not follow from the operator's by capitalizing.
_RESOLVER_METHODS = {"BATCH_MATMUL": "BatchMatMul", "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM"}


@dataclass(frozen=True)
class CModel:
    """The content of the generated files.

    Attributes:
        name: A C identifier, from which the names of files, variables and macros are derived.
        content: The flatbuffer.
        signature: Inputs and outputs in the order in which the interpreter numbers them, for the macros.
        arena_bytes: The smallest tensor arena, in bytes.
        operators: The operators of the model by their TFLite names, such as `CONV_2D`, possibly repeated.
        origin: Where the model comes from, for the first line of each file.
    """

    name: str
    content: bytes
    signature: Signature
    arena_bytes: int
    operators: Sequence[str]
    origin: str


def files(model: CModel) -> Mapping[str, str]:
    """Generate the source files of a model.

    Args:
        model: The content of the files.

    Returns:
        The text of each file by its name: a C header, a C source, and a C++ header with the operator resolver.
    """
    return {
        f"{model.name}.h": _header(model),
        f"{model.name}.c": _source(model),
        f"{model.name}_ops.h": _resolver(model),
    }


def _header(model: CModel) -> str:
    guard, upper = f"{model.name.upper()}_H_", model.name.upper()
    lines = [c_comment(model.origin), f"#ifndef {guard}", f"#define {guard}", "", "#include <stddef.h>", ""]
    lines += ['#ifdef __cplusplus\nextern "C" {\n#endif', ""]
    lines += ["/* The flatbuffer, aligned to 16 bytes for TensorFlow Lite Micro. */"]
    lines += [f"extern const unsigned char {model.name}[];", f"extern const size_t {model.name}_size;", ""]
    lines += [
        "/* The smallest arena in bytes, found by bisection with the reference kernels on a 64-bit host.",
        "   A 32-bit core needs less, since its pointers are smaller; optimised kernels may need more,",
        "   since they may request scratch memory of their own. */",
    ]
    lines += [f"#define {upper}_ARENA_SIZE {model.arena_bytes}", ""]
    for side, specs in (("INPUT", model.signature.inputs), ("OUTPUT", model.signature.outputs)):
        for index, spec in enumerate(specs):
            lines += _tensor(f"{upper}_{side}_{index}", spec)
    return "\n".join([*lines, "#ifdef __cplusplus\n}\n#endif", "", f"#endif /* {guard} */", ""])


def _tensor(prefix: str, spec: TensorSpec) -> list[str]:
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape]  # firmware runs one sample
    size = 1
    for dim in shape:
        size *= dim
    lines = [c_comment(str(spec)), f"#define {prefix}_ELEMENTS {size}"]
    # Inputs and outputs have one scale; per-channel scales do not fit into one macro.
    if spec.quantization is not None and len(spec.quantization.scale) == 1:
        lines.append("/* real = scale * (stored - zero_point) */")
        lines.append(f"#define {prefix}_SCALE {spec.quantization.scale[0]!r}f")
        lines.append(f"#define {prefix}_ZERO_POINT ({spec.quantization.zero_point[0]})")
    return [*lines, ""]


def _source(model: CModel) -> str:
    starts = range(0, len(model.content), _BYTES_PER_LINE)
    rows = (model.content[start : start + _BYTES_PER_LINE] for start in starts)
    body = ",\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    # TensorFlow Lite Micro reads tensors in place from the array, and its kernels need an alignment of 16 bytes.
    return (
        f"{c_comment(model.origin)}\n"
        f'#include "{model.name}.h"\n\n'
        "#if defined(__cplusplus)\n#define ALIGNED alignas(16)\n"
        "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L\n#define ALIGNED _Alignas(16)\n"
        "#else\n#define ALIGNED __attribute__((aligned(16)))\n#endif\n\n"
        f"ALIGNED const unsigned char {model.name}[] = {{\n{body}\n}};\n"
        f"const size_t {model.name}_size = sizeof({model.name});\n"
    )


def _resolver(model: CModel) -> str:
    names = sorted({_method(name) for name in model.operators})
    calls = "\n".join(f"  resolver.Add{name}();" for name in names)
    return (
        f"{c_comment(model.origin)}\n#pragma once\n\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        "/* Registers the operators of this model only, since each registered operator takes flash. */\n"
        f"inline tflite::MicroMutableOpResolver<{len(names)}> {model.name}_ops() {{\n"
        f"  tflite::MicroMutableOpResolver<{len(names)}> resolver;\n{calls}\n  return resolver;\n}}\n"
    )


def _method(operator: str) -> str:
    """Return the suffix of MicroMutableOpResolver's method: `Conv2D` for `CONV_2D`."""
    # Custom operators have any name: other characters than letters and digits cannot be part of a method.
    parts = re.findall("[A-Za-z0-9]+", operator)
    return _RESOLVER_METHODS.get(operator, "".join(part if part[0].isdigit() else part.capitalize() for part in parts))

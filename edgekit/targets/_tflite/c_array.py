"""A model as C: an array, its sizes, the scales of its tensors, and the operators that its interpreter must know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.values.specs import Signature, TensorSpec

_PER_LINE = 12
_C_NAMES = {"BATCH_MATMUL": "BatchMatMul", "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM"}


@dataclass(frozen=True)
class CModel:
    """What is written: the file's bytes, what it needs, and what it is called (an identifier of C)."""

    name: str
    content: bytes
    signature: Signature
    arena_bytes: int
    operators: Sequence[str]
    origin: str


def identifier(text: str) -> str:
    """A name of C that looks like the text: `simple_cnn-keras` is `simple_cnn_keras`."""
    plain = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower()
    return plain if plain and not plain[0].isdigit() else f"model_{plain}"


def files(model: CModel) -> Mapping[str, str]:
    """The text of every file by its name: header and source in C, and the resolver of operators in C++."""
    return {
        f"{model.name}.h": _header(model),
        f"{model.name}.c": _source(model),
        f"{model.name}_ops.h": _resolver(model),
    }


def _header(model: CModel) -> str:
    guard, upper = f"{model.name.upper()}_H_", model.name.upper()
    lines = [_comment(model.origin), f"#ifndef {guard}", f"#define {guard}", "", "#include <stddef.h>", ""]
    lines += ['#ifdef __cplusplus\nextern "C" {\n#endif', ""]
    lines += ["/* The flatbuffer, aligned as TensorFlow Lite Micro wants it. */"]
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


def _comment(text: str) -> str:
    """Return a C comment; markers inside the text are escaped, since compilers reject them or warn (-Wcomment)."""
    escaped = text.replace("*/", "*\\/").replace("/*", "/\\*")
    return f"/* {escaped} */"


def _tensor(prefix: str, spec: TensorSpec) -> list[str]:
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape]
    size = 1
    for dim in shape:
        size *= dim
    lines = [_comment(str(spec)), f"#define {prefix}_ELEMENTS {size}"]
    if spec.quantization is not None and len(spec.quantization.scale) == 1:
        lines.append("/* real = scale * (stored - zero_point) */")
        lines.append(f"#define {prefix}_SCALE {spec.quantization.scale[0]!r}f")
        lines.append(f"#define {prefix}_ZERO_POINT ({spec.quantization.zero_point[0]})")
    return [*lines, ""]


def _source(model: CModel) -> str:
    rows = (model.content[start : start + _PER_LINE] for start in range(0, len(model.content), _PER_LINE))
    body = ",\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    return (
        f"{_comment(model.origin)}\n"
        f'#include "{model.name}.h"\n\n'
        "#if defined(__cplusplus)\n#define ALIGNED alignas(16)\n"
        "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L\n#define ALIGNED _Alignas(16)\n"
        "#else\n#define ALIGNED __attribute__((aligned(16)))\n#endif\n\n"
        f"ALIGNED const unsigned char {model.name}[] = {{\n{body}\n}};\n"
        f"const size_t {model.name}_size = sizeof({model.name});\n"
    )


def _resolver(model: CModel) -> str:
    names = sorted({_method(name) for name in model.operators})
    adds = "\n".join(f"  resolver.Add{name}();" for name in names)
    return (
        f"{_comment(model.origin)}\n#pragma once\n\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        "/* The operators of this model and no others: each one that is left out saves flash. */\n"
        f"inline tflite::MicroMutableOpResolver<{len(names)}> {model.name}_ops() {{\n"
        f"  tflite::MicroMutableOpResolver<{len(names)}> resolver;\n{adds}\n  return resolver;\n}}\n"
    )


def _method(operator: str) -> str:
    """`CONV_2D` as MicroMutableOpResolver calls it: `Conv2D`."""
    parts = operator.split("_")
    return _C_NAMES.get(operator, "".join(part if part[0].isdigit() else part.capitalize() for part in parts))

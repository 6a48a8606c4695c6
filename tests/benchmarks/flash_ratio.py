"""How many bytes of Thumb-2 say what a byte of x86-64 says? The reference kernels of TensorFlow Lite Micro, compiled
for both; prints the ratio.

`python tests/benchmarks/flash_ratio.py INCLUDE...`, with the folders that have TensorFlow Lite Micro's headers in them
(a checkout, or `runtime/include` of the wheel of xmos-ai-tools) and gemmlowp's `fixedpoint` (Debian: libgemmlowp-dev;
`include/external/gemmlowp` of the wheel of tensorflow). Takes g++ and arm-none-eabi-g++ (Debian: gcc-arm-none-eabi,
libstdc++-arm-none-eabi-newlib).

The kernels that are no templates are written out whether anything calls them or not (-fkeep-inline-functions).
TensorFlow Lite Micro builds its kernels with -O2, as is the library that edgekit reads, and the rest of it with -Os,
which is smaller.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from elftools.elf.elffile import ELFFile

HEADERS = [
    *("add", "concatenation", "conv", "depthwiseconv_float", "fully_connected", "hard_swish", "l2normalization"),
    *("leaky_relu", "log_softmax", "logistic", "pooling", "prelu", "reduce", "resize_bilinear", "softmax", "sub"),
    *("tanh", "transpose_conv"),
    *(f"integer_ops/{name}" for name in ("add", "conv", "depthwise_conv", "l2normalization", "logistic", "mean")),
    *(f"integer_ops/{name}" for name in ("mul", "pooling", "tanh", "transpose_conv")),
]
NO_PROFILER = """#pragma once
namespace ruy { namespace profiler {
struct ScopeLabel { template <typename... Args> explicit ScopeLabel(Args...) {} };
} }
"""  # what ruy's header says when nothing is profiled
COMMON = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fno-unwind-tables", "-w", "-c"]
WRITTEN_OUT = ["-fkeep-inline-functions", "-DTF_LITE_STATIC_MEMORY", "-DTF_LITE_MCU_DEBUG_LOG"]
ARM = ["arm-none-eabi-g++", "-mthumb", "-mfloat-abi=hard"]
X86 = ("x86-64 -O2 -fPIC", ["g++", "-O2", "-fPIC", "-fcf-protection=none"])
CORES = {
    "Cortex-M4 -O2": [*ARM, "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-O2"],
    "Cortex-M7 -O2": [*ARM, "-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-O2"],
    "Cortex-M33 -O2": [*ARM, "-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-O2"],
}


def sizes(compiler: list[str], include: list[str], folder: Path) -> dict[str, int]:
    """Bytes of each kernel; overloads together, since an int32_t is an int on one side and a long on the other."""
    source, made = folder / "kernels.cc", folder / "kernels.o"
    profiler = folder / "ruy/profiler/instrumentation.h"
    profiler.parent.mkdir(parents=True, exist_ok=True)
    profiler.write_text(NO_PROFILER)
    prefix = "tensorflow/lite/kernels/internal/reference"
    source.write_text("".join(f'#include "{prefix}/{name}.h"\n' for name in HEADERS))
    subprocess.run([*compiler, *COMMON, *WRITTEN_OUT, f"-I{folder}", *include, "-o", made, source], check=True)
    found: dict[str, int] = defaultdict(int)
    with made.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        for symbol in symbols.iter_symbols():
            name = symbol.name.split("ERK")[0].split("EPK")[0]
            if symbol["st_info"]["type"] == "STT_FUNC" and "reference" in name:
                found[name] += symbol["st_size"]
    return found


def main() -> None:
    """Compiles, compares, prints."""
    include = [f"-I{folder}" for folder in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        host = sizes(X86[1], include, Path(folder))
        print(f"{sum(host.values()):7,} bytes in {len(host)} kernels, {X86[0]}")
        for title, compiler in CORES.items():
            arm = sizes(compiler, include, Path(folder))
            shared = [name for name in host if name in arm and host[name] > 100]
            total = sum(arm[name] for name in shared) / sum(host[name] for name in shared)
            low, *_, high = statistics.quantiles(draws(shared, arm, host), n=20)
            print(f"{total:.3f} of it, {title}: {len(shared)} kernels; of ten of them, {low:.2f} to {high:.2f}")


def draws(shared: list[str], arm: dict[str, int], host: dict[str, int]) -> list[float]:
    """The ratio of some kernels together, as a model has some: a thousand times ten."""
    chance = random.Random(0)
    chosen = (chance.sample(shared, 10) for _ in range(1000))
    return [sum(arm[name] for name in some) / sum(host[name] for name in some) for some in chosen]


if __name__ == "__main__":
    main()
